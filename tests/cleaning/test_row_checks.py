import numpy as np
import pandas as pd
import pytest
from support.faulty_bars import CLEAN, FAULTS, GOOD, raw

from pitwise.bars.schema import COLUMNS
from pitwise.cleaning.clean import clean
from pitwise.cleaning.row_checks import CHECKS, reasons

PARAMS = CLEAN.model_copy(update={"min_history": 1})


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_faulty_row_goes_to_quarantine_under_its_checks_name(fault, reason):
    bad = {"date": pd.Timestamp("2014-01-03")} | fault
    bars, quarantine, _ = clean(raw({}, bad), PARAMS)
    assert bars["date"].tolist() == [GOOD["date"]]
    assert quarantine["reason"].tolist() == [reason]
    pd.testing.assert_frame_equal(quarantine[COLUMNS], raw(bad))


def test_a_blank_symbol_is_missing():
    bars, quarantine, _ = clean(raw({}, {"symbol": ""}), PARAMS)
    assert bars["symbol"].tolist() == ["AAA"]
    assert quarantine["reason"].tolist() == ["missing"]


def test_every_named_check_has_a_faulty_row_here():
    assert set(CHECKS) == {reason for _, reason in FAULTS}


def test_the_bounds_themselves_are_good():
    frame = raw({"open": 9.0, "close": 12.0, "volume": 0.0}, {"date": pd.Timestamp("2014-01-03")})
    frame.loc[1, ["open", "high", "low", "close"]] = 7.0
    bars, quarantine, _ = clean(frame, PARAMS)
    assert len(bars) == 2
    assert quarantine.empty


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_an_adjusted_close_must_be_a_positive_number(value):
    frame = raw({}, {"date": pd.Timestamp("2014-01-03")}).assign(adj_close=[11.0, value])
    assert clean(frame, PARAMS)[1]["reason"].tolist() == ["non_positive"]


def test_a_missing_adjusted_close_is_missing():
    frame = raw({}, {"date": pd.Timestamp("2014-01-03")}).assign(adj_close=[11.0, np.nan])
    assert clean(frame, PARAMS)[1]["reason"].tolist() == ["missing"]


def test_a_row_that_fails_several_checks_has_the_first_as_its_reason():
    all_faults = {"high": -1.0, "volume": -1.0, "date": pd.Timestamp("2014-12-25")}
    holiday = {"date": pd.Timestamp("2014-12-25"), "low": 0.0}
    crossed = {"date": pd.Timestamp("2014-01-03"), "high": 8.0, "open": 99.0}
    frame = raw({}, all_faults | {"open": np.nan}, holiday, {"low": 0.0, "volume": -1.0}, crossed)
    found = clean(frame, PARAMS)[1]["reason"].tolist()
    assert found == ["missing", "not_a_session", "non_positive", "high_below_low"]


def test_of_identical_rows_the_first_is_kept():
    frame = raw({"close": 99.0}, {"close": 10.5}, {"close": 10.5}, {"close": 10.5}, {"symbol": "BBB"})
    bars, quarantine, _ = clean(frame, PARAMS)
    assert bars[["symbol", "close"]].values.tolist() == [["AAA", 10.5], ["BBB", 11.0]]
    assert quarantine["reason"].tolist() == ["close_outside_range", "duplicate", "duplicate"]


def test_of_good_rows_that_contradict_each_other_none_is_kept():
    frame = raw({"close": 10.5}, {"close": 11.5}, {"close": 10.5}, {"symbol": "BBB"})
    bars, quarantine, _ = clean(frame, PARAMS)
    assert bars["symbol"].tolist() == ["BBB"]
    expected = ["conflicting_duplicate", "conflicting_duplicate", "duplicate"]
    assert quarantine["reason"].tolist() == expected


def test_a_bar_beside_a_faulty_one_of_its_session_is_no_duplicate():
    frame = raw({"close": 10.5}, {"close": 99.0}, {"symbol": "BBB", "low": -1.0}, {"symbol": "BBB"})
    assert reasons(frame).tolist() == ["", "close_outside_range", "non_positive", ""]


def test_bars_of_days_without_a_session_are_refused_whatever_became_known_when():
    known = pd.Series(pd.to_datetime(["2014-01-02 20:59", "2014-01-02 21:00"] * 2, utc=True))
    days = pd.to_datetime(["2014-01-02", "2014-01-02", "2014-01-01", "2013-12-28"])
    frame = raw({}, {"symbol": "BBB"}, {"symbol": "CCC"}, {"symbol": "DDD"})
    frame = frame.assign(date=days.astype("datetime64[us]"), known_at=known)
    assert reasons(frame).tolist() == ["not_a_session", "", "not_a_session", "not_a_session"]
    assert reasons(frame.iloc[2:]).tolist() == ["not_a_session"] * 2
    assert reasons(frame.iloc[:0]).tolist() == []


def test_each_row_has_the_reason_that_cleaning_quarantines_it_for():
    frame = raw({}, {"high": 8.0}, {"symbol": "BBB"}, {"symbol": "BBB"}).set_index(
        pd.Index([7, 3, 5, 9])
    )
    found = reasons(frame)
    assert found.to_dict() == {7: "", 3: "high_below_low", 5: "", 9: "duplicate"}
    assert clean(frame, PARAMS)[1]["reason"].tolist() == ["high_below_low", "duplicate"]
