"""The whole market's last 60 sessions, a delivery an evening, where its file is at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.deliveries import delivery, exactly
from support.project import PROJECT

from pitwise.bars.calendar import session_close
from pitwise.bars.sources.csv_files import csv_bars
from pitwise.bars.versions import BarVersions, bar_versions, known_bars
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, known
from pitwise.features.versions import feature_versions
from pitwise.stage import load_params

MARKET = os.environ.get("PITWISE_SP500_CSV", "")
SESSIONS = 60
COVERAGE = 0.95
pytestmark = pytest.mark.skipif(not Path(MARKET).is_file(), reason="PITWISE_SP500_CSV names no file")


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    return csv_bars(Path(MARKET))


@pytest.fixture(scope="module")
def closes(market) -> pd.Series:
    """The close of each of the last sessions and of the one before them, by its day."""
    days = pd.Series(np.sort(market["date"].dropna().unique())[-SESSIONS - 1 :])
    return pd.Series(session_close(days).array, days)


@pytest.fixture(scope="module")
def evenings(market, closes) -> BarVersions:
    """The history up to 60 sessions before its end, then each session as it closes."""
    before = market[~(market["date"] > closes.index[0])]
    loads = [delivery(before, closes.iloc[0], history="assumed")]
    loads += [delivery(market[market["date"] == day], at) for day, at in closes.iloc[1:].items()]
    return bar_versions(loads, COVERAGE)


@pytest.fixture(scope="module")
def at_once(market, closes) -> BarVersions:
    return bar_versions([delivery(market, closes.iloc[-1], history="assumed")], COVERAGE)


def test_evening_by_evening_the_bars_and_seals_are_those_of_one_load(evenings, at_once, closes, market):
    for at in closes.iloc[[0, 1, 30, 59, 60]]:
        exactly(known_bars(evenings, at), known_bars(at_once, at))
    keyed = market.dropna(subset=["symbol", "date"])
    assert len(known_bars(evenings)) == 497_472 == len(keyed)
    exactly(evenings.seals, at_once.seals)
    assert closes.index.isin(evenings.seals["date"]).all()


def some_symbols(versions: BarVersions) -> BarVersions:
    bars, factors, seals = versions
    return BarVersions(bars[bars["symbol"] < "C"], factors[factors["symbol"] < "C"], seals)


def test_evening_by_evening_the_features_are_those_of_one_load_and_of_the_prefix(
    evenings, at_once, closes
):
    evenings, at_once = some_symbols(evenings), some_symbols(at_once)
    project = load_params(PROJECT, "clean", CleanParams)
    rules = project.model_copy(update={"verdicts": "off"})
    history = feature_versions(evenings, clean(known_bars(evenings), rules), rules)
    exactly(history, feature_versions(at_once, clean(known_bars(at_once), rules), rules))
    for at in closes.iloc[[0, 30]]:
        then = daily_features(clean(known_bars(at_once, at), rules).bars)
        exactly(known(history, at).drop(columns=CREATED), then)
