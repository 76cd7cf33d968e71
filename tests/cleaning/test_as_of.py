import pandas as pd
import pytest
from support.faulty_bars import AT, CLEAN, PRICES, kinds

from pitwise.cleaning.as_of import cleaned_again
from pitwise.cleaning.clean import clean


def planted(calm: pd.DataFrame) -> pd.DataFrame:
    """A bad print, a split and a spin-off, 60 sessions apart."""
    calm.loc[AT, ["high", "close"]] *= 1.4
    calm.loc[AT + 60 :, PRICES] /= 2
    calm.loc[AT + 60 :, "volume"] *= 2
    calm.loc[AT + 120 :, PRICES] *= 0.7
    calm.loc[AT + 120 : AT + 121, "volume"] *= 2
    return calm


def test_the_same_past_is_cleaned_to_the_same_bars(calm):
    raw = planted(calm)
    now = clean(raw, CLEAN)
    assert [kind for _, kind in kinds(now.events)] == ["bad_print", "split", "spin_off"]
    pd.testing.assert_frame_equal(cleaned_again(raw, now, CLEAN), now.bars)


def test_a_verdict_is_on_a_rows_values_and_an_event_on_its_date(calm):
    raw = planted(calm)
    now = clean(raw, CLEAN)
    corrected = raw.copy()
    corrected.loc[AT, ["high", "close"]] /= 1.4
    corrected = corrected.drop(index=[3, AT + 60]).reset_index(drop=True)
    bars = cleaned_again(corrected, now, CLEAN)
    assert len(bars) == 298
    split = bars["date"].tolist().index(raw["date"][AT + 61])
    assert bars["price_factor"].tolist() == [1.0] * split + [2.0] * (298 - split)
    assert bars["share_factor"].tolist() == bars["price_factor"].tolist()
    part = bars["date"].tolist().index(raw["date"][AT + 120])
    assert bars["segment"].tolist() == [0] * part + [1] * (298 - part)


def test_a_past_shorter_than_the_least_history_has_no_bars(calm):
    now = clean(calm, CLEAN)
    assert cleaned_again(calm[:79], now, CLEAN).empty
    assert len(cleaned_again(calm[:80], now, CLEAN)) == 80


@pytest.mark.parametrize("verdicts", ["off", "look_back"])
def test_verdicts_that_look_back_are_given_anew(calm, verdicts):
    params = CLEAN.model_copy(update={"verdicts": verdicts})
    raw = planted(calm)
    now = clean(raw, params)
    early = cleaned_again(raw[:200], now, params)
    pd.testing.assert_frame_equal(early, clean(raw[:200], params).bars)


def test_a_split_that_the_vendor_counts_is_counted_once(calm):
    adjusted = calm["close"] / 2
    calm.loc[AT:, PRICES] /= 2
    calm.loc[AT:, "volume"] *= 2
    raw = calm.assign(adj_close=adjusted)
    now = clean(raw, CLEAN)
    bars = cleaned_again(raw, now, CLEAN)
    assert bars["share_factor"].round(9).tolist() == [1.0] * AT + [2.0] * (300 - AT)
    ignorant = raw.assign(adj_close=raw["close"])
    bars = cleaned_again(ignorant, now, CLEAN)
    assert bars["share_factor"].round(9).tolist() == [1.0] * AT + [2.0] * (300 - AT)
