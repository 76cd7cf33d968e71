"""A market to judge a cleaner by: how large, how lively and how long its faults are, the seed draws.

In `pitwise.simulation.faults` each kind has its constants, which a detector can be built to. Here every
market draws its own habits from wide ranges first, and its faults from those habits, so that what holds
on average over seeds was not read off. Kinds overlap as they do there, and more so.
"""

from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.schema import COLUMNS, PRICES
from pitwise.errors import DataError
from pitwise.simulation.faults import TRUTH_COLUMNS, Grid, Place, raise_volume, rebase, widen
from pitwise.simulation.market import Market, SyntheticParams, synthetic_market

ROOM = 25
"""Sessions of a symbol left alone before and after what is planted."""
TRIES = 5_000
PLAIN = np.array([1.25, 4 / 3, 1.5, 2, 2.5, 3, 4, 5, 7, 8, 10, 15, 20, 25, 30])
POWERS = np.array([0.001, 0.01, 0.1, 10.0, 100.0, 1000.0])
COPIED = "copy_of"
"""Column of the truth: the session whose bar stands in the row; NaT where it is no copy."""


class Habit:
    """A quantity that is about the same throughout a market, and different in the next.

    Its values are log-normal about a centre drawn from `low` to `high`, with a spread drawn too, and cut
    to that range.
    """

    def __init__(self, rng: np.random.Generator, low: float, high: float):
        self._rng = rng
        self._low, self._high = np.log(low), np.log(high)
        self._centre = rng.uniform(self._low, self._high)
        self._spread = rng.uniform(0.05, 0.4) * (self._high - self._low)

    def __call__(self) -> float:
        value = self._rng.normal(self._centre, self._spread)
        return float(np.exp(np.clip(value, self._low, self._high)))


class Share:
    """As `Habit`, of a share from 0 to 1: beta-distributed about a centre drawn from `low` to `high`."""

    def __init__(self, rng: np.random.Generator, low: float, high: float):
        self._rng = rng
        centre, weight = rng.uniform(low, high), rng.uniform(2, 30)
        self._of = centre * weight, (1 - centre) * weight

    def __call__(self) -> float:
        return float(self._rng.beta(*self._of))


class Choice:
    """As `Habit`, of one of several: their odds are drawn."""

    def __init__(self, rng: np.random.Generator, options: list | np.ndarray):
        self._rng, self._options = rng, list(options)
        self._odds = rng.dirichlet(np.full(len(self._options), 0.7))

    def __call__(self):
        return self._options[self._rng.choice(len(self._options), p=self._odds)]


class Planted(NamedTuple):
    """A row of the truth: symbol `i`, session `t`, and `other`, the session that was copied."""

    i: int
    t: int
    price_ratio: float = np.nan
    sessions: int = 1
    other: int = -1


Plant = Callable[[Grid, Place], Planted | None]


class Kind(NamedTuple):
    plant: Plant
    sessions: Callable[[], float] = lambda: 1.0
    """How long it lasts."""


def _trading(
    grid: Grid, i: int, t: int, rng: np.random.Generator, range_: Habit, dollars: Habit
) -> None:
    widen(grid, i, t, range_(), rng)
    grid.high[i, t] = max(grid.high[i, t], grid.open[i, t], grid.close[i, t])
    grid.low[i, t] = min(grid.low[i, t], grid.open[i, t], grid.close[i, t])
    raise_volume(grid, i, t, dollars(), rng.uniform(1.0, 6.0))


def _splits(rng: np.random.Generator) -> Kind:
    forward, ratio = Share(rng, 0.3, 0.95), Choice(rng, PLAIN)
    range_, dollars = Habit(rng, 0.8, 2.5), Habit(rng, 0.6, 3.0)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, _ = place
        shares = ratio() if rng.random() < forward() else 1 / ratio()
        if not rebase(grid, i, t, 1 / shares):
            return None
        grid.volume[i, :t] /= shares
        _trading(grid, i, t, rng, range_, dollars)
        return Planted(i, t, 1 / shares)

    return Kind(plant)


def _parts(rng: np.random.Generator, smallest: float, largest: float, liveliest: float) -> Kind:
    """A part of the price that leaves overnight, in shares of another company or in cash."""
    part = Habit(rng, smallest, largest)
    range_, dollars = Habit(rng, 0.8, liveliest), Habit(rng, 0.6, liveliest)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, _ = place
        ratio = 1 - part()
        if not rebase(grid, i, t, ratio):
            return None
        _trading(grid, i, t, rng, range_, dollars)
        raise_volume(grid, i, t, 1 / ratio, 2)
        return Planted(i, t, ratio)

    return Kind(plant)


def _news(rng: np.random.Generator) -> Kind:
    size, up, overnight = Habit(rng, 0.05, 0.45), Share(rng, 0.2, 0.8), Share(rng, 0.3, 0.98)
    range_, dollars = Habit(rng, 1.0, 4.0), Habit(rng, 1.5, 20.0)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, _ = place
        ratio = 1 + size() if rng.random() < up() else 1 - size()
        if not rebase(grid, i, t, ratio):
            return None
        grid.open[i, t] *= ratio ** (overnight() - 1)
        grid.high[i, t] = max(grid.high[i, t], grid.open[i, t])
        grid.low[i, t] = min(grid.low[i, t], grid.open[i, t])
        _trading(grid, i, t, rng, range_, dollars)
        return Planted(i, t, grid.close[i, t] / grid.close[i, t - 1])

    return Kind(plant)


def _halts(rng: np.random.Generator) -> Kind:
    move = rng.uniform(0.02, 0.4)
    range_, dollars = Habit(rng, 1.0, 4.0), Habit(rng, 1.5, 30.0)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, n = place
        if not rebase(grid, i, t, np.exp(rng.normal(0.0, move))):
            return None
        grid.alive[i, t : t + n] = False
        _trading(grid, i, t + n, rng, range_, dollars)
        return Planted(i, t, sessions=n)

    return Kind(plant, Habit(rng, 1, 40))


def _new_companies(rng: np.random.Generator) -> Kind:
    price, volume = rng.uniform(0.4, 2.5), rng.uniform(0.5, 3.0)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, n = place
        if not rebase(grid, i, t, np.exp(rng.normal(0.0, price))):
            return None
        grid.volume[i, :t] *= np.exp(rng.normal(0.0, volume))
        grid.alive[i, t : t + n] = False
        return Planted(i, t + n)

    return Kind(plant, Habit(rng, 30, 400))


def _gaps(rng: np.random.Generator) -> Kind:
    def plant(grid: Grid, place: Place) -> Planted:
        i, t, n = place
        grid.alive[i, t : t + n] = False
        return Planted(i, t, sessions=n)

    return Kind(plant, Habit(rng, 1, 20))


def _bad_prints(rng: np.random.Generator) -> Kind:
    size, up = Habit(rng, 0.06, 0.8), Share(rng, 0.2, 0.8)
    what = Choice(rng, ["close", "close and range", "wick", "bar"])

    def plant(grid: Grid, place: Place) -> Planted:
        i, t, _ = place
        wrong = 1 + size() if rng.random() < up() else 1 - size()
        shape = what()
        prices = grid.prices if shape == "bar" else [grid.close]
        if shape == "wick":
            prices = [grid.high if wrong > 1 else grid.low]
        for price in prices:
            price[i, t] = np.round(price[i, t] * wrong, 2)
        if shape == "close and range":
            grid.high[i, t] = max(grid.high[i, t], grid.close[i, t])
            grid.low[i, t] = min(grid.low[i, t], grid.close[i, t])
        return Planted(i, t, prices[-1][i, t] / grid.close[i, t - 1])

    return Kind(plant)


def _scale_errors(rng: np.random.Generator) -> Kind:
    power = Choice(rng, POWERS)

    def plant(grid: Grid, place: Place) -> Planted:
        i, t, n = place
        factor = power()
        for price in grid.prices:
            price[i, t : t + n] = np.round(price[i, t : t + n] * factor, 4)
        return Planted(i, t, factor, n)

    return Kind(plant, Habit(rng, 1, 8))


def _displaced(rng: np.random.Generator) -> Kind:
    later, away, exact = Share(rng, 0.6, 1.0), Habit(rng, 1, 240), Share(rng, 0.3, 1.0)

    def plant(grid: Grid, place: Place) -> Planted | None:
        i, t, _ = place
        other = t + round(away()) if rng.random() < later() else t - round(away())
        if not 0 <= other < len(grid.days) or not _same_share(grid, i, min(t, other), max(t, other)):
            return None
        volume = 1.0 if rng.random() < exact() else np.exp(rng.normal(0.0, 0.06))
        return _copy(grid, i, t, other, volume)

    return Kind(plant)


def _same_share(grid: Grid, i: int, first: int, last: int) -> bool:
    """Whether the symbol traded throughout, so that the other session's bar is no other company's."""
    return bool(grid.alive[i, first : last + 1].all())


def _copy(grid: Grid, i: int, t: int, other: int, volume: float = 1.0) -> Planted | None:
    """Put the bar of session `other` at `t`; None if it is there already."""
    if all(price[i, t] == price[i, other] for price in grid.prices):
        return None
    for price in grid.prices:
        price[i, t] = price[i, other]
    grid.volume[i, t] = np.round(grid.volume[i, other] * volume)
    return Planted(i, t, other=other)


def _stale(rng: np.random.Generator) -> Kind:
    volume = Choice(rng, ["repeated", "none", "little"])

    def plant(grid: Grid, place: Place) -> Planted:
        i, t, n = place
        for price in grid.prices:
            price[i, t : t + n] = price[i, t - 1]
        usual = grid.volume[i, t - 1]
        times = {"repeated": np.ones(n), "none": np.zeros(n), "little": rng.uniform(0.001, 0.05, n)}
        grid.volume[i, t : t + n] = np.round(usual * times[volume()])
        return Planted(i, t, sessions=n)

    return Kind(plant, Habit(rng, 4, 30))


def _no_volume(rng: np.random.Generator) -> Kind:
    """Quotes without a trade: flat at the last close, or moving as they did."""
    flat = Share(rng, 0.2, 0.9)

    def plant(grid: Grid, place: Place) -> Planted:
        i, t, n = place
        grid.volume[i, t : t + n] = 0.0
        if rng.random() < flat():
            for price in grid.prices:
                price[i, t : t + n] = grid.close[i, t - 1]
        return Planted(i, t, sessions=n)

    return Kind(plant, Habit(rng, 2, 40))


def _absurd_volumes(rng: np.random.Generator) -> Kind:
    times = Habit(rng, 200, 1e7)

    def plant(grid: Grid, place: Place) -> Planted:
        i, t, _ = place
        grid.volume[i, t] = np.round(grid.volume[i, t] * times())
        return Planted(i, t)

    return Kind(plant)


EVENTS: dict[str, Callable[[np.random.Generator], Kind]] = {
    "split": _splits,
    "spin_off": lambda rng: _parts(rng, 0.06, 0.65, 6.0),
    "special_dividend": lambda rng: _parts(rng, 0.05, 0.3, 2.0),
    "jump": _news,
    "halt": _halts,
    "symbol_reused": _new_companies,
}
"""What happened in the market."""
FAULTS: dict[str, Callable[[np.random.Generator], Kind]] = {
    "bad_print": _bad_prints,
    "scale_error": _scale_errors,
    "displaced": _displaced,
    "stale": _stale,
    "no_volume": _no_volume,
    "absurd_volume": _absurd_volumes,
    "gap": _gaps,
}
"""What the source got wrong, symbol by symbol."""
MASS = {"displaced_session": (0.05, 0.7), "repeated_session": (0.3, 1.0)}
"""Sessions in which a share of the symbols, from and to, carries another session's bars: mostly a later
one, under the kind `displaced`; the one before, under the kind `repeated`."""
DRAWN = (*EVENTS, *FAULTS, *MASS)


def drawn_market(
    symbols: int, sessions: int, seed: int, counts: dict[str, int], start: date = date(2012, 1, 3)
) -> Market:
    """A synthetic market with `counts` of each of `DRAWN`; the same arguments give the same bytes.

    Raises:
        DataError: there is no room for what is asked, or no such kind.
    """
    beneath = SyntheticParams(
        symbols=symbols, start=start, sessions=sessions, seed=seed, signal=0.0, faults={}
    )
    return plant_drawn(synthetic_market(beneath).bars, seed, counts)


def plant_drawn(bars: pd.DataFrame, seed: int, counts: dict[str, int]) -> Market:
    """The bars with `counts` of each of `DRAWN` in them, and the truth, which has `copy_of` as well."""
    if unknown := sorted(set(counts) - set(DRAWN)):
        raise DataError(f"{', '.join(unknown)}: no such kind; kinds are {', '.join(DRAWN)}")
    grid, names = _grid(bars)
    habits, places = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, 12]).spawn(2))
    free = grid.alive.copy()
    truth: list[tuple[str, Planted]] = []
    for name, kind in EVENTS.items():
        truth += _singles(grid, name, kind(habits), counts.get(name, 0), free, places)
    for price in grid.prices:
        np.round(price, 2, out=price)
    np.round(grid.volume, out=grid.volume)
    grid.volume.clip(1.0, out=grid.volume)
    for name in MASS:
        for _ in range(counts.get(name, 0)):
            truth += _mass(grid, name, free, habits, places)
    for name, kind in FAULTS.items():
        truth += _singles(grid, name, kind(habits), counts.get(name, 0), free, places)
    return Market(_rows(grid, names), _truth(truth, grid, names))


def _singles(
    grid: Grid, name: str, kind: Kind, count: int, free: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, Planted]]:
    symbols, sessions = free.shape
    found: list[tuple[str, Planted]] = []
    for _ in range(TRIES * min(count, 1)):
        n = max(1, round(kind.sessions()))
        if sessions <= n + 2 * ROOM:
            continue
        place = Place(int(rng.integers(symbols)), int(rng.integers(ROOM, sessions - n - ROOM)), n)
        around = np.s_[place.i, place.t - ROOM : place.t + n + ROOM]
        if not free[around].all() or (planted := kind.plant(grid, place)) is None:
            continue
        free[place.i, place.t : place.t + n] = False
        if planted.other >= 0:
            free[place.i, planted.other] = False
        found.append((name, planted))
        if len(found) == count:
            return found
    if count:
        raise DataError(f"drawn: {symbols:,} symbols have room for {len(found)} of {count} {name}")
    return found


def _mass(
    grid: Grid, name: str, free: np.ndarray, habits: np.random.Generator, rng: np.random.Generator
) -> list[tuple[str, Planted]]:
    """One session in which a share of the symbols carries the bars of another."""
    sessions = free.shape[1]
    struck = rng.random(len(free)) < habits.uniform(*MASS[name])
    away = -1 if name == "repeated_session" else round(np.exp(habits.uniform(0.0, np.log(60))))
    t = int(rng.integers(ROOM, sessions - ROOM - max(away, 0)))
    found = []
    for i in np.flatnonzero(struck).tolist():
        if (
            not free[i, t]
            or not free[i, t + away]
            or not _same_share(grid, i, min(t, t + away), max(t, t + away))
        ):
            continue
        if (planted := _copy(grid, i, t, t + away)) is not None:
            free[i, [t, t + away]] = False
            found.append(("repeated" if away == -1 else "displaced", planted))
    return found


def _grid(bars: pd.DataFrame) -> tuple[Grid, np.ndarray]:
    """The bars as arrays, and the symbols' names. They are sorted and have no other fault."""
    i, names = pd.factorize(bars["symbol"], sort=True)
    t, days = pd.factorize(bars["date"], sort=True)
    columns = {}
    for name in (*PRICES, "volume"):
        columns[name] = np.full((len(names), len(days)), np.nan)
        columns[name][i, t] = bars[name]
    alive = np.isfinite(columns["close"])
    return Grid(pd.DatetimeIndex(days).to_numpy(), alive, **columns), np.asarray(names, object)


def _rows(grid: Grid, names: np.ndarray) -> pd.DataFrame:
    i, t = np.nonzero(grid.alive)
    columns = {"symbol": pd.array(names[i], dtype="string"), "date": grid.days[t]}
    return pd.DataFrame(columns | {name: getattr(grid, name)[i, t] for name in COLUMNS[2:]})


def _truth(planted: list[tuple[str, Planted]], grid: Grid, names: np.ndarray) -> pd.DataFrame:
    rows = [
        (names[p.i], grid.days[p.t], name, p.price_ratio, p.sessions, grid.days[p.other], p.other >= 0)
        for name, p in planted
    ]
    truth = pd.DataFrame(rows, columns=[*TRUTH_COLUMNS, COPIED, "copied"])
    truth[COPIED] = truth[COPIED].where(truth.pop("copied").astype(bool))
    types = {"symbol": "string", "kind": "string", "date": "datetime64[us]", COPIED: "datetime64[us]"}
    return truth.astype(types).sort_values(["symbol", "date"], ignore_index=True)
