"""Checks of a bar against its neighbours: values that cannot have been traded, and come back.

Thresholds are wide on purpose: a real crash with real volume must stay. A bar that fails is
quarantined whole, under the name of the check.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.ndimage import minimum_filter1d

from pitwise.bars.schema import PRICES
from pitwise.cleaning.neighbours import SMALLEST_NOISE, Neighbours
from pitwise.stage import Params

SCALES = np.log([10, 100, 1000])
"""A currency or decimal point mistaken: pence for pounds, cents for dollars."""


class GlitchParams(Params):
    min_move: float = Field(gt=0)
    min_noise: float = Field(gt=0)
    max_volume_ratio: float = Field(gt=1)
    longest_scale_error: int = Field(ge=1)
    stale_bars: int = Field(ge=1)
    absurd_volume: float = Field(gt=1)


def scale_error(n: Neighbours, params: GlitchParams) -> np.ndarray:
    """Whole bars off by a power of ten from the bars around them, for a few sessions."""
    jump = n.log_return
    refused = np.zeros(len(jump), bool)
    for start in np.flatnonzero(np.abs(jump) > SCALES[0] - 0.3):
        factor = np.sign(jump[start]) * SCALES[np.argmin(np.abs(np.abs(jump[start]) - SCALES))]
        if abs(jump[start] - factor) > 0.3 or refused[start]:
            continue
        back = start + 1 + np.arange(params.longest_scale_error)
        back = back[back < len(jump)]
        back = back[(n.run[back] == n.run[start]) & (np.abs(jump[back] + factor) < 0.3)]
        if len(back):
            refused[start : back[0]] = True
    return refused


def wicks(n: Neighbours) -> np.ndarray:
    """Log distance of each bar's high or low, the larger, beyond its open and close; (n,)."""
    top = np.log(n.high / np.maximum(n.open, n.close))
    return np.maximum(top, np.log(np.minimum(n.open, n.close) / n.low))


def panics(session: np.ndarray, long_wick: np.ndarray) -> np.ndarray:
    """True at the number of a session in which many stocks have a long wick: then it is real."""
    bars = np.bincount(session)
    long = np.bincount(session[long_wick], minlength=len(bars))
    return (long > 1) & (long / np.maximum(bars, 1) >= 0.02)


def bad_print(n: Neighbours, params: GlitchParams, panic: np.ndarray) -> np.ndarray:
    """One session's price far from both neighbours, which agree, on ordinary volume.

    Either the close, or only the session's high or low: a wick that neither neighbour has.

    Args:
        panic: see `panics`.
    """
    there = n.move
    back = n.after(n.move)
    depth = np.fmin(np.abs(there), np.abs(back))
    rows = np.flatnonzero((depth > params.min_move) & (there * back < 0))
    # What of the move stayed, by the next open or, if that is nearer, by the next close.
    opened = np.log(n.after(n.open)[rows] / n.before(n.close)[rows])
    kept = np.fmin(np.abs(there[rows] + back[rows]), np.abs(opened))
    noise = n.noise(rows)
    unreal = (depth[rows] > params.min_noise * noise) & (kept < np.fmax(0.4 * depth[rows], 2 * noise))
    refused = np.zeros(len(there), bool)
    refused[rows[unreal & _ordinary_volume(n, rows, params)]] = True

    wick = wicks(n)
    rows = np.flatnonzero(wick > params.min_move)
    # A range is about 1.6 times the day's noise (Parkinson 1980).
    noise = np.maximum(n.median(n.range, rows, [*range(-20, 0), *range(1, 21)]) / 1.6, SMALLEST_NOISE)
    unreal = (wick[rows] > params.min_noise * noise) & ~panic[n.session[rows].astype(int)]
    refused[rows[unreal & _ordinary_volume(n, rows, params)]] = True
    return refused


def stale(n: Neighbours, params: GlitchParams) -> np.ndarray:
    """Bars that repeat the one before, price for price, `stale_bars` times or more."""
    same = np.ones(len(n.close), bool)
    for prices in (n.open, n.high, n.low, n.close):
        same &= prices == n.before(prices)
    repeated = np.cumsum(~same) - 1  # the bar that each one repeats, by number
    return same & (np.bincount(repeated)[repeated] > params.stale_bars)


def stale_by_then(bars: pd.DataFrame, first: np.ndarray, stale_bars: int) -> np.ndarray:
    """Bars that repeat the traded prices before them for the `stale_bars`-th time or more; (n,) bool.

    What `stale` refuses, less the first repeats, which were chance as far as one could see then.

    Args:
        bars: traded, sorted by symbol and date.
        first: (n,) bool, true at a symbol's first bar.
    """
    prices = bars[PRICES].to_numpy("float64")
    same = (prices == np.roll(prices, 1, axis=0)).all(axis=1) & ~first
    row = np.arange(len(same))
    return same & (row - np.maximum.accumulate(np.where(same, 0, row)) >= stale_bars)


def absurd_volume(n: Neighbours, params: GlitchParams) -> np.ndarray:
    """A volume that many times the median of the bars around it."""
    # The median cannot be below the least of them, which is quick to find for all rows at once.
    least = minimum_filter1d(n.volume, 61, mode="nearest")
    rows = np.flatnonzero(n.volume > params.absurd_volume * np.maximum(least, 1))
    local = n.median(n.volume, rows, [*range(-30, 0), *range(1, 31)])
    refused = np.zeros(len(n.volume), bool)
    refused[rows[n.volume[rows] > params.absurd_volume * np.maximum(local, 1)]] = True
    return refused


def _usual_volume(n: Neighbours, rows: np.ndarray) -> np.ndarray:
    """The median around each row, the session and the next, on which its news is traded, left out."""
    return n.median(n.volume, rows, [*range(-20, 0), *range(2, 21)])


def _ordinary_volume(n: Neighbours, rows: np.ndarray, params: GlitchParams) -> np.ndarray:
    """True where nobody traded as if the price were real, that session or, on the news, the next."""
    usual = _usual_volume(n, rows)
    before, that, after = n.around(n.volume, rows, [-1, 0, 1]).T
    next_usual = np.fmax(usual, before)  # a storm that blew before is no answer to this price
    return ~((that > params.max_volume_ratio * usual) | (after > params.max_volume_ratio * next_usual))


WITHOUT_THE_MARKET: dict[str, Callable[[Neighbours, GlitchParams], np.ndarray]] = {
    "scale_error": scale_error,
    "stale": stale,
    "absurd_volume": absurd_volume,
}
"""Checks that need no other symbol; each takes what the ones before it let through."""
GLITCHES = [*WITHOUT_THE_MARKET, "bad_print"]
"""The names of all checks, in their order."""


def glitch_events(bars: pd.DataFrame, reason: np.ndarray) -> pd.DataFrame:
    """Each run of refused bars as one event.

    Args:
        bars: sorted by symbol and date, the refused ones among them.
        reason: (n,) the name of the check that refused a bar, or an empty string.

    Returns:
        (m,) `row` of the run's first bar, `kind`, `price_ratio` (close over the one before),
        `sessions` (bars in the run), `evidence`.
    """
    n = Neighbours(bars)
    follows = (reason[1:] == reason[:-1]) & ~n.first[1:]
    start = np.append(True, ~follows)[: len(reason)]
    run = np.cumsum(start) - 1
    rows = np.flatnonzero(start & (reason != ""))
    sessions = np.bincount(run)[run[rows]]
    before = n.before(n.close)[rows]
    following = n.around(n.close, rows, range(1, sessions.max(initial=1) + 1))
    after = following[np.arange(len(rows)), sessions - 1]
    shares = n.volume[rows] / _usual_volume(n, rows)
    evidence = [
        f"high {n.high[row]:.4g}, low {n.low[row]:.4g}, close {n.close[row]:.4g} between closes of "
        f"{b:.4g} and {a:.4g}; shares x{v:.3g}"
        for row, b, a, v in zip(rows, before, after, shares, strict=True)
    ]
    return pd.DataFrame(
        {
            "row": rows,
            "kind": reason[rows],
            "price_ratio": n.close[rows] / before,
            "sessions": sessions,
            "evidence": evidence,
        }
    )
