"""Signs that a trend turns, and how often it did turn after them.

Rows are a symbol's sessions in order; a run is one symbol's sessions without a break, and nothing is
told across its ends.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from pitwise.decisions.signals_calibration import ratio_interval

FLAGS = ("macd_cross", "average_cross", "bollinger_reentry", "rsi_divergence")
COLUMNS = [
    "macd",
    "macd_signal",
    "sma_5",
    "sma_20",
    "bollinger_pct_b",
    "rsi_14",
]
"""Features that the flags are made of."""
AHEAD = (1, 5, 20)
"""Sessions after which it is looked what came."""
WINDOW = 20
"""Sessions whose lowest or highest close a divergence ends in."""
APART = 5
"""Sessions between the two lows, or highs, of a divergence, at least."""


def flags(rows: pd.DataFrame) -> pd.DataFrame:
    """The flags of each row: 1 says that it will rise, -1 that it will fall, 0 nothing.

    macd_cross: MACD crosses its signal line. average_cross: the mean of 5 closes crosses that of 20.
    bollinger_reentry: the close comes back into the bands, from below (1) or above (-1).
    rsi_divergence: the close is the lowest of 20, and RSI is above what it was at the lowest close that
    is at least 5 sessions back; highest and below for -1. Each is told once, in its first session.
    Source: Murphy (1999), Technical analysis of the financial markets.

    Args:
        rows: (n,) sorted by symbol and session: `run` (number of the run), `adjusted` (close with splits
            and dividends taken out) and `COLUMNS`.

    Returns:
        (n, 4) int8, columns as `FLAGS`, row for row.
    """
    run = rows["run"].to_numpy()
    column = {name: rows[name].to_numpy(float) for name in COLUMNS}
    # -1 below the bands, 0 within, 1 above.
    pct_b = column["bollinger_pct_b"]
    outside = (pct_b > 1).astype(float) - (pct_b < 0)
    before = _before(outside, run)
    told = {
        "macd_cross": _cross(column["macd"] - column["macd_signal"], run),
        "average_cross": _cross(column["sma_5"] - column["sma_20"], run),
        "bollinger_reentry": np.where((outside == 0) & (np.abs(before) == 1), -before, 0),
        "rsi_divergence": _divergence(rows["adjusted"].to_numpy(float), column["rsi_14"], run),
    }
    return pd.DataFrame(told, index=rows.index).astype("int8")


def _before(values: np.ndarray, run: np.ndarray) -> np.ndarray:
    """The value of the session before; NaN in a run's first."""
    shifted = np.full(len(values), np.nan)
    shifted[1:] = np.where(run[1:] == run[:-1], values[:-1], np.nan)
    return shifted


def _cross(difference: np.ndarray, run: np.ndarray) -> np.ndarray:
    """1 where a difference comes above 0, -1 where it comes below; NaN compares as neither."""
    before = _before(difference, run)
    return np.where((difference > 0) & (before <= 0), 1, 0) - np.where(
        (difference < 0) & (before >= 0), 1, 0
    )


def _divergence(close: np.ndarray, rsi: np.ndarray, run: np.ndarray) -> np.ndarray:
    found = np.zeros(len(close))
    if len(close) < WINDOW:
        return found
    last = np.arange(WINDOW - 1, len(close))
    earlier = sliding_window_view(close, WINDOW)[:, : WINDOW - APART]
    whole = run[last] == run[last - WINDOW + 1]
    for side in (1, -1):  # of lows, which say rise, and of highs
        windows = side * sliding_window_view(close, WINDOW)
        is_extreme = windows[:, -1] <= windows.min(axis=1)
        at = last - WINDOW + 1 + (side * earlier).argmin(axis=1)
        told = is_extreme & whole & (side * close[last] < side * close[at])
        told &= side * rsi[last] > side * rsi[at]
        first = told & ~np.append(False, told[:-1])
        found[last[first]] = side
    return found


def hit_rates(told: pd.DataFrame, rows: pd.DataFrame, samples: int, seed: int) -> list[dict[str, Any]]:
    """How often what a flag says came true, beside how often it did anyway.

    Args:
        told: see `flags`.
        rows: row for row, `run`, `adjusted` and `date`.
        samples: draws of blocks of sessions for the intervals.

    Returns:
        for each flag, direction and horizon of `AHEAD`: count of flags whose outcome is known, sessions
        that have one, hit_rate (share with a return in the direction, with no change a miss) and its
        ci95; base_rate, the same share of all symbols in the same sessions, each session counted as
        often as it has flags; difference and difference_ci95. None where there is no flag.
    """
    codes, sessions = pd.factorize(rows["date"], sort=True)
    run, adjusted = rows["run"].to_numpy(), rows["adjusted"].to_numpy(float)
    n = len(sessions)
    found = []
    for ahead in AHEAD:
        change = np.full(len(run), np.nan)
        same = run[ahead:] == run[:-ahead]
        change[:-ahead] = np.where(same, adjusted[ahead:] - adjusted[:-ahead], np.nan)
        known = np.isfinite(change)
        symbols = np.bincount(codes[known], minlength=n)
        for side, direction in ((1, "up"), (-1, "down")):
            hit = side * change > 0
            base = np.bincount(codes[hit], minlength=n) / np.maximum(symbols, 1)
            for flag in FLAGS:
                own = (told[flag].to_numpy() == side) & known
                flagged = np.bincount(codes[own], minlength=n).astype(float)
                hits = np.bincount(codes[own & hit], minlength=n).astype(float)
                figures = _figures(flagged, hits, base * flagged, ahead, samples, seed)
                found.append({"flag": flag, "direction": direction, "horizon": ahead} | figures)
    return found


def _figures(
    flagged: np.ndarray, hits: np.ndarray, base: np.ndarray, ahead: int, samples: int, seed: int
) -> dict[str, Any]:
    count = flagged.sum()
    rates = {
        name: float(values.sum() / count) if count else None
        for name, values in (("hit_rate", hits), ("base_rate", base), ("difference", hits - base))
    }
    return {
        "count": int(count),
        "sessions": int((flagged > 0).sum()),
        "hit_rate": rates["hit_rate"],
        "ci95": ratio_interval(hits, flagged, ahead, samples, seed),
        "base_rate": rates["base_rate"],
        "difference": rates["difference"],
        "difference_ci95": ratio_interval(hits - base, flagged, ahead, samples, seed),
    }


def named(told: pd.DataFrame) -> list[str]:
    """The flags of each row as words: `macd_cross_up,rsi_divergence_down`, "" for none."""
    words = {1: "up", -1: "down"}
    return [
        ",".join(f"{flag}_{words[side]}" for flag, side in zip(FLAGS, row, strict=True) if side)
        for row in told[list(FLAGS)].to_numpy().tolist()
    ]
