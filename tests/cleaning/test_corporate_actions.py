"""Splits, spin-offs, jumps and absences, each planted by hand in one calm stock."""

import numpy as np
import pandas as pd
import pytest
from support import markets
from support.faulty_bars import AT, CLEAN, PRICES, cleaned, kinds

from pitwise.bars.basis import on_last_basis
from pitwise.bars.schema import COLUMNS
from pitwise.cleaning.clean import clean
from pitwise.features.indicators import compute


def move(frame: pd.DataFrame, ratio: float) -> None:
    """From row `AT` on the stock is worth `ratio` times what it was."""
    frame.loc[AT:, PRICES] *= ratio


def busy(frame: pd.DataFrame, times: float) -> None:
    frame.loc[AT : AT + 2, "volume"] *= [times, 1 + times / 3, 1 + times / 6]


def test_a_calm_stock_has_neither_glitch_nor_event(calm):
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert events.empty
    assert (bars["segment"] == 0).all()


def test_a_power_of_ten_that_stays_is_a_split(calm):
    move(calm, 0.1)
    calm.loc[AT:, "volume"] *= 10
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert on_last_basis(bars)["close"].pct_change().abs().max() < 0.05


@pytest.mark.parametrize(
    ("shares", "ratio"), [(2, 0.5), (3, 1 / 3), (1.5, 2 / 3), (7, 1 / 7), (0.1, 10.0), (0.5, 2.0)]
)
def test_a_split_is_taken_out_of_prices_and_volumes(calm, shares, ratio):
    whole = clean(calm, CLEAN)[0]
    move(calm, 1 / shares)
    calm.loc[AT:, "volume"] *= shares
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert events["price_ratio"].tolist() == [pytest.approx(ratio)]
    np.testing.assert_array_equal(bars[PRICES], calm[PRICES])  # as traded
    for factor in ("price_factor", "share_factor"):
        assert bars[factor].tolist() == pytest.approx([1.0] * AT + [shares] * (300 - AT))
    bars = on_last_basis(bars)
    np.testing.assert_allclose(bars[PRICES], whole[PRICES] / shares, rtol=1e-12)
    np.testing.assert_allclose(bars["volume"], whole["volume"] * shares, rtol=1e-12)
    np.testing.assert_allclose(bars["price_factor"][:AT], ratio)
    assert (bars["price_factor"][AT:] == 1).all()
    assert (bars["segment"] == 0).all()


def test_two_splits_of_one_stock_multiply(calm):
    whole = clean(calm, CLEAN)[0]
    for at, shares in ((100, 2), (200, 3)):
        calm.loc[at:, PRICES] /= shares
        calm.loc[at:, "volume"] *= shares
    bars, _, events = cleaned(calm)
    assert events["kind"].tolist() == ["split", "split"]
    assert bars["share_factor"].tolist() == pytest.approx([1.0] * 100 + [2.0] * 100 + [6.0] * 100)
    bars = on_last_basis(bars)
    np.testing.assert_allclose(bars[PRICES], whole[PRICES] / 6, rtol=1e-12)


@pytest.mark.parametrize("ratio", [0.88, 0.7, 0.43])
def test_a_part_that_leaves_overnight_breaks_the_history(calm, ratio):
    move(calm, ratio)
    busy(calm, 2)
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "spin_off")]
    assert bars["segment"].tolist() == [0] * AT + [1] * (300 - AT)
    np.testing.assert_array_equal(bars["close"], calm["close"])


def test_no_indicator_reaches_across_a_spin_off(calm):
    move(calm, 0.7)
    busy(calm, 2)
    bars, _, _ = cleaned(calm)
    features = compute(bars)
    alone = compute(bars[AT:].reset_index(drop=True))
    pd.testing.assert_frame_equal(features[AT:].reset_index(drop=True), alone)
    assert np.isnan(features["daily_return"][AT])


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_earnings_stay_a_return(calm, ratio):
    calm.loc[AT:, PRICES] *= ratio
    calm.loc[AT, "open"] /= ratio**0.3  # a third of it came within the session
    calm.loc[AT, "high"] = calm.loc[AT, ["open", "close"]].max() * 1.01
    calm.loc[AT, "low"] = calm.loc[AT, ["open", "close"]].min() * 0.99
    busy(calm, 8)
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "jump")]
    assert (bars["segment"] == 0).all()
    assert (bars["price_factor"] == 1).all()


def test_the_evidence_of_an_event_describes_what_was_measured(calm):
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    evidence = cleaned(calm)[2]["evidence"][0]
    assert "a split 2:1" in evidence
    assert "shares x2." in evidence or "shares x1." in evidence
    assert "-50" in evidence or "-49" in evidence


def test_sessions_that_one_stock_lost_in_silence_are_a_gap(calm):
    _, _, events = cleaned(calm.drop(index=[AT, AT + 1]).reset_index(drop=True))
    assert kinds(events) == [(calm["date"][AT], "gap")]
    assert events["sessions"].tolist() == [2]


def test_sessions_before_a_burst_of_trading_are_a_halt(calm):
    calm.loc[AT + 2, "volume"] *= 6
    _, _, events = cleaned(calm.drop(index=[AT, AT + 1]).reset_index(drop=True))
    assert kinds(events) == [(calm["date"][AT], "halt")]


def test_sessions_that_many_stocks_lost_are_the_sources_gap():
    market = markets.bars(30, 200, seed=4)[COLUMNS]
    market["volume"] = 1e6
    day = market["date"].unique()[120]
    lost = (market["date"] == day) & (market["symbol"] < "S015")
    market.loc[(market["symbol"] == "S003") & (market["date"] > day), PRICES] *= 1.5
    _, _, events = cleaned(market[~lost].reset_index(drop=True))
    away = events[events["kind"].isin(["gap", "halt"])]
    assert (away["kind"] == "gap").all()
    assert len(away) == 15


def test_a_quarantined_session_is_no_absence(calm):
    calm.loc[AT, "close"] = np.nan
    _, quarantine, events = cleaned(calm)
    assert quarantine["reason"].tolist() == ["missing"]
    assert events.empty


@pytest.mark.filterwarnings("error")
def test_no_fault_makes_a_library_complain_on_the_screen(calm):
    calm.loc[5, "close"] = -1.0
    calm.loc[9, "open"] = 0.0
    calm.loc[12, "high"] = np.inf
    calm.loc[20, PRICES] = np.nan
    calm.loc[30, PRICES] = 7.0
    calm.loc[50, "volume"] = 0.0
    calm.loc[60:85, "volume"] = 0.0
    calm.loc[90:92, "volume"] = -5.0
    cleaned(calm.drop(index=[8, 10, 11, 62, 63]).reset_index(drop=True))


def test_a_ticker_taken_over_by_another_company_starts_anew(calm):
    calm.loc[AT + 90 :, PRICES] *= 3
    gone = calm.drop(index=range(AT, AT + 90)).reset_index(drop=True)
    bars, _, events = cleaned(gone)
    assert kinds(events) == [(calm["date"][AT + 90], "symbol_reused")]
    assert bars["segment"].tolist() == [0] * AT + [1] * (300 - AT - 90)


def test_an_adjusted_close_that_misses_a_split_is_found_out(calm):
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    bars, _, events = cleaned(calm.assign(adj_close=calm["close"]))
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert on_last_basis(bars)["close"].pct_change().abs().max() < 0.05


def test_an_adjusted_close_with_a_split_that_never_was_is_not_believed(calm):
    factor = np.where(np.arange(300) < AT, 0.5, 1.0)
    bars, _, events = cleaned(calm.assign(adj_close=calm["close"] * factor))
    assert kinds(events) == [(calm["date"][AT], "bad_adjustment")]
    np.testing.assert_allclose(bars["close"], calm["close"])


def test_a_split_that_the_adjusted_close_knows_is_an_event_once(calm):
    adjusted = calm["close"].copy()
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    bars, _, events = cleaned(calm.assign(adj_close=adjusted))
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert "adjusted close" in events["evidence"][0]
    np.testing.assert_allclose(on_last_basis(bars)["close"], adjusted / 2)
