"""What is clean of the first sessions does not depend on later ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.faulty_bars import AT, CLEAN, PRICES

from pitwise.cleaning.clean import clean
from pitwise.simulation.market import SyntheticParams, synthetic_market

FAULTS = {"split": 4, "spin_off": 2, "jump": 2, "bad_print": 3, "scale_error": 2, "stale": 3, "gap": 1}
FAULTS |= {"duplicate": 2, "conflicting_duplicate": 2, "absurd_volume": 2}


def market(seed: int, vendor: bool) -> pd.DataFrame:
    raw = synthetic_market(
        SyntheticParams(symbols=6, start="2012-01-03", sessions=260, seed=seed, signal=0, faults=FAULTS)
    ).bars
    rng = np.random.default_rng(seed)
    silent = (raw["symbol"] == "SYN2") & raw["date"].between("2012-04-02", "2012-07-20")
    raw = raw[~silent].reset_index(drop=True)
    if vendor:  # dividends, splits and errors of a vendor, at random
        ratio = rng.choice(
            [1.0, 1.01, 2.0, 1.25, 1.43, 0.7], len(raw), p=[0.97, 0.01, 0.005] + [0.005] * 3
        )
        raw["adj_close"] = (raw["close"] * ratio.cumprod()).where(rng.random(len(raw)) > 0.01)
        wrong = rng.random(len(raw)) < 0.01
        raw.loc[wrong, ["high", "close"]] *= 1.4
        raw.loc[rng.random(len(raw)) < 0.05, PRICES] *= 2  # whole bars, and right again at the next
    return raw


@pytest.mark.parametrize("verdicts", ["off", "look_back"])
@given(seed=st.integers(0, 1000), vendor=st.booleans(), share=st.floats(0.1, 0.95))
@settings(max_examples=15, deadline=None)
def test_the_first_sessions_are_cleaned_as_if_there_were_no_others(verdicts, seed, vendor, share):
    raw = market(seed, vendor)
    params = CLEAN.model_copy(update={"verdicts": verdicts, "min_history": 1})
    days = np.sort(raw["date"].unique())
    until = days[int(share * len(days))]
    whole = clean(raw, params)
    early = clean(raw[raw["date"] <= until], params)
    for of_all, alone in zip(whole[:2], early[:2], strict=True):
        first = of_all[of_all["date"] <= until].reset_index(drop=True)
        pd.testing.assert_frame_equal(first, alone, check_exact=True)


def test_a_symbol_has_no_clean_bars_before_its_least_history(calm):
    params = CLEAN.model_copy(update={"verdicts": "look_back"})
    other = calm[100:].assign(symbol="ZZZ")
    raw = pd.concat([calm, other], ignore_index=True)
    days = calm["date"]
    assert set(clean(raw[raw["date"] <= days[178]], params).bars["symbol"]) == {calm["symbol"][0]}
    bars = clean(raw[raw["date"] <= days[179]], params).bars
    assert (bars["symbol"] == "ZZZ").sum() == 80


def test_looking_back_the_third_repeat_is_stale_and_the_first_two_are_not(calm):
    calm.loc[AT + 1 : AT + 4, PRICES] = calm.loc[AT, PRICES].to_numpy(float)
    params = CLEAN.model_copy(update={"verdicts": "look_back"})
    quarantine = clean(calm, params).quarantine
    assert quarantine["date"].tolist() == [calm["date"][AT + 3], calm["date"][AT + 4]]
    assert set(quarantine["reason"]) == {"stale"}


def test_looking_back_an_absence_of_a_quarter_breaks_the_history_and_off_does_not(calm):
    gone = calm.drop(index=range(AT, AT + 60)).reset_index(drop=True)
    for verdicts, last in (("off", 0), ("look_back", 1)):
        bars = clean(gone, CLEAN.model_copy(update={"verdicts": verdicts})).bars
        assert bars["segment"].tolist() == [0] * AT + [last] * 90


@pytest.mark.parametrize("verdicts", ["off", "look_back"])
def test_a_split_without_an_adjusted_close_is_left_in(calm, verdicts):
    calm.loc[AT:, PRICES] /= 2
    cleaned = clean(calm, CLEAN.model_copy(update={"verdicts": verdicts}))
    assert (cleaned.bars["price_factor"] == 1).all()
    assert cleaned.events.empty


def test_a_bar_of_a_session_that_is_not_sealed_is_judged_by_itself_alone(calm):
    last = calm["date"][299]
    calm.loc[299, PRICES] *= 100
    cleaned = clean(calm, CLEAN, unsealed=[last])
    assert cleaned.quarantine.empty
    assert cleaned.bars["price_factor"].tolist() == [1.0] * 300
    assert cleaned.events.empty
    assert clean(calm, CLEAN).events["kind"].tolist() == ["split"]


def test_a_bar_that_is_not_sealed_has_no_part_in_the_verdict_on_the_one_before(calm):
    calm.loc[298, ["high", "close"]] *= 1.4
    assert clean(calm, CLEAN).quarantine["reason"].tolist() == ["bad_print"]
    assert clean(calm, CLEAN, unsealed=[calm["date"][299]]).quarantine.empty


def test_factors_and_segment_are_carried_on_to_a_bar_that_is_not_sealed(calm):
    adjusted = calm["close"].copy()
    calm.loc[AT:, PRICES] /= 2
    calm.loc[AT:, "volume"] *= 2
    calm.loc[299, ["open", "high", "low", "close"]] /= 3
    raw = calm.assign(adj_close=adjusted)
    bars = clean(raw, CLEAN, unsealed=[calm["date"][299]]).bars
    assert bars["share_factor"].round(9).tolist() == [1.0] * AT + [2.0] * (299 - AT) + [6.0]


def test_a_bar_is_judged_by_whether_its_session_was_over_when_it_became_known(calm):
    close = pd.Timestamp("2014-01-02 21:00", tz="UTC")
    calm["known_at"] = pd.Timestamp("2020-01-01", tz="UTC")
    calm.loc[0, "known_at"] = close - pd.Timedelta("1us")
    assert clean(calm, CLEAN).quarantine["reason"].tolist() == ["not_a_session"]
    calm.loc[0, "known_at"] = close
    assert clean(calm, CLEAN).quarantine.empty


@pytest.mark.parametrize("verdicts", ["off", "look_back"])
def test_a_step_that_is_taken_back_later_is_judged_as_it_was_before_that(calm, verdicts):
    raw = calm.assign(adj_close=calm["close"])
    raw.loc[AT, PRICES] *= 2  # as a split 1:2, until the next bar
    bars = clean(raw, CLEAN.model_copy(update={"verdicts": verdicts})).bars
    assert bars["price_factor"].tolist() == [1.0] * AT + [0.5] + [1.0] * (299 - AT)
    assert bars["share_factor"].tolist() == bars["price_factor"].tolist()
