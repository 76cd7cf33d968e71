"""What the verdicts do to the bars: set aside, taken out of the prices, or not joined across."""

import numpy as np
import pandas as pd
import pytest
from support import markets
from support.faulty_bars import AT, CLEAN, PRICES, busy, cleaned, earnings, kinds, move, quarantined

from pitwise.bars.basis import on_last_basis
from pitwise.bars.calendar import session_close
from pitwise.bars.schema import COLUMNS
from pitwise.cleaning.clean import clean
from pitwise.features.indicators import compute


def test_a_calm_stock_has_no_event(calm):
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert events.empty
    assert (bars["segment"] == 0).all()


@pytest.mark.parametrize("factor", [100, 10, 0.1, 0.01])
@pytest.mark.parametrize("sessions", [1, 3, 5])
def test_all_bars_of_an_error_of_scale_are_set_aside_once_the_price_is_back(calm, factor, sessions):
    calm.loc[AT : AT + sessions - 1, PRICES] *= factor
    _, quarantine, events = cleaned(calm)
    assert quarantine["date"].tolist() == list(calm["date"][AT : AT + sessions])
    assert set(quarantine["reason"]) == {"scale_error"}
    back = session_close(calm["date"])[AT + sessions]
    assert quarantine["since"].tolist() == [back] * sessions
    stands = events[events["status"] == "confirmed"]
    assert kinds(stands) == [(calm["date"][AT], "scale_error")]
    assert stands["sessions"].tolist() == [sessions]
    assert stands["confirmed_at"].tolist() == [back]
    assert stands["close_before"].item() == calm["close"][AT - 1]


@pytest.mark.parametrize("ratio", [0.5, 0.85, 1.2, 2.0])
def test_a_bad_print_is_set_aside_from_the_next_close_on(calm, ratio):
    calm.loc[AT, "close"] *= ratio
    calm.loc[AT, "high"] = calm.loc[AT, ["high", "close"]].max()
    calm.loc[AT, "low"] = calm.loc[AT, ["low", "close"]].min()
    _, quarantine, _ = cleaned(calm)
    assert quarantine[["date", "reason"]].values.tolist() == [[calm["date"][AT], "bad_print"]]
    assert quarantine["since"].item() == session_close(calm["date"])[AT + 1]
    assert quarantined(calm[: AT + 1]) == {}


@pytest.mark.parametrize(("column", "ratio"), [("high", 1.4), ("low", 0.7)])
def test_a_wick_that_was_never_traded_is_set_aside_at_its_own_close(calm, column, ratio):
    calm.loc[AT, column] *= ratio
    for bars in (calm, calm[: AT + 1]):
        assert quarantined(bars) == {"bad_print": [calm["date"][AT]]}


@pytest.mark.parametrize("busy_row", [AT, AT + 1])
def test_a_swing_that_people_traded_on_stays(calm, busy_row):
    calm.loc[AT, "close"] *= 1.2
    calm.loc[AT, "high"] = calm.loc[AT, "close"]
    calm.loc[busy_row, "volume"] *= 8
    assert quarantined(calm) == {}


def test_a_day_of_panic_in_the_whole_market_stays():
    panic = markets.bars(40, 200, seed=3)[COLUMNS]
    panic["volume"] = 1e6
    day = panic["date"] == panic["date"].unique()[100]
    panic.loc[day, "low"] *= 0.75
    panic.loc[panic["date"] >= panic["date"].unique()[100], PRICES] *= 0.85
    assert "bad_print" not in quarantined(panic)


def test_a_day_of_panic_that_is_over_by_the_close_stays():
    panic = markets.bars(40, 200, seed=3)[COLUMNS]
    panic["volume"] = 1e6
    day = panic["date"] == panic["date"].unique()[100]
    panic.loc[day, "low"] *= 0.75
    assert "bad_print" not in quarantined(panic)


def penny(calm: pd.DataFrame) -> pd.DataFrame:
    """A stock of half a dollar, its day a tick or two: bars alike are chance."""
    rng = np.random.default_rng(1)
    close = 0.5 + 0.01 * np.cumsum(rng.choice([-1, 0, 1], 300))
    calm["close"] = close - close.min() + 0.5
    calm["open"] = calm["close"] + 0.01 * rng.choice([-1, 0, 1], 300)
    calm["high"] = calm[["open", "close"]].max(axis=1) + 0.01 * rng.choice([0, 1], 300)
    calm["low"] = calm[["open", "close"]].min(axis=1) - 0.01 * rng.choice([0, 1], 300)
    calm[PRICES] = calm[PRICES].round(2)
    return calm


def test_of_a_penny_stock_the_third_repeat_is_stale_and_two_are_chance(calm):
    bars = penny(calm)
    assert quarantined(bars) == {}
    bars.loc[AT + 1 : AT + 5, PRICES] = bars.loc[AT, PRICES].to_numpy(float)
    assert quarantined(bars) == {"stale": list(bars["date"][AT + 3 : AT + 6])}


def test_prices_to_the_last_digit_are_no_chance_even_once(calm):
    columns = [*PRICES, "volume"]
    calm.loc[AT + 1 : AT + 3, columns] = calm.loc[AT, columns].to_numpy()
    assert quarantined(calm) == {"repeated": list(calm["date"][AT + 1 : AT + 4])}


def test_a_thousandfold_volume_is_absurd_and_a_fortyfold_is_a_takeover(calm):
    calm.loc[AT, "volume"] *= 1000
    calm.loc[AT + 50, "volume"] *= 40
    assert quarantined(calm) == {"absurd_volume": [calm["date"][AT]]}


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
    whole = clean(calm, CLEAN).bars
    move(calm, 1 / shares)
    calm.loc[AT:, "volume"] *= shares
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    stands = events[events["status"] == "confirmed"]
    assert kinds(stands) == [(calm["date"][AT], "split")]
    assert stands["price_ratio"].tolist() == [pytest.approx(ratio)]
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
    whole = clean(calm, CLEAN).bars
    for at, shares in ((100, 2), (200, 3)):
        calm.loc[at:, PRICES] /= shares
        calm.loc[at:, "volume"] *= shares
    bars, _, events = cleaned(calm)
    assert events["kind"].tolist() == ["split", "split"]
    assert bars["share_factor"].tolist() == pytest.approx([1.0] * 100 + [2.0] * 100 + [6.0] * 100)
    np.testing.assert_allclose(on_last_basis(bars)[PRICES], whole[PRICES] / 6, rtol=1e-12)


def test_a_split_whose_own_bar_is_refused_steps_at_the_next(calm):
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    calm.loc[AT, "close"] = np.nan
    bars, _, events = cleaned(calm)
    assert kinds(events) == [(calm["date"][AT + 1], "split")]
    assert bars["share_factor"].tolist() == pytest.approx([1.0] * AT + [2.0] * (299 - AT))


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
    features = compute(cleaned(calm)[0])
    alone = compute(cleaned(calm)[0][AT:].reset_index(drop=True))
    pd.testing.assert_frame_equal(features[AT:].reset_index(drop=True), alone)
    assert np.isnan(features["daily_return"][AT])


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_earnings_stay_a_return(calm, ratio):
    earnings(calm, ratio)
    bars, quarantine, events = cleaned(calm)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "jump")]
    assert (bars["segment"] == 0).all()
    assert (bars["price_factor"] == 1).all()


def test_the_evidence_of_an_event_is_what_was_measured(calm):
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    split = cleaned(calm)[2].iloc[0]
    assert split["told_by"] == "prices"
    assert split["close_before"] == calm["close"][AT - 1]
    assert split["move"] == pytest.approx(np.log(calm["close"][AT] / calm["close"][AT - 1]))
    usual = calm["volume"][AT - 20 : AT].median()
    assert split["shares"] == pytest.approx(calm["volume"][AT] / usual, rel=0.3)


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


def test_an_adjusted_close_that_misses_a_split_is_found_out(calm):
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    bars, _, events = cleaned(calm.assign(adj_close=calm["close"]))
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert events["told_by"].tolist() == ["prices"]
    assert on_last_basis(bars)["close"].pct_change().abs().max() < 0.05


def test_an_adjusted_close_with_a_split_that_never_was_is_not_believed(calm):
    factor = np.where(np.arange(300) < AT, 0.5, 1.0)
    bars, _, events = cleaned(calm.assign(adj_close=calm["close"] * factor))
    assert kinds(events) == [(calm["date"][AT], "bad_adjustment")]
    np.testing.assert_allclose(on_last_basis(bars)["close"], calm["close"])


def test_a_split_that_the_adjusted_close_knows_is_an_event_once(calm):
    adjusted = calm["close"].copy()
    move(calm, 0.5)
    calm.loc[AT:, "volume"] *= 2
    bars, _, events = cleaned(calm.assign(adj_close=adjusted))
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert events["told_by"].tolist() == ["adjusted_close"]
    np.testing.assert_allclose(on_last_basis(bars)["close"], adjusted / 2)
