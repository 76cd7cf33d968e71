"""The whole market, where its file is at hand: the figures the design was stated on."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.project import PROJECT

from pitwise.bars.sources.csv_files import csv_bars
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.cleaning.events import standing
from pitwise.evaluation import metrics
from pitwise.evaluation.labels import labels
from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import window_ends
from pitwise.stage import load_params
from training.dataset import DatasetParams, build

MARKET = os.environ.get("PITWISE_SP500_CSV", "")
pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(not Path(MARKET).is_file(), reason="PITWISE_SP500_CSV names no file"),
]


@pytest.fixture(scope="module")
def cleaned():
    raw = csv_bars(Path(MARKET))
    return raw, *clean(raw, load_params(PROJECT, "clean", CleanParams))


@pytest.fixture(scope="module")
def rows(cleaned):
    _, bars, _, _ = cleaned
    daily = daily_features(bars)
    params = DatasetParams(validation_fraction=0.15, test_fraction=0.15, embargo_sessions=5)
    return build(daily.drop(columns="segment"), daily, params, 30)


def test_every_row_is_clean_or_in_quarantine(cleaned):
    raw, bars, quarantine, _ = cleaned
    assert len(raw) == 497_472
    assert len(bars) + len(quarantine) == len(raw)
    assert quarantine["reason"].value_counts().to_dict() == {
        "displaced": 1069,
        "too_little_history": 18,
        "missing": 11,
        "bad_print": 10,
        "close_outside_range": 8,
        "open_outside_range": 3,
        "high_below_low": 1,
    }


SPIN_OFFS = """A 2014-11-03, ARNC 2016-11-01, BAX 2015-07-01, CTXS 2017-02-01, DOV 2014-03-03,
DRI 2015-11-10, EBAY 2015-07-20, HPE 2017-04-03, HPE 2017-09-01, MAS 2015-07-01, MET 2017-08-07,
NI 2015-07-02, NOV 2014-06-02, OKE 2014-02-03, VAR 2017-01-30, VNO 2015-01-16, VNO 2017-07-18,
VTR 2015-08-18, YUM 2016-11-01"""
"""Spin-offs known from the companies' own announcements."""
SPECIAL_DIVIDENDS = "EQR 2016-03-01, IRM 2014-09-26, KLAC 2014-11-26, SYMC 2016-03-04, TDG 2014-06-12"
EARNINGS = """NFLX 2014-10-16, UAA 2017-01-31, FL 2017-08-18, ILMN 2016-10-11, SIG 2017-11-21,
CMG 2017-10-25, NVDA 2016-11-11, AMZN 2015-07-24, GOOGL 2015-07-17, CSX 2017-01-19, AMD 2016-04-22,
BBY 2014-01-16"""


@pytest.mark.parametrize(
    ("known", "kind"),
    [(SPIN_OFFS, "spin_off"), (SPECIAL_DIVIDENDS, "spin_off"), (EARNINGS, "jump")],
)
def test_events_that_everybody_knows_have_their_kind(cleaned, known, kind):
    events = cleaned[3]
    found = {f"{e.symbol} {e.date:%Y-%m-%d}": e.kind for e in standing(events, kind).itertuples()}
    kinds = {name: found.get(name) for name in known.replace("\n", " ").split(", ")}
    assert kinds == dict.fromkeys(kinds, kind)


def test_the_stock_dividend_of_discovery_is_the_only_split(cleaned):
    splits = standing(cleaned[3], "split")
    ratios = {(e.symbol, f"{e.date:%Y-%m-%d}"): e.price_ratio for e in splits.itertuples()}
    assert ratios == {("DISCA", "2014-08-07"): 0.5, ("DISCK", "2014-08-07"): 0.5}


MIXED_UP = {"2014-07-17": 103, "2014-08-01": 218, "2014-10-29": 59, "2014-10-30": 193, "2017-08-01": 277}
"""Sessions with a later one's bars for a part of the market, and for how many symbols."""


def test_the_bars_that_the_vendor_took_from_another_session_are_set_aside(cleaned):
    quarantine, events = cleaned[2:]
    displaced = quarantine[quarantine["reason"] == "displaced"]
    counts = displaced["date"].dt.strftime("%Y-%m-%d").value_counts()
    assert counts.head(5).to_dict() == MIXED_UP
    copy_of = standing(events, "displaced").set_index(["symbol", "date"])["copy_of"]
    mixed = displaced.loc[displaced["date"] == "2017-09-14", "symbol"]
    assert {"COP", "EQT", "FLR", "HAL", "MPC", "MRK", "MRO", "NWL"} <= set(mixed)
    for symbol in ("COP", "MRK"):
        assert f"{copy_of[symbol, pd.Timestamp('2017-09-14')]:%Y-%m-%d}" == "2017-12-19"
    assert f"{copy_of['MRK', pd.Timestamp('2017-08-01')]:%Y-%m-%d}" == "2017-08-02"


def test_hps_shares_of_before_they_were_issued_are_set_aside(cleaned):
    quarantine = cleaned[2]
    bad = quarantine[quarantine["reason"] == "bad_print"]
    assert set(bad["symbol"]) == {"HPQ"}
    # From the first day of when-issued trading to the eve of the separation.
    assert list(bad["date"].agg(["min", "max"]).dt.strftime("%Y-%m-%d")) == ["2015-10-19", "2015-10-30"]
    assert len(bad) == 10
    # Told once three sessions of regular trading had come.
    (event,) = standing(cleaned[3], "bad_print").itertuples()
    assert (event.symbol, event.sessions) == ("HPQ", 10)
    assert f"{event.confirmed_at:%Y-%m-%d}" == "2015-11-04"


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
    _, bars, _, _ = cleaned
    answers = labels(daily_features(bars), 1)
    apple = bars["symbol"] == "AAPL"
    closes = (bars["close"] * bars["price_factor"])[apple].to_numpy()
    returns = np.diff(np.log(closes))
    # Apple's bar of the session after is another session's, and set aside.
    returns[(bars.loc[apple, "date"] == "2017-07-31").to_numpy()[:-1]] = np.nan
    np.testing.assert_allclose(answers.loc[apple, "label"].iloc[:-1], returns)
    assert answers["label"].isna().sum() >= bars["symbol"].nunique()


def test_windows_of_every_symbol_end_on_its_last_bar(cleaned):
    _, bars, _, _ = cleaned
    features = daily_features(bars)
    ends = window_ends(features["symbol"].to_numpy(object), features[NAMES].to_numpy(), 30)
    last = features.reset_index().groupby("symbol")["index"].max()
    assert set(last) <= set(ends)
