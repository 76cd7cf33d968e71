"""The whole market, where its file is at hand: the figures the design was stated on."""

import os
from pathlib import Path

import numpy as np
import pytest

from feature_repo.clean import CleanParams, clean
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.ingest import csv_bars
from feature_repo.windows import window_ends
from training import metrics
from training.dataset import DatasetParams, build, labels

MARKET = os.environ.get("PITWISE_SP500_CSV", "")
pytestmark = pytest.mark.skipif(not Path(MARKET).is_file(), reason="PITWISE_SP500_CSV names no file")


@pytest.fixture(scope="module")
def cleaned():
    raw = csv_bars(Path(MARKET))
    return raw, *clean(raw, CleanParams(min_history=60, split_step=1.25))


@pytest.fixture(scope="module")
def rows(cleaned):
    _, bars, _ = cleaned
    params = DatasetParams(
        validation_fraction=0.15, test_fraction=0.15, embargo_sessions=5, features=tuple(NAMES)
    )
    return build(daily_features(bars), bars, params, 30)


def test_every_row_is_clean_or_in_quarantine(cleaned):
    raw, bars, quarantine = cleaned
    assert len(raw) == 497_472
    assert len(bars) + len(quarantine) == len(raw)
    assert quarantine["reason"].value_counts().to_dict() == {
        "too_little_history": 18,
        "missing": 11,
        "close_outside_range": 8,
        "open_outside_range": 3,
        "high_below_low": 1,
    }


def test_persistence_is_99_percent_accurate_and_always_up_is_right_more_than_half_the_time(rows):
    test = rows[rows["split"] == "test"]
    assert metrics.mape(test["close"], test["next_close"]) == pytest.approx(0.93, abs=0.02)
    up = np.ones(len(test), dtype=bool)
    assert metrics.direction_accuracy(up, test["label"].to_numpy()) == pytest.approx(0.529, abs=0.005)


def test_training_has_over_300_000_windows_and_none_crosses_a_symbol(rows):
    train = rows[rows["split"] == "train"]
    assert len(train) > 300_000
    ends = np.flatnonzero(rows["ends_window"])
    symbols = rows["symbol"].to_numpy(object)
    assert (symbols[ends] == symbols[ends - 29]).all()
    assert np.isfinite(rows[NAMES].to_numpy()[ends - 29]).all()


def test_a_label_is_the_next_sessions_return_or_nothing(cleaned):
    _, bars, _ = cleaned
    answers = labels(bars)
    apple = bars["symbol"] == "AAPL"
    closes = bars.loc[apple, "close"].to_numpy()
    np.testing.assert_allclose(answers.loc[apple, "label"].iloc[:-1], np.diff(np.log(closes)))
    assert answers["label"].isna().sum() >= bars["symbol"].nunique()


def test_windows_of_every_symbol_end_on_its_last_bar(cleaned):
    _, bars, _ = cleaned
    features = daily_features(bars)
    ends = window_ends(features["symbol"].to_numpy(object), features[NAMES].to_numpy(), 30)
    last = features.reset_index().groupby("symbol")["index"].max()
    assert set(last) <= set(ends)
