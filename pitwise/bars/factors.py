"""The adjustment factors in what a source delivers: steps from a session to the next.

A vendor restates a symbol's whole past with every dividend: all its adjusted closes, and after a split,
on a split-adjusted basis, all prices. Between neighbouring sessions the ratio stays, so such a
restatement is one step at one session.

A step is told from rounding: `e(x) = half a unit of the last decimal of x, divided by x`. Decimals are
those of the numbers themselves, two at least.
"""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pandas as pd

from pitwise.bars.calendar import next_session
from pitwise.bars.schema import NUMBERS, PRICES

ADJUSTED, SPLIT = "adjusted_close", "split"
TOLERANCE = 1e-6
"""Relative, beyond the rounding of the decimals: single precision, with some to spare."""
SHARES = 20
"""A split's ratio is taken for a fraction with a denominator up to this where one is near enough."""
SHIFT = 2**32


@dataclass
class Adjusted:
    """What a source said last about one symbol's adjusted close."""

    last_day: int
    ratio: float
    """Adjusted close over close at the last step, or at the first session."""
    rounding: float
    decimals: tuple[int, int]
    steps: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Day -> (factor, its rounding)."""


class AdjustedCloses:
    """The steps of adjusted close over close that a source has shown."""

    def __init__(self) -> None:
        self.symbols: dict[int, Adjusted] = {}

    def take(self, keys: np.ndarray, adjusted: np.ndarray, close: np.ndarray) -> list[tuple[int, float]]:
        """Take a delivery.

        Inside it each session's ratio is compared with the one at the step before, times the steps that
        are known in between. Its first session is compared with the last known ratio if it is newer than
        all before; else the whole may have been restated, and it is where the comparison starts.

        Args:
            keys: (n,) of the bars, ascending.
            adjusted, close: (n,) of these, as delivered; those that are no positive number say nothing.

        Returns:
            (key, factor) of each step that differs from what was known; 1 at a symbol's first session,
            and where a known step is taken back.
        """
        good = (adjusted > 0) & (close > 0) & np.isfinite(adjusted) & np.isfinite(close)
        keys, adjusted, close = keys[good], adjusted[good], close[good]
        if not len(keys):
            return []
        decimals = np.stack([decimals_of(adjusted), decimals_of(close)])
        symbols = keys // SHIFT
        starts = np.flatnonzero(np.concatenate([[True], symbols[1:] != symbols[:-1]]))
        news: list[tuple[int, float]] = []
        for low, high in zip(starts.tolist(), [*starts[1:].tolist(), len(keys)], strict=True):
            here = slice(low, high)
            code = int(symbols[low])
            found = self._symbol(
                code, keys[here] % SHIFT, adjusted[here], close[here], decimals[:, here]
            )
            news += [(code * SHIFT + day, factor) for day, factor in found]
        return news

    def _symbol(
        self, code: int, days: np.ndarray, adjusted: np.ndarray, close: np.ndarray, decimals: np.ndarray
    ) -> list[tuple[int, float]]:
        known = self.symbols.get(code)
        most = np.maximum.accumulate(
            np.maximum(decimals, np.array(known.decimals if known else (2, 2))[:, None]), axis=1
        )
        rounding = (0.5 / 10.0 ** most[0] / adjusted + 0.5 / 10.0 ** most[1] / close).tolist()
        ratios, at = (adjusted / close).tolist(), days.tolist()
        decided = int(most[0, -1]), int(most[1, -1])
        news: list[tuple[int, float]] = []
        if known is None:
            known = self.symbols[code] = Adjusted(at[0], ratios[0], rounding[0], decided, {})
            news.append((at[0], 1.0))
            behind: list[int] = []
            ratio, noise = ratios[0], rounding[0]
        else:
            behind = sorted(day for day in known.steps if day > at[0])[::-1]
            newer = at[0] > known.last_day
            ratio, noise = (known.ratio, known.rounding) if newer else (ratios[0], rounding[0])
        for day, now, e in zip(at, ratios, rounding, strict=True):
            if behind and behind[-1] <= day:
                between = 1.0
                told = 0.0
                while behind and behind[-1] <= day:
                    last = behind.pop()
                    factor, own = known.steps[last]
                    between *= factor
                    told += own
                step = now / (ratio * between)
                if abs(step - 1) > e + noise + told + TOLERANCE:
                    alone = between == known.steps.get(day, (1.0, 0.0))[0]
                    factor = now / ratio if alone else known.steps.get(day, (1.0, 0.0))[0] * step
                    known.steps[day] = factor, e + noise
                    news.append((day, factor))
                ratio, noise = now, e
            elif abs(now / ratio - 1) > e + noise + TOLERANCE:
                factor = now / ratio
                known.steps[day] = factor, e + noise
                news.append((day, factor))
                ratio, noise = now, e
        if at[-1] >= known.last_day:
            known.last_day, known.ratio, known.rounding = at[-1], ratio, noise
        known.decimals = decided
        return news


class Splits:
    """The splits that a source on the share basis of its day of delivery has shown, by restating."""

    def __init__(self) -> None:
        self.symbols: dict[int, dict[int, float]] = {}

    def to_come(self, keys: np.ndarray) -> np.ndarray:
        """(n,) product of the known splits after each bar: today's price times this is that day's."""
        factor = np.ones(len(keys))
        for code, steps in self.symbols.items():
            low, high = np.searchsorted(keys, [code * SHIFT, (code + 1) * SHIFT])
            days = keys[low:high] % SHIFT
            for day, step in steps.items():
                factor[low:high][days < day] *= step
        return factor

    def take(
        self,
        delivered: np.ndarray,
        keys: np.ndarray,
        now: dict[str, np.ndarray],
        before: dict[str, np.ndarray],
    ) -> list[tuple[int, float]]:
        """Take a delivery: find the symbols whose past it states anew by one ratio up to a session.

        Args:
            delivered: (n,) keys of all its bars, ascending.
            keys: (m,) of those that were there before, with their numbers now, as delivered, and before,
                on the basis of their own session.

        Returns:
            (key of the first session after, factor) of each split that is new.
        """
        if not len(keys):
            return []
        to_come = self.to_come(keys)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = now["close"] * to_come / before["close"]
            noise = _rounding(now["close"]) + _rounding(before["close"])
            moved = np.abs(ratio - 1) > noise + TOLERANCE
            whole = np.isfinite(ratio) & (ratio > 0)
            for name in PRICES[:3]:
                other = now[name] * to_come / before[name]
                allowed = noise + _rounding(now[name]) + _rounding(before[name]) + TOLERANCE
                whole &= np.abs(other / ratio - 1) <= allowed
        news: list[tuple[int, float]] = []
        for code in np.unique(keys[moved & whole] // SHIFT).tolist():
            low, high = np.searchsorted(keys, [code * SHIFT, (code + 1) * SHIFT])
            here = np.arange(low, high)[whole[low:high]]
            last = int(keys[high - 1])
            newer = delivered[np.searchsorted(delivered, last, side="right") :]
            after = newer[0] if len(newer) and newer[0] // SHIFT == code else _session_after(last)
            for key, factor in _restated(keys[here], ratio[here], noise[here], int(after)):
                steps = self.symbols.setdefault(code, {})
                steps[key % SHIFT] = steps.get(key % SHIFT, 1.0) * factor
                news.append((key, steps[key % SHIFT]))
        return news


def _restated(
    keys: np.ndarray, ratio: np.ndarray, noise: np.ndarray, after: int
) -> list[tuple[int, float]]:
    """The splits in one symbol's prices over those before; empty unless its oldest ones moved."""
    runs: list[list[int]] = []
    for i, value in enumerate(ratio):
        if runs and abs(value / ratio[runs[-1][0]] - 1) <= noise[i] + noise[runs[-1][0]] + TOLERANCE:
            runs[-1].append(i)
        else:
            runs.append([i])
    levels: list[tuple[int, float, float]] = []  # first key, ratio, rounding
    for n, run in enumerate(runs):
        best = min(run, key=lambda i: noise[i])
        alike = n > 0 and n + 1 < len(runs) and _near(ratio, noise, runs[n - 1][0], runs[n + 1][0])
        first = n == 0 and len(runs) > 1 and _is_one(ratio, noise, runs[1][0])
        if len(run) == 1 and (alike or first):
            continue  # one bar by itself was corrected
        if levels and abs(ratio[best] / levels[-1][1] - 1) <= noise[best] + levels[-1][2] + TOLERANCE:
            continue
        levels.append((int(keys[run[0]]), float(ratio[best]), float(noise[best])))
    splits = []
    for (_, level, e), (key, following, e_next) in zip(
        levels, [*levels[1:], (after, 1.0, 0.0)], strict=True
    ):
        if abs(level - 1) <= e + TOLERANCE:
            break  # what comes after is on the basis that it was on
        at_rest = abs(following - 1) <= e_next + TOLERANCE
        splits.append((key, _fraction((1.0 if at_rest else following) / level, e + e_next + TOLERANCE)))
    return splits


def _near(ratio: np.ndarray, noise: np.ndarray, i: int, j: int) -> bool:
    return abs(ratio[i] / ratio[j] - 1) <= noise[i] + noise[j] + TOLERANCE


def _is_one(ratio: np.ndarray, noise: np.ndarray, i: int) -> bool:
    return abs(ratio[i] - 1) <= noise[i] + TOLERANCE


def _fraction(value: float, tolerance: float) -> float:
    """Shares are split by small whole numbers: the nearest such ratio, where one is near enough."""
    inverted = value < 1
    near = Fraction(1 / value if inverted else value).limit_denominator(SHARES)
    exact = float(1 / near if inverted else near)
    return exact if abs(exact / value - 1) <= tolerance else value


def shown_on(
    now: dict[str, np.ndarray], before: dict[str, np.ndarray], factor: np.ndarray
) -> np.ndarray:
    """Whether numbers put back on another share basis by a factor are those before; (n,) bool."""
    same = np.ones(len(factor), bool)
    for name in NUMBERS:
        x, y = now[name], before[name]
        if name == "volume":
            # In shares as delivered, which are whole ones.
            close = np.abs(x - y) * factor <= 0.5 + TOLERANCE * np.abs(x) * factor
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                close = np.abs(x / y - 1) <= _rounding(x / factor) + _rounding(y) + TOLERANCE
        same &= close | (np.isnan(x) & np.isnan(y))
    return same


def decimals_of(values: np.ndarray) -> np.ndarray:
    """How many decimals each number has, from two to eight; (n,) int."""
    found = np.full(len(values), 2)
    left = np.flatnonzero(np.round(values, 2) != values)
    for places in range(3, 9):
        found[left] = places
        left = left[np.round(values[left], places) != values[left]]
    return found


def _rounding(values: np.ndarray) -> np.ndarray:
    return 0.5 / 10.0 ** decimals_of(values) / np.abs(values)


def _session_after(key: int) -> int:
    day = key % SHIFT - SHIFT // 2
    after = next_session(pd.Timestamp(day, unit="D"))
    return key + (after - pd.Timestamp(day, unit="D")).days
