"""What happened between two bars by announced actions and a vendor's adjusted close, against the prices.

What a feed announces is believed first, see `pitwise.cleaning.announced`. A dividend, announced or told
by the adjusted close, is one thing: what it takes out of the price goes back into the price factor.

Adjusted close over close is a level. Where it steps from one bar to the next, the vendor took a dividend
or a split out of the past, or one of the two closes is wrong. A step is judged by bars up to its own:

- the close does not show it: the vendor is wrong (`bad_adjustment`), and the step is left out;
- the close shows it, the open does not: the close is wrong (`bad_close`), as the adjusted close is not;
- it counts shares by a plain ratio, 2:1 or 3:2: a split;
- it takes a part of the price away by no plain ratio: a distribution, which moves no share count;
- it adds to the price by no plain ratio: again a wrong close, for nothing is paid in.

A ratio that is rare among splits, such as 5:4, may be a distribution of 20% as well. Then the day's
dollar volume decides: a split is an ordinary day, and on a large distribution people trade.

What bars up to then cannot tell: a whole bar wrong by a plain ratio is a split until the next bar takes
it back, and so is a distribution of just a half of the price.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.schema import ADJUSTED_CLOSE
from pitwise.cleaning.announced import SPECIAL, Announced, announced, shows
from pitwise.cleaning.kinds import RATIOS
from pitwise.cleaning.neighbours import Neighbours

ADJUSTED = "adjusted_close"
"""What `told_by` calls it."""
PLAIN = 0.01
"""Log distance beyond a plain ratio that a dividend of the same day explains."""
HALF_CENT, COARSEST = 0.005, 0.05
"""What a close may be rounded by, in dollars, and the largest log error granted for it."""
SAME = 0.05
"""Log difference up to which one step takes another back."""
BACK = 5
"""Bars within which a wrong close is right again."""
RARE = 1
"""Splits less common than this beside the others (`RATIOS`) have to show it in the day's trading."""
BUSY = 2.0
"""Dollar volume over its usual from which a step by a rare ratio is a distribution."""
APART, ALIKE = 2, 0.2
"""Bars between two accounts of one distribution, and the share by which its sizes may differ."""
EXACT = 1e-12
"""A step nearer to 1 than this is what dividing two numbers leaves."""
SURE, LIKELY, POSSIBLE = 0.99, 0.95, 0.8
"""Confidence: announced and shown, told by one source alone, told by it where two kinds are alike."""


class Found(NamedTuple):
    """An event to be."""

    row: int
    kind: str
    step: float
    """What the price factor is multiplied by."""
    confidence: float
    told_by: str
    takes_back: int = -1
    """Row of the step that this one undoes."""


class Steps(NamedTuple):
    """From the bar before to each bar; (n,) float64 each, 1 at a symbol's first bar."""

    price: np.ndarray
    """What the price factor is multiplied by."""
    shares: np.ndarray
    """What the share factor is multiplied by: new shares for old."""


def cumulative(steps: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(n,) the product of each symbol's steps up to each bar; `run` numbers the symbols."""
    if (steps == 1).all():
        return np.ones(len(steps))
    return pd.Series(steps).groupby(run).cumprod().to_numpy()


def steps(
    bars: pd.DataFrame, split_step: float, actions: pd.DataFrame | None = None
) -> tuple[Steps, pd.DataFrame]:
    """The steps that are believed, and an event for each one that is no regular dividend.

    Announced actions come first; where there are none, the adjusted close tells. Both are judged by
    bars up to their own, so more bars change no step: steps of `bars[:t]` are the first t of all.

    Args:
        bars: traded, sorted by symbol and date; `adj_close` is optional.
        split_step: ratio above 1 from which, or from its inverse, the prices must show a step; a
            smaller one is a distribution.
        actions: see `pitwise.bars.versions.known_actions`.

    Returns:
        the steps, and (m,) `row` of the first bar after each, `kind` (split | distribution | spin_off |
        symbol_reused | bad_adjustment | bad_close), `price_ratio` (the close it explains over the one
        before), `confidence`, `told_by` (actions | adjusted_close), `move` (log return of the close),
        `overnight` (share of it at the open), `takes_back` (row of the step that this one undoes, or
        -1).
    """
    size = len(bars)
    has_actions = actions is not None and len(actions) > 0
    if ADJUSTED_CLOSE not in bars and not has_actions:
        return Steps(np.ones(size), np.ones(size)), _events([], None)
    n = Neighbours(bars)
    told = announced(n, bars, actions, np.log(split_step) - PLAIN) if has_actions else None
    by_actions = np.zeros(size, bool) if told is None else (told.shares != 1) | (told.price != 1)
    if ADJUSTED_CLOSE in bars:
        result, level, found = _by_adjusted_close(n, bars, split_step, ~by_actions)
    else:
        result, level, found = Steps(np.ones(size), np.ones(size)), np.ones(size), []
    if told is not None:
        found += _believe(n, told, result, level, np.log(split_step) - PLAIN)
    return result, _events(found, n)


def _believe(
    n: Neighbours, told: Announced, result: Steps, level: np.ndarray, large: float
) -> list[Found]:
    """Put what was announced into the steps, in place of what the adjusted close says of that bar.

    Args:
        level: (n,) the step of the adjusted close, believed or not.
        large: a log step beyond it is more than a dividend besides a split.
    """
    split, paid = told.shares != 1, told.price != 1
    result.shares[split] = told.shares[split]
    # With a split alone the adjusted close may know of a dividend besides.
    rest = level / told.shares
    more = split & ~paid & (rest > 1) & (np.log(rest) <= large)
    result.price[split | paid] = (told.shares * told.price)[split | paid]
    result.price[more] = level[more]
    _once(n, paid & ~split, told.price, level, result.price)
    found = [Found(int(i), "split", told.shares[i], SURE, "actions") for i in np.flatnonzero(split)]
    found += [
        Found(int(i), "distribution", told.price[i], SURE, "actions")
        for i in np.flatnonzero(told.special)
    ]
    found += [
        Found(int(i), "bad_adjustment", 1.0, LIKELY, "actions") for i in np.flatnonzero(told.refused)
    ]
    # A part that the adjusted close takes out, and the price shows, is known by its size.
    changed = np.flatnonzero(told.changed)
    found += [Found(int(i), "symbol_reused", 1.0, SURE, "actions") for i in changed]
    rows = np.flatnonzero(told.parted)
    size = np.log(result.price[rows])
    close, _ = shows(n, rows, size)
    known = close & (size > PLAIN)
    found += [Found(int(i), "spin_off", 1.0, SURE, "actions") for i in rows[~known]]
    small = rows[known & (size <= SPECIAL)]
    found += [Found(int(i), "distribution", result.price[i], SURE, "actions") for i in small]
    return found


def _once(
    n: Neighbours, paid: np.ndarray, announced: np.ndarray, level: np.ndarray, price: np.ndarray
) -> None:
    """Take one distribution once where feed and vendor have it at sessions a little apart: at the first.

    Args:
        paid: (n,) bool, announced distributions; `announced` their steps.
        level: (n,) the step of the adjusted close.
        price: (n,) to be changed.
    """
    vendor, told = np.log(level), np.where(paid, np.log(announced), 0.0)
    for first, then in ((told, vendor), (vendor, told)):
        alone = np.flatnonzero((then != 0) & (np.abs(first) < ALIKE * np.abs(then)))
        for apart in range(1, APART + 1):
            late = alone[alone >= apart]
            early = late - apart
            same = (n.run[late] == n.run[early]) & (np.abs(then[early]) < ALIKE * np.abs(first[early]))
            same &= np.abs(first[early] - then[late]) < ALIKE * np.abs(then[late])
            price[late[same]] = 1.0


def _by_adjusted_close(
    n: Neighbours, bars: pd.DataFrame, split_step: float, judged: np.ndarray
) -> tuple[Steps, np.ndarray, list[Found]]:
    """The steps of the adjusted close that are believed, all of them, and what the large ones are.

    Args:
        judged: (n,) bool; the other bars have announced actions.
    """
    adjusted = bars[ADJUSTED_CLOSE].to_numpy("float64")
    level = adjusted / n.close
    price, shares = np.where(n.first, 1.0, level / n.before(level)), np.ones(len(bars))
    price[np.abs(price - 1) < EXACT] = 1.0
    said = price.copy()
    rows = np.flatnonzero((np.abs(np.log(price)) > np.log(split_step) - PLAIN) & judged)
    step = np.log(price[rows])
    close_shows, open_shows = shows(n, rows, step)
    cents = sum(1 / x[rows] + 1 / x[rows - 1] for x in (adjusted, n.close))
    plain, rare = _plain(step, cents)
    plain &= ~rare | ~_busy(n, rows)
    # The judged step before is taken back by this one.
    back = np.zeros(len(rows), bool)
    if len(rows):
        near = (np.diff(rows) <= BACK) & (n.run[rows][1:] == n.run[rows][:-1])
        back[1:] = near & (np.abs(step[1:] + step[:-1]) < SAME) & close_shows[1:]

    found: list[Found] = []
    kind = ""
    for i, row in enumerate(rows.tolist()):
        if back[i] and kind in ("split", "distribution", "bad_close"):
            if kind == "bad_close":
                price[row] = np.exp(step[i] + step[i - 1])
            else:
                found.append(Found(row, kind, price[row], LIKELY, ADJUSTED, int(rows[i - 1])))
                shares[row] = price[row] if kind == "split" else 1.0
            kind = ""
            continue
        kind = _kind(step[i], close_shows[i], open_shows[i], plain[i])
        unsure = kind == "split" and rare[i]
        found.append(Found(row, kind, price[row], POSSIBLE if unsure else LIKELY, ADJUSTED))
        if kind == "split":
            shares[row] = price[row]
        elif kind != "distribution":
            price[row] = 1.0
    # What is no regular dividend and below `split_step` is taken as it is said, and told where it shows.
    rows = np.flatnonzero(
        (np.log(said) > SPECIAL) & (np.log(said) <= np.log(split_step) - PLAIN) & judged
    )
    close_shows, open_shows = shows(n, rows, np.log(said[rows]))
    told = rows[close_shows | open_shows].tolist()
    found += [Found(row, "distribution", said[row], LIKELY, ADJUSTED) for row in told]
    return Steps(price, shares), said, found


def _kind(step: float, close_shows: bool, open_shows: bool, plain: bool) -> str:
    if not close_shows:
        return "bad_adjustment"
    if not open_shows:
        return "bad_close"
    if plain:
        return "split"
    return "distribution" if step > 0 else "bad_close"


def _plain(step: np.ndarray, cents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each log step is a plain ratio of shares, and whether only a rare one; (m,) bool each.

    Args:
        cents: (m,) sum of 1 over each number that the step was made of, for its rounding.
    """
    rounding = np.minimum(HALF_CENT * cents, COARSEST)[:, None]

    def near(ratio: np.ndarray) -> np.ndarray:
        # A dividend of the same day adds to the step, and takes nothing from it.
        beyond = step[:, None] - np.log(ratio)
        return (beyond >= -rounding) & (beyond <= PLAIN + rounding)

    named = near(np.array([new / old for new, old in RATIOS]))
    common = named[:, np.array(list(RATIOS.values())) >= RARE].any(axis=1)
    # Any whole number of shares for one, or of one for so many.
    whole = np.maximum(np.round(np.exp(np.abs(step))), 2)[:, None]
    common |= near(np.where(step[:, None] > 0, whole, 1 / whole)).any(axis=1)
    return np.asarray(named.any(axis=1) | common), np.asarray(~common)


def _busy(n: Neighbours, rows: np.ndarray) -> np.ndarray:
    """Whether far more dollars than usual were traded in a session, by the 20 before it; (m,) bool."""
    turnover = n.close * n.volume
    with np.errstate(invalid="ignore"):
        return turnover[rows] > BUSY * n.median(turnover, rows, range(-20, 0))


def _events(found: list[Found], n: Neighbours | None) -> pd.DataFrame:
    found = sorted(found, key=lambda one: one.row)
    rows = np.array([one.row for one in found], dtype=int)
    move, gap = (n.log_return[rows], n.gap[rows]) if n and len(rows) else (np.empty(0), np.empty(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        overnight = np.where(move == 0, np.nan, gap / move)
    events = pd.DataFrame(
        {
            "row": rows,
            "kind": np.array([one.kind for one in found], dtype=object),
            "price_ratio": 1 / np.array([one.step for one in found], "float64"),
            "confidence": np.array([one.confidence for one in found], "float64"),
            "told_by": np.array([one.told_by for one in found], dtype=object),
            "move": move,
            "overnight": overnight,
            "takes_back": np.array([one.takes_back for one in found], dtype=int),
        }
    )
    # What the adjusted close and a feed both get wrong is one event.
    return events.drop_duplicates(["row", "kind"], ignore_index=True)


def with_factors(bars: pd.DataFrame, believed: Steps, run: np.ndarray) -> pd.DataFrame:
    """The bars with `price_factor` and `share_factor`, each symbol's product of its steps so far."""
    return bars.assign(
        price_factor=cumulative(believed.price, run), share_factor=cumulative(believed.shares, run)
    )
