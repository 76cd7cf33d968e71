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
from pitwise.cleaning.as_of import clean_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.events import LIFE, known_events
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, known
from pitwise.features.versions import feature_history
from pitwise.stage import load_params

MARKET = os.environ.get("PITWISE_SP500_CSV", "")
SESSIONS = 60
COVERAGE = 0.95
TOLD = ["symbol", "date", "kind", "status", *LIFE, "told_by"]
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


@pytest.fixture(scope="module")
def rules() -> CleanParams:
    return load_params(PROJECT, "clean", CleanParams)


def of(versions: BarVersions, symbols: set[str]) -> BarVersions:
    bars, factors, seals, actions = versions
    return BarVersions(bars[bars["symbol"].isin(symbols)], factors, seals, actions)


@pytest.fixture(scope="module")
def symbols(at_once, closes, rules) -> set[str]:
    """Some of them: those up to B without two equal bars of which the later is of these evenings.

    Loaded at once the earlier one is absent at every instant, observed it is the later that is a copy.
    """
    some = {name for name in at_once.bars["symbol"] if name < "C"}
    events = clean_versions(of(at_once, some), rules)[0].events
    return some - set(events.loc[events["copy_of"] > closes.index[0], "symbol"])


def test_evening_by_evening_verdicts_and_features_are_those_of_one_load_and_of_the_prefix(
    evenings, at_once, closes, symbols, rules
):
    assert len(symbols) > 70
    evenings, at_once = of(evenings, symbols), of(at_once, symbols)
    told, history = feature_history(evenings, rules)
    told_at_once, history_at_once = feature_history(at_once, rules)
    exactly(history, history_at_once)
    exactly(told.cleaned.events, told_at_once.cleaned.events)
    assert (told.cleaned.events["date"] > closes.index[0]).sum() > 5
    for at in closes.iloc[[0, 30]]:
        bars = at_once.bars[at_once.bars["known_at"] <= at]
        there, _ = feature_history(at_once._replace(bars=bars), rules)
        exactly(known_events(told.cleaned.events, at)[TOLD], there.cleaned.events[TOLD])
        exactly(known(history, at).drop(columns=CREATED), daily_features(there.cleaned.bars))
