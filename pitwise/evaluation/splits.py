"""Splits by date, purged by the label's horizon and embargoed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pitwise.errors import DataError

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The sessions of each part, in order; sessions between two parts belong to none."""

    train: pd.DatetimeIndex
    validation: pd.DatetimeIndex
    test: pd.DatetimeIndex

    def label(self, instants: pd.Series) -> np.ndarray:
        """The part each instant belongs to, '' for none; (n,) of str."""
        labels = np.full(len(instants), "", dtype=object)
        for name in NAMES:
            labels[instants.isin(getattr(self, name)).to_numpy()] = name
        return labels


def split_sessions(
    sessions: pd.DatetimeIndex,
    validation_fraction: float,
    test_fraction: float,
    embargo: int,
    horizon: int,
) -> Split:
    """Cut the sessions into train, validation and test, in this order of time.

    Before each cut, `horizon` sessions are purged (their labels are only known at or after the
    cut) and `embargo` more are left out, so that nothing serially correlated leans over it.
    Source: López de Prado, Advances in Financial Machine Learning, chapter 7.

    Args:
        sessions: unique and sorted.
        horizon: sessions that the labels look ahead.

    Raises:
        DataError: a part would be empty.
    """
    n = len(sessions)
    test_at = n - round(n * test_fraction)
    validation_at = test_at - round(n * validation_fraction)
    gap = horizon + embargo
    split = Split(
        train=sessions[: max(validation_at - gap, 0)],
        validation=sessions[validation_at : max(test_at - gap, validation_at)],
        test=sessions[test_at:],
    )
    empty = [name for name in NAMES if len(getattr(split, name)) == 0]
    if empty:
        raise DataError(
            f"{n} sessions are too few to split: nothing is left for {' and '.join(empty)}. Use more "
            "data, or change dataset.validation_fraction, test_fraction or embargo_sessions."
        )
    return split
