"""Glitches and corporate actions, each planted by hand in one calm stock."""

import markets
import numpy as np
import pandas as pd
import pytest

from feature_repo.clean import CleanParams, clean
from feature_repo.indicators import compute
from feature_repo.stage import load_params

PARAMS = load_params("clean", CleanParams)
PRICES = ["open", "high", "low", "close"]
AT = 150
"""The row that is tampered with."""


@pytest.fixture
def calm() -> pd.DataFrame:
    """300 sessions of a stock that moves about 1% a day and trades about a million shares."""
    rng = np.random.default_rng(5)
    frame = markets.bars(1, 300, seed=5).drop(columns=["price_factor", "segment"])
    close = 100 * np.exp(rng.normal(0, 0.01, 300).cumsum())
    opening = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.003, 300))
    frame["close"], frame["open"] = close, opening
    frame["high"] = np.maximum(opening, close) * (1 + rng.uniform(0.001, 0.006, 300))
    frame["low"] = np.minimum(opening, close) * (1 - rng.uniform(0.001, 0.006, 300))
    frame["volume"] = np.round(1e6 * np.exp(rng.normal(0, 0.2, 300)))
    return frame


def cleaned(frame: pd.DataFrame):
    bars, quarantine, events = clean(frame, PARAMS)
    assert len(bars) + len(quarantine) == len(frame)
    return bars, quarantine, events


def quarantined(frame: pd.DataFrame) -> dict[str, list[pd.Timestamp]]:
    _, quarantine, _ = cleaned(frame)
    return {reason: list(part["date"]) for reason, part in quarantine.groupby("reason")}


def kinds(events: pd.DataFrame) -> list[tuple[pd.Timestamp, str]]:
    return list(zip(events["date"], events["kind"], strict=True))


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


@pytest.mark.parametrize("factor", [100, 10, 0.1, 0.01])
@pytest.mark.parametrize("sessions", [1, 3, 5])
def test_a_power_of_ten_that_goes_away_again_is_quarantined(calm, factor, sessions):
    calm.loc[AT : AT + sessions - 1, PRICES] *= factor
    assert quarantined(calm) == {"scale_error": list(calm["date"][AT : AT + sessions])}
    events = cleaned(calm)[2]
    assert kinds(events) == [(calm["date"][AT], "scale_error")]
    assert events["sessions"].tolist() == [sessions]
    after, evidence = calm["close"][AT + sessions], events["evidence"][0]
    assert f"between closes of {calm['close'][AT - 1]:.4g} and {after:.4g}" in evidence


def test_a_power_of_ten_that_stays_is_a_split(calm):
    move(calm, 0.1)
    calm.loc[AT:, "volume"] *= 10
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert bars["close"].pct_change().abs().max() < 0.05


@pytest.mark.parametrize("ratio", [0.5, 0.85, 1.2, 2.0])
def test_a_close_that_the_next_session_takes_back_is_a_bad_print(calm, ratio):
    calm.loc[AT, "close"] *= ratio
    calm.loc[AT, "high"] = calm.loc[AT, ["high", "close"]].max()
    calm.loc[AT, "low"] = calm.loc[AT, ["low", "close"]].min()
    assert quarantined(calm) == {"bad_print": [calm["date"][AT]]}


@pytest.mark.parametrize(("column", "ratio"), [("high", 1.4), ("low", 0.7)])
def test_a_wick_that_no_neighbour_knows_is_a_bad_print(calm, column, ratio):
    calm.loc[AT, column] *= ratio
    assert quarantined(calm) == {"bad_print": [calm["date"][AT]]}


def test_a_swing_that_people_traded_on_stays(calm):
    calm.loc[AT, "close"] *= 1.2
    calm.loc[AT, "high"] = calm.loc[AT, "close"]
    calm.loc[AT, "volume"] *= 8
    assert quarantined(calm) == {}


def test_a_swing_whose_news_came_at_the_close_stays(calm):
    calm.loc[AT, "close"] *= 1.2
    calm.loc[AT, "high"] = calm.loc[AT, "close"]
    calm.loc[AT + 1, "volume"] *= 8
    assert quarantined(calm) == {}


def test_a_day_of_panic_in_the_whole_market_stays():
    panic = markets.bars(40, 200, seed=3).drop(columns=["price_factor", "segment"])
    panic["volume"] = 1e6
    day = panic["date"] == panic["date"].unique()[100]
    panic.loc[day, "low"] *= 0.75
    _, quarantine, _ = cleaned(panic)
    assert "bad_print" not in set(quarantine["reason"])


def test_bars_repeated_unchanged_are_stale(calm):
    columns = [*PRICES, "volume"]
    calm.loc[AT + 1 : AT + 3, columns] = calm.loc[AT, columns].to_numpy()
    assert quarantined(calm) == {"stale": list(calm["date"][AT + 1 : AT + 4])}


def test_two_repeats_are_chance(calm):
    calm.loc[AT + 1 : AT + 2, PRICES] = calm.loc[AT, PRICES].to_numpy(float)
    assert quarantined(calm) == {}


def test_a_thousandfold_volume_is_absurd_and_a_fortyfold_is_a_takeover(calm):
    calm.loc[AT, "volume"] *= 1000
    calm.loc[AT + 50, "volume"] *= 40
    assert quarantined(calm) == {"absurd_volume": [calm["date"][AT]]}


@pytest.mark.parametrize(
    ("shares", "ratio"), [(2, 0.5), (3, 1 / 3), (1.5, 2 / 3), (7, 1 / 7), (0.1, 10.0), (0.5, 2.0)]
)
def test_a_split_is_taken_out_of_prices_and_volumes(calm, shares, ratio):
    whole = clean(calm, PARAMS)[0]
    move(calm, 1 / shares)
    calm.loc[AT:, "volume"] *= shares
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert events["price_ratio"].tolist() == [pytest.approx(ratio)]
    np.testing.assert_allclose(bars[PRICES], whole[PRICES] / shares, rtol=1e-12)
    np.testing.assert_allclose(bars["volume"], whole["volume"] * shares, rtol=1e-12)
    np.testing.assert_allclose(bars["price_factor"][:AT], ratio)
    assert (bars["price_factor"][AT:] == 1).all()
    assert (bars["segment"] == 0).all()


def test_two_splits_of_one_stock_multiply(calm):
    whole = clean(calm, PARAMS)[0]
    for at, shares in ((100, 2), (200, 3)):
        calm.loc[at:, PRICES] /= shares
        calm.loc[at:, "volume"] *= shares
    bars, _, events = cleaned(calm)
    assert events["kind"].tolist() == ["split", "split"]
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


def test_no_indicator_looks_across_a_spin_off(calm):
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


def test_an_event_says_why(calm):
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
    market = markets.bars(30, 200, seed=4).drop(columns=["price_factor", "segment"])
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
    assert bars["close"].pct_change().abs().max() < 0.05


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
    np.testing.assert_allclose(bars["close"], adjusted / 2)
