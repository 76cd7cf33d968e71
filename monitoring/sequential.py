"""Has the model become worse? CUSUM and EWMA of a figure a session, such as the rank IC.

A single week says next to nothing: the rank IC of a session of 500 symbols has a standard deviation of
about 0.12, and a loss of 0.03 takes months to tell from luck. Both charts add up what the weeks say;
their limits come from the reference, resampled in blocks of sessions.
Source: Page (1954), Continuous inspection schemes; Roberts (1959), Control chart tests based on
geometric moving averages.
"""

from dataclasses import dataclass

import numpy as np

from pitwise.evaluation.figures import block_length

SESSIONS_A_YEAR = 252
EWMA_WEIGHT = 0.05
"""Of the newest session: about the last 39 count, which suits a small loss."""


@dataclass(frozen=True)
class Chart:
    """A chart over the sessions since it began; it alarms where a value is above the limit."""

    name: str
    values: np.ndarray
    """(n,) in standard deviations of a session; larger is worse."""
    limit: float

    @property
    def alarm(self) -> int | None:
        """Position of the first session above the limit; None where there is none."""
        above = np.flatnonzero(self.values > self.limit)
        return int(above[0]) if len(above) else None


def cusum(off: np.ndarray, allowance: float) -> np.ndarray:
    """Sums of what the sessions fell short by, each less an allowance, never below 0.

    Args:
        off: (..., n) figure less its expectation, in standard deviations; NaN counts as nothing.
        allowance: half the loss that shall be found, in standard deviations.
    """
    steps = -np.nan_to_num(off) - allowance
    result = np.empty_like(steps)
    last = np.zeros(steps.shape[:-1])
    for at in range(steps.shape[-1]):
        last = np.maximum(0.0, last + steps[..., at])
        result[..., at] = last
    return result


def ewma(off: np.ndarray, weight: float = EWMA_WEIGHT) -> np.ndarray:
    """Exponentially weighted mean of the shortfalls, from 0 on; see `cusum`."""
    result = np.empty_like(off, dtype=float)
    last = np.zeros(off.shape[:-1])
    for at in range(off.shape[-1]):
        last = (1 - weight) * last - weight * np.nan_to_num(off[..., at])
        result[..., at] = last
    return result


def charts(
    live: np.ndarray,
    reference: np.ndarray,
    loss: float,
    false_alarms_per_year: float,
    samples: int,
    seed: int,
    horizon: int = 1,
) -> list[Chart]:
    """CUSUM and EWMA of a live figure.

    Args:
        live: (n,) one value a session, in order.
        reference: (m,) what the walk-forward had, in order: its mean is the expectation.
        loss: that the CUSUM is made for, in the unit of the figure.
        false_alarms_per_year: of each chart, where nothing has changed: the share of resampled years
            that alarm is 1 - exp(-false_alarms_per_year).
        samples: resampled years.
        horizon: sessions that the labels look ahead.

    Returns:
        none where the reference is shorter than two sessions or does not vary.
    """
    known = reference[np.isfinite(reference)]
    if len(known) < 2 or not np.ptp(known) > 0:
        return []
    mean, spread = known.mean(), known.std(ddof=1)
    off = (live - mean) / spread
    years = resampled((known - mean) / spread, SESSIONS_A_YEAR, horizon, samples, seed)
    quiet = np.exp(-false_alarms_per_year)
    made = []
    for name, chart in (
        ("CUSUM", lambda values: cusum(values, loss / spread / 2)),
        ("EWMA", ewma),
    ):
        limit = float(np.quantile(chart(years).max(axis=1), quiet))
        made.append(Chart(name, chart(off), limit))
    return made


def resampled(values: np.ndarray, length: int, horizon: int, samples: int, seed: int) -> np.ndarray:
    """Series of blocks of consecutive values, drawn with replacement; (samples, length).

    Blocks as in `pitwise.evaluation.figures.block_means`.
    """
    block = block_length(len(values), horizon)
    n = -(-length // block)
    starts = np.random.default_rng(seed).integers(0, len(values), (samples, n))
    at = (starts[:, :, None] + np.arange(block)) % len(values)
    return values[at.reshape(samples, -1)[:, :length]]
