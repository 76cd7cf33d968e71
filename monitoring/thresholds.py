"""How far a column may move in a week before it is news: what the market's own weeks say.

The symbols of a session move together, so a week of 500 symbols is about five draws and not 2,500: a
fixed threshold cries wolf. Here every stretch of the reference that is as long as the week is held
against the rest of the reference; the largest of all columns' distances, each in its own unit, gives one
threshold for all of them together. A stretch is measured in means and units of those far from it, as the
week is measured in those of sessions that it is not among.
Source: Westfall and Young (1993), Resampling-based multiple testing (max-T, single step).
"""

from dataclasses import dataclass

import numpy as np

from monitoring.sketch import Sketch

WEEKS_A_YEAR = 52
MONTH = 20
"""Sessions of the longer span."""
OVER_A_MONTH = " over four weeks"
"""Ends the name of a column of the longer span."""
FEWEST_MONTHS = 20
"""That the sessions before must hold for the longer span to be judged: of fewer, which overlap besides,
the largest says too little of what a calm market does."""
LEAST_VARIANCE = 0.25
"""Of the stretches far from one, as a part of all stretches' variance."""
SMOOTHING = 0.5
"""Rows added to each bin, so that an empty one gives no infinite distance."""


@dataclass(frozen=True)
class Drift:
    """A week against its reference; (n_columns,) each."""

    columns: list[str]
    psi: np.ndarray
    threshold: np.ndarray
    """Of the index, column for column; together they are passed by chance `alpha` of all weeks."""
    weeks: int
    """Stretches of the reference that the thresholds are made of."""

    def of(self, chosen: np.ndarray) -> "Drift":
        """Of some of the columns; (n_columns,) bool. Their thresholds stay those of all together."""
        names = [name for name, wanted in zip(self.columns, chosen, strict=True) if wanted]
        return Drift(names, self.psi[chosen], self.threshold[chosen], self.weeks)

    @property
    def drifted(self) -> list[str]:
        """Columns beyond their threshold, the furthest first."""
        beyond = np.flatnonzero(self.psi > self.threshold)
        furthest = beyond[np.argsort(-(self.psi / self.threshold)[beyond])]
        return [self.columns[at] for at in furthest]


def psi(reference: np.ndarray, recent: np.ndarray) -> np.ndarray:
    """Population stability index: sum over the bins of (q - p) * ln(q / p).

    Args:
        reference, recent: (..., n_bins) rows in each bin.
    """
    p, q = (
        (rows + SMOOTHING) / (rows + SMOOTHING).sum(axis=-1, keepdims=True)
        for rows in (reference, recent)
    )
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def week_drift(reference: np.ndarray, week: np.ndarray, alpha: float, columns: list[str]) -> Drift:
    """The week's distance from the reference, and what it may be.

    Args:
        reference: (n, n_columns, n_bins) rows of each of its sessions, in order; every stretch of as
            many sessions as the week has is one draw of the null distribution, against the others.
        week: (w, n_columns, n_bins).
        alpha: how often one column or more may pass its threshold in a week without a change.
    """
    stretches = _stretches(reference, len(week))
    whole = reference.sum(axis=0)
    # The root is nearly normal: in the logarithm the quietest weeks would widen every limit.
    null = np.sqrt(psi(whole - stretches, stretches))
    largest = _as_unseen(null, len(week) + MONTH).max(axis=1)
    limit = max(float(np.quantile(largest, 1 - alpha, method="higher")), gumbel_quantile(largest, alpha))
    threshold = (null.mean(axis=0) + limit * null.std(axis=0)) ** 2
    return Drift(columns, psi(whole, week.sum(axis=0)), threshold, len(stretches))


def _as_unseen(null: np.ndarray, apart: int) -> np.ndarray:
    """Each stretch's distances in units of the stretches that have nothing to do with it.

    The week is held against stretches that it is not among. A stretch that helped to make the mean and
    the spread that it is measured by looks nearer than it would have as a week to come: where the
    neighbours overlap and a history holds few that do not, by much.

    Args:
        null: (n, n_columns) distances, in order.
        apart: stretches on both sides that overlap with it, or whose features remember the same.

    Returns:
        (n, n_columns); 0 where nothing varies.
    """
    n = len(null)
    at = np.arange(n)
    apart = min(apart, n // 4)
    first, last = np.maximum(0, at - apart), np.minimum(n, at + apart + 1)
    left = (n - (last - first))[:, None]

    def mean(values: np.ndarray) -> np.ndarray:
        before = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
        return (before[-1] - before[last] + before[first]) / left

    # A column that hardly varies but here would be so far as to set the limit of all.
    least = LEAST_VARIANCE * null.var(axis=0)
    spread = np.sqrt(np.maximum(mean(null**2) - mean(null) ** 2, least))
    return np.divide(null - mean(null), spread, out=np.zeros_like(null), where=spread > 0)


def gumbel_quantile(values: np.ndarray, alpha: float) -> float:
    """What a Gumbel distribution with the values' mean and spread passes with probability alpha.

    Stretches overlap, so the few independent ones say little of so rare a case; the largest of many
    columns has this distribution in the limit.
    Source: Gumbel (1958), Statistics of extremes; method of moments.
    """
    scale = values.std(ddof=1) * np.sqrt(6) / np.pi
    return float(values.mean() - scale * (np.euler_gamma + np.log(-np.log1p(-alpha))))


def drift(counts: np.ndarray, week: int, reference: int, alpha: float, columns: list[str]) -> Drift:
    """The last week and the last four weeks, each against the sessions before it.

    What lasts shows over four weeks where one week drowns it: the market's moves cancel out by then.

    Args:
        counts: (n, n_columns, n_bins) sessions up to the week's end, in order.
        week: sessions in it.
        reference: sessions before that they are held against, at most.
        alpha: see `week_drift`; the two spans share it.

    Returns:
        the columns of the week and, where there is enough before, those `OVER_A_MONTH`.
    """
    last = len(counts) - week
    found = week_drift(counts[max(0, last - reference) : last], counts[last:], alpha / 2, columns)
    last = len(counts) - MONTH
    before = counts[max(0, last - reference) : max(0, last)]
    if len(before) < FEWEST_MONTHS * MONTH:
        return found
    month = week_drift(before, counts[last:], alpha / 2, columns)
    return Drift(
        [*columns, *(name + OVER_A_MONTH for name in columns)],
        np.append(found.psi, month.psi),
        np.append(found.threshold, month.threshold),
        found.weeks,
    )


def _stretches(sessions: np.ndarray, length: int) -> np.ndarray:
    """Sums over each stretch of consecutive sessions; (n - length + 1, ...)."""
    before = np.concatenate([np.zeros((1, *sessions.shape[1:])), sessions.cumsum(axis=0)])
    return before[length:] - before[:-length]


def alpha_of(false_alarms_per_year: float) -> float:
    """Of one week."""
    return min(false_alarms_per_year / WEEKS_A_YEAR, 0.5)


def judged_columns(made: Sketch, first: int, last: int) -> np.ndarray:
    """Columns with rows in at least half of these sessions; (n_columns,) bool."""
    return (made.counts[first:last].sum(axis=2) > 0).mean(axis=0) >= 0.5
