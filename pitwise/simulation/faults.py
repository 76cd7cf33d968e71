"""Events and faults, planted in a synthetic market at random places, and listed as the truth.

Volumes, ranges and overnight shares of spin-offs and jumps are those of the S&P 500's moves of more than
15% from 2014 to 2017, whose causes are public.

Kinds overlap by nature, as they do in a real source, and no detector can part them all: a `jump` down
on little volume and a `spin_off` on much; a `spin_off` near a plain ratio and a `split`; a small
`bad_print` and a swing of a volatile stock; a large `bad_print` and a `scale_error` of one session; a
`halt` that comes back where it left and a `gap`. Moves that nobody planted can be as large as a small
jump and are in no truth: they are the market's own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pitwise.errors import DataError

TRUTH_COLUMNS = ["symbol", "date", "kind", "price_ratio", "sessions"]
SPACING = 15  # sessions of a symbol left alone before and after what is planted
TRIES = 2_000  # places tried for one fault before giving up
PRICE_BAND = (1.0, 20_000.0)  # dollars between which an event may move the prices before it
DAY = np.timedelta64(1, "D")

FORWARD_SPLITS = np.array([2, 3, 1.5, 4, 5, 7, 10, 20])
FORWARD_ODDS = np.array([0.45, 0.12, 0.18, 0.09, 0.05, 0.02, 0.06, 0.03])
REVERSE_SPLITS = 1 / np.array([2, 3, 4, 5, 8, 10, 15, 20])


@dataclass
class Grid:
    """Bars as arrays (symbols, sessions), which planting changes in place."""

    days: np.ndarray
    alive: np.ndarray
    """True where the symbol has a bar."""
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    extra: list[tuple] = field(default_factory=list, init=False)
    """Rows beyond the grid: (flat cell behind which it stands, date, open, high, low, close, volume)."""

    @property
    def prices(self) -> list[np.ndarray]:
        return [self.open, self.high, self.low, self.close]


class Place(NamedTuple):
    """Where to plant: symbol `i`, sessions `t` up to `t + n`."""

    i: int
    t: int
    n: int


Effect = tuple[np.datetime64, float, int]
"""Date, price_ratio and sessions of the truth."""
Planter = Callable[[Grid, Place, np.random.Generator], Effect | None]
"""Plants one fault in the grid, or returns None where the place does not suit."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _move(low: float, high: float, rng: np.random.Generator) -> float:
    """A price over another: up or down by a share that is log-uniform from `low` to `high`."""
    return 1 + rng.choice([-1, 1]) * log_uniform(rng, low, high)


def rebase(grid: Grid, i: int, t: int, ratio: float) -> bool:
    """Let the price at session `t` be `ratio` times what it was, by moving the prices before it.

    The last price stays as it was. False, and nothing done, if the prices would leave `PRICE_BAND`.
    """
    before = grid.alive[i, :t]
    low, high = grid.low[i, :t][before].min() / ratio, grid.high[i, :t][before].max() / ratio
    if low < PRICE_BAND[0] or high > PRICE_BAND[1]:
        return False
    for price in grid.prices:
        price[i, :t] /= ratio
    return True


def widen(grid: Grid, i: int, t: int, times: float, rng: np.random.Generator) -> None:
    """Make the range of a session `times` as wide, in logs, at both ends by chance."""
    more = (times - 1) * np.log(grid.high[i, t] / grid.low[i, t])
    up = rng.random()
    grid.high[i, t] *= np.exp(up * more)
    grid.low[i, t] *= np.exp((up - 1) * more)


def raise_volume(grid: Grid, i: int, t: int, times: float, sessions: float) -> None:
    """Multiply the volume of session `t`; what is above ordinary decays over about `sessions`."""
    decay = np.exp(-np.arange(SPACING) * 2 / sessions)
    grid.volume[i, t : t + SPACING] *= 1 + (times - 1) * decay


def _split(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, _ = place
    forward = rng.random() < 0.75
    shares = rng.choice(FORWARD_SPLITS, p=FORWARD_ODDS) if forward else rng.choice(REVERSE_SPLITS)
    if not rebase(grid, i, t, 1 / shares):
        return None
    grid.volume[i, :t] /= shares
    raise_volume(grid, i, t, rng.uniform(1.0, 1.5), 3)
    return grid.days[t], 1 / shares, 1


def _spin_off(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, _ = place
    ratio = 1 - log_uniform(rng, 0.08, 0.55)
    if np.abs(ratio * FORWARD_SPLITS - 1).min() < 0.02 or not rebase(grid, i, t, ratio):
        return None
    widen(grid, i, t, np.exp(rng.normal(0.8, 0.4)), rng)
    raise_volume(grid, i, t, np.exp(rng.normal(0.75, 0.4)) / ratio, 4)
    return grid.days[t], ratio, 1


def _jump(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, _ = place
    ratio = _move(0.08, 0.35, rng)
    if not rebase(grid, i, t, ratio):
        return None
    within = 1 - np.clip(rng.normal(0.68, 0.33), 0.0, 1.2)
    grid.open[i, t] *= ratio**-within
    grid.high[i, t] = max(grid.high[i, t], grid.open[i, t])
    grid.low[i, t] = min(grid.low[i, t], grid.open[i, t])
    widen(grid, i, t, rng.uniform(1.0, 3.0), rng)
    raise_volume(grid, i, t, log_uniform(rng, 3.0, 10.0), rng.uniform(3.0, 5.0))
    return grid.days[t], grid.close[i, t] / grid.close[i, t - 1], 1


def _halt(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, n = place
    if not rebase(grid, i, t, np.exp(rng.normal(0.0, 0.1))):
        return None
    grid.alive[i, t : t + n] = False
    widen(grid, i, t + n, rng.uniform(1.0, 3.0), rng)
    raise_volume(grid, i, t + n, log_uniform(rng, 2.0, 8.0), 3)
    return grid.days[t], np.nan, n


def _symbol_reused(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, n = place
    if not rebase(grid, i, t, np.exp(rng.normal(0.0, 1.3))):
        return None
    grid.volume[i, :t] *= np.exp(rng.normal(0.0, 1.5))
    grid.alive[i, t : t + n] = False
    return grid.days[t + n], np.nan, 1


def _gap(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, n = place
    grid.alive[i, t : t + n] = False
    return grid.days[t], np.nan, n


def _bad_print(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    wrong = _move(0.08, 0.60, rng)
    what = rng.choice(["close and range", "wick", "close alone"], p=[0.55, 0.35, 0.10])
    price = grid.close if what != "wick" else grid.high if wrong > 1 else grid.low
    price[i, t] = np.round(price[i, t] * wrong, 2)
    if what == "close and range":
        grid.high[i, t] = max(grid.high[i, t], price[i, t])
        grid.low[i, t] = min(grid.low[i, t], price[i, t])
    return grid.days[t], price[i, t] / grid.close[i, t - 1], 1


def _scale_error(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, n = place
    factor = rng.choice([100.0, 0.01, 10.0, 0.1], p=[0.35, 0.35, 0.15, 0.15])
    for price in grid.prices:
        price[i, t : t + n] = np.round(price[i, t : t + n] * factor, 4)
    return grid.days[t], factor, n


def _stale(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, n = place
    for values in (*grid.prices, grid.volume):
        values[i, t : t + n] = values[i, t - 1]
    if rng.random() < 0.5:
        grid.volume[i, t : t + n] = 0.0
    return grid.days[t], np.nan, n


def _absurd_volume(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    grid.volume[i, t] = np.round(grid.volume[i, t] * log_uniform(rng, 1e3, 1e5))
    return grid.days[t], np.nan, 1


def _missing(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    grid.prices[rng.integers(4)][i, t] = np.nan
    return grid.days[t], np.nan, 1


def _non_positive(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    grid.prices[rng.integers(4)][i, t] *= rng.choice([0.0, -1.0])
    return grid.days[t], np.nan, 1


def _high_below_low(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, _ = place
    if grid.high[i, t] == grid.low[i, t]:
        return None
    grid.high[i, t], grid.low[i, t] = grid.low[i, t], grid.high[i, t]
    return grid.days[t], np.nan, 1


def _negative_volume(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    grid.volume[i, t] *= -1
    return grid.days[t], np.nan, 1


def _copy(grid: Grid, i: int, t: int, day: np.datetime64) -> None:
    """Add a row like that of session `t`, dated `day`, behind it."""
    values = (a[i, t] for a in (*grid.prices, grid.volume))
    grid.extra.append((i * len(grid.days) + t, day, *values))


def _not_a_session(grid: Grid, place: Place, rng: np.random.Generator) -> Effect | None:
    i, t, _ = place
    day = grid.days[t] + DAY
    if day == grid.days[t + 1]:
        return None
    _copy(grid, i, t, day)
    return day, np.nan, 1


def _duplicate(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    _copy(grid, i, t, grid.days[t])
    return grid.days[t], np.nan, 1


def _conflicting_duplicate(grid: Grid, place: Place, rng: np.random.Generator) -> Effect:
    i, t, _ = place
    ratio = _move(0.02, 0.10, rng)
    bar = [price[i, t] for price in grid.prices]
    first, second = rng.permutation([1.0, ratio])
    for price, value in zip(grid.prices, bar, strict=True):
        price[i, t] = np.round(value * second, 2)
    _copy(grid, i, t, grid.days[t])
    for price, value in zip(grid.prices, bar, strict=True):
        price[i, t] = np.round(value * first, 2)
    return grid.days[t], ratio, 1


class Kind(NamedTuple):
    plant: Planter
    sessions: tuple[int, int] = (1, 1)
    """Fewest and most sessions it lasts, log-uniform."""
    room: int = SPACING
    """Untouched sessions it needs before and after."""


# What happened in the market. All of it lasts.
EVENTS: dict[str, Kind] = {
    # Overnight, unadjusted. Drawn 3 in 4 forward, by FORWARD_ODDS; else reverse, alike likely. Volume
    # in shares scales the other way; in dollars it is 1-1.5 times ordinary. price_ratio: old shares
    # over new.
    "split": Kind(_split),
    # An overnight drop of 8-55%, log-uniform, none within 2% of a split's. Volume in shares does not
    # scale; the dollar volume is exp(N(0.75, 0.4)) times ordinary, decaying over 4 sessions. Range
    # exp(N(0.8, 0.4)) times. price_ratio: the drop alone.
    "spin_off": Kind(_spin_off),
    # 8-35%, log-uniform, up or down alike likely, N(0.68, 0.33) of it overnight and the rest within the
    # session, whose ordinary return comes on top. Volume 3-10 times, log-uniform, decaying over 3-5
    # sessions. Range 1-3 times, beyond what the move makes. price_ratio: close over the previous close.
    "jump": Kind(_jump),
    # 1-15 sessions without a bar, log-uniform; then a normal gap of 10% standard deviation, volume 2-8
    # times, range 1-3 times. Dated at the first lost session.
    "halt": Kind(_halt, (1, 15)),
    # 80-250 sessions without a bar; then another company, at exp(N(0, 1.3)) times the price and
    # exp(N(0, 1.5)) times the volume. Dated at its first session.
    "symbol_reused": Kind(_symbol_reused, (80, 250), room=60),
}
# What the source got wrong.
FAULTS: dict[str, Kind] = {
    # One session's price is off by 8-60%, log-uniform, up or down alike likely: the close, with the
    # range stretched to it (55%); a wick, the high or low alone (35%); the close alone, mostly outside
    # the range (10%). price_ratio: the wrong price over the previous close.
    "bad_print": Kind(_bad_print),
    # All prices x100 or /100 (35% each), x10 or /10 (15% each) for 1-5 sessions, to four decimals.
    # price_ratio: that factor.
    "scale_error": Kind(_scale_error, (1, 5)),
    # The bar before, repeated for 5-12 sessions; its volume repeated or zero, alike likely.
    "stale": Kind(_stale, (5, 12)),
    # Volume x1,000 to x100,000, log-uniform.
    "absurd_volume": Kind(_absurd_volume),
    # 1-5 sessions of one symbol lost, and nothing special about them. Dated at the first.
    "gap": Kind(_gap, (1, 5)),
    # One price is NaN; one is zero or negative; high and low swapped; the volume's sign turned.
    "missing": Kind(_missing),
    "non_positive": Kind(_non_positive),
    "high_below_low": Kind(_high_below_low),
    "negative_volume": Kind(_negative_volume),
    # A bar once more, dated the next day, on which the exchange was closed. Dated at that day.
    "not_a_session": Kind(_not_a_session),
    # A bar twice; and twice with prices 2-10% apart, the wrong one first or second alike likely.
    # price_ratio of the latter: wrong over right.
    "duplicate": Kind(_duplicate),
    "conflicting_duplicate": Kind(_conflicting_duplicate),
}
# 1-3 sessions of 30-95% of the symbols lost at once. The truth has a `gap` for each of them.
OUTAGE = Kind(_gap, (1, 3))
KINDS = {"outage": OUTAGE, **EVENTS, **FAULTS}
"""What can be planted. price_ratio is NaN and sessions 1 by default."""


def plant(grid: Grid, counts: dict[str, int], rng: np.random.Generator) -> list[tuple]:
    """Plant `counts` of each kind, and round prices to cents and volumes to whole shares.

    Returns:
        rows of the truth, with a symbol's number for its name.

    Raises:
        DataError: there is no place left for one of them.
    """
    free = grid.alive.copy()
    truth = [row for _ in range(counts.get("outage", 0)) for row in _outage(grid, free, rng)]
    for name in EVENTS:
        truth += [_planted(grid, name, free, rng) for _ in range(counts.get(name, 0))]
    for price in grid.prices:
        np.round(price, 2, out=price)
    grid.volume = np.round(grid.volume).clip(1.0)
    for name in FAULTS:
        truth += [_planted(grid, name, free, rng) for _ in range(counts.get(name, 0))]
    return truth


def _outage(grid: Grid, free: np.ndarray, rng: np.random.Generator) -> list[tuple]:
    first = next(_places(free, "outage", rng))
    struck = rng.random(len(free)) < rng.uniform(0.30, 0.95)
    struck[first.i] = True
    places = [first._replace(i=int(i)) for i in np.flatnonzero(struck)]
    return [
        _listed(place, "gap", _gap(grid, place, rng), free)
        for place in places
        if _is_free(free, place, OUTAGE.room)
    ]


def _planted(grid: Grid, name: str, free: np.ndarray, rng: np.random.Generator) -> tuple:
    plant_at = KINDS[name].plant
    return next(
        _listed(place, name, effect, free)
        for place in _places(free, name, rng)
        if (effect := plant_at(grid, place, rng))
    )


def _places(free: np.ndarray, name: str, rng: np.random.Generator) -> Iterator[Place]:
    """Free places at random.

    Raises:
        DataError: too many were tried.
    """
    symbols, sessions = free.shape
    (fewest, most), room = KINDS[name].sessions, KINDS[name].room
    for _ in range(TRIES):
        n = int(log_uniform(rng, fewest, most + 1))
        first, last = room, sessions - n - room
        if last < first:
            continue
        place = Place(int(rng.integers(symbols)), int(rng.integers(first, last + 1)), n)
        if _is_free(free, place, room):
            yield place
    raise DataError(
        f"synthetic: {symbols:,} symbols of {sessions:,} sessions have no room for another {name}. Ask "
        "for fewer faults, or for more symbols or sessions."
    )


def _is_free(free: np.ndarray, place: Place, room: int) -> bool:
    return bool(free[place.i, place.t - room : place.t + place.n + room].all())


def _listed(place: Place, name: str, effect: Effect, free: np.ndarray) -> tuple:
    """A row of the truth; its place is free no more."""
    free[place.i, place.t : place.t + place.n] = False
    date, price_ratio, sessions = effect
    return place.i, date, name, price_ratio, sessions
