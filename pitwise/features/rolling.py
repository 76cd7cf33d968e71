"""Sums, extremes and moments of moving windows, and recursions, over many runs at once.

A window's value follows from the values in it alone, to the bit: no running sum carries the rounding of
what has left it, so a tail of a history has what the whole of it has.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

MANY_RUNS = 64
"""From so many on, a recursion goes through all runs at once, session by session."""

Join = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""What two stretches of sessions have together, from what each has and how many sessions it is of."""


def _joined(values: np.ndarray, window: int, join: Join) -> np.ndarray:
    """Each window's values joined, (..., n - window + 1) of (..., n).

    Stretches of twice as many sessions each time, then those whose lengths add up to the window: few
    steps, in one order, so that the result depends on the window's own values alone, to the bit.
    """
    n = values.shape[-1] - window + 1
    size, width = 0, 1
    whole = values[..., :0]
    while size < window:
        if window & width:
            part = values[..., size : size + n]
            whole = join(whole, part, size, width) if size else part
            size += width
        if size < window:
            values = join(values[..., :-width], values[..., width:], width, width)
            width *= 2
    return whole


def total(values: np.ndarray, window: int) -> np.ndarray:
    """Sum of each window; (n_runs, n - window + 1) of (n_runs, n), as all here that take a window."""
    return _joined(values, window, lambda a, b, *_: a + b)


def highest(values: np.ndarray, window: int) -> np.ndarray:
    """Maximum of each window."""
    return _joined(values, window, lambda a, b, *_: np.maximum(a, b))


def lowest(values: np.ndarray, window: int) -> np.ndarray:
    """Minimum of each window."""
    return _joined(values, window, lambda a, b, *_: np.minimum(a, b))


def _joined_moments(a: np.ndarray, b: np.ndarray, n_a: int, n_b: int) -> np.ndarray:
    """Mean and summed powers of the deviations from it, the second and where asked for the third.

    Source: Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance; for the third
    Pebay (2008), Formulas for robust, one-pass parallel computation of covariances and moments.
    """
    n, apart = n_a + n_b, b[0] - a[0]
    whole = a + b
    whole[0] = a[0] + apart * (n_b / n)
    whole[1] += apart**2 * (n_a * n_b / n)
    if len(a) > 2:
        whole[2] += 3 * apart * (n_a * b[1] - n_b * a[1]) / n
        whole[2] += apart * apart * apart * (n_a * n_b * (n_a - n_b) / n**2)  # a power is slow
    return whole


def _moments(values: np.ndarray, window: int, n: int) -> np.ndarray:
    """(n, n_runs, ...): of each window the first `n` of `_joined_moments`."""
    none = np.zeros_like(values)
    return _joined(np.stack([values, none, none][:n]), window, _joined_moments)


def std(values: np.ndarray, window: int, ddof: int) -> np.ndarray:
    """Standard deviation of each window, exactly 0 where all its values are equal."""
    return np.sqrt(_moments(values, window, 2)[1] / (window - ddof))


def skewness(values: np.ndarray, window: int) -> np.ndarray:
    """Of each window, the third moment over the cube of the population deviation; 0 where that is 0."""
    _, second, third = _moments(values, window, 3) / window
    return share(third, second * np.sqrt(second), otherwise=0)


def share(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """part / whole, or `otherwise` where the whole is nothing."""
    return np.divide(part, whole, out=np.full(whole.shape, otherwise, "float64"), where=whole > 0)


def wilder(values: np.ndarray, window: int) -> np.ndarray:
    """Wilder's average: the plain mean of the first `window`, then a `window`-th of each new value."""
    return smoothed(values[:, :window].mean(axis=1, keepdims=True), values[:, window:], window)


def smoothed(first: np.ndarray, rest: np.ndarray, window: int) -> np.ndarray:
    """`first`, then each time a `window`-th of the new value and the rest of what was before."""
    return decayed(np.hstack([first, rest * (1 / window)]), 1 - 1 / window)


def decayed(values: np.ndarray, decay: float) -> np.ndarray:
    """The sum of each run's values so far, each `decay` times what it was a session before."""
    if len(values) < MANY_RUNS:
        # pandas' loops over one run after the other, to the same bits; `scipy.signal.lfilter` takes a
        # second to import.
        return pd.DataFrame(values.T).ewm(com=decay / (1 - decay)).sum().to_numpy().T
    sums = np.array(values.T, order="C")
    for before, now in pairwise(sums):
        now += decay * before
    return sums.T
