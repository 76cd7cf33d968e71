"""Prices and volumes that nobody traded, each planted by hand in one calm stock."""

import pytest
from support import markets
from support.faulty_bars import AT, PRICES, cleaned, kinds, quarantined

from pitwise.bars.schema import COLUMNS


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
    panic = markets.bars(40, 200, seed=3)[COLUMNS]
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
