import json
from collections import Counter
from pathlib import Path

import markets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.artifacts import write_parquet
from feature_repo.clean import CHECKS, CLEAN_SCHEMA, CleanParams, clean, main
from feature_repo.errors import DataError
from feature_repo.stage import load_params

PROJECT = load_params("clean", CleanParams)
PARAMS = PROJECT.model_copy(update={"min_history": 1})
SEGMENT = np.int32(0)
GOOD = {
    "symbol": "AAA",
    "date": pd.Timestamp("2014-01-02"),
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 100.0,
}


def raw(*changes: dict) -> pd.DataFrame:
    frame = pd.DataFrame([GOOD | change for change in changes])
    return frame.astype({"symbol": "string", "date": "datetime64[ns]"})


FAULTS = [
    ({"symbol": None}, "missing"),
    ({"date": pd.NaT}, "missing"),
    ({"open": np.nan}, "missing"),
    ({"high": np.nan}, "missing"),
    ({"low": np.nan}, "missing"),
    ({"close": np.nan}, "missing"),
    ({"volume": np.nan}, "missing"),
    ({"date": pd.Timestamp("2014-12-25")}, "not_a_session"),
    ({"date": pd.Timestamp("2014-01-04")}, "not_a_session"),
    ({"date": pd.Timestamp("2014-01-02 16:00")}, "not_a_session"),
    ({"open": 0.0}, "non_positive"),
    ({"low": 0.0}, "non_positive"),
    ({"close": -11.0}, "non_positive"),
    ({"high": np.inf}, "non_positive"),
    ({"volume": -1.0}, "negative_volume"),
    ({"high": 8.0}, "high_below_low"),
    ({"open": 12.01}, "open_outside_range"),
    ({"open": 8.99}, "open_outside_range"),
    ({"close": 12.01}, "close_outside_range"),
    ({"close": 8.99}, "close_outside_range"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_faulty_row_goes_to_quarantine_under_its_checks_name(fault, reason):
    bad = {"date": pd.Timestamp("2014-01-03")} | fault
    bars, quarantine, _ = clean(raw({}, bad), PARAMS)
    assert bars["date"].tolist() == [GOOD["date"]]
    assert quarantine["reason"].tolist() == [reason]
    pd.testing.assert_frame_equal(quarantine.drop(columns="reason"), raw(bad))


def test_a_blank_symbol_is_missing():
    bars, quarantine, _ = clean(raw({}, {"symbol": ""}), PARAMS)
    assert bars["symbol"].tolist() == ["AAA"]
    assert quarantine["reason"].tolist() == ["missing"]


def test_every_named_check_has_a_faulty_row_here():
    assert set(CHECKS) - {"duplicate", "conflicting_duplicate"} == {reason for _, reason in FAULTS}


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
    reasons = clean(frame, PARAMS)[1]["reason"].tolist()
    assert reasons == ["missing", "not_a_session", "non_positive", "high_below_low"]


def test_of_identical_rows_the_first_is_kept():
    frame = raw({"close": 99.0}, {"close": 10.5}, {"close": 10.5}, {"close": 10.5}, {"symbol": "BBB"})
    bars, quarantine, _ = clean(frame, PARAMS)
    assert bars[["symbol", "close"]].values.tolist() == [["AAA", 10.5], ["BBB", 11.0]]
    assert quarantine["reason"].tolist() == ["close_outside_range", "duplicate", "duplicate"]


def test_of_good_rows_that_contradict_each_other_none_is_kept():
    frame = raw({"close": 10.5}, {"close": 11.5}, {"close": 10.5}, {"symbol": "BBB"})
    bars, quarantine, _ = clean(frame, PARAMS)
    assert bars["symbol"].tolist() == ["BBB"]
    reasons = ["conflicting_duplicate", "conflicting_duplicate", "duplicate"]
    assert quarantine["reason"].tolist() == reasons


def test_too_little_history_counts_only_good_rows():
    long = markets.bars(2, 10, seed=0).drop(columns=["price_factor", "segment"])
    long.loc[long.index[-1], "close"] = -1.0
    bars, quarantine, _ = clean(long, PROJECT.model_copy(update={"min_history": 10}))
    assert bars["symbol"].value_counts().to_dict() == {"S000": 10}
    assert quarantine["reason"].value_counts().to_dict() == {"too_little_history": 9, "non_positive": 1}
    assert len(clean(long, PROJECT.model_copy(update={"min_history": 9}))[0]) == 19


@pytest.mark.parametrize("frame", [raw({"close": 0.0}, {"volume": -1.0}), raw({}), raw({}).head(0)])
def test_nothing_left_is_an_error_that_says_why(frame):
    with pytest.raises(DataError, match=r"no row is left.*clean\.min_history") as caught:
        clean(frame, PROJECT.model_copy(update={"min_history": 2}))
    counts = {"non_positive", "negative_volume"} if len(frame) == 2 else {"too_little_history"}
    assert frame.empty or all(reason in str(caught.value) for reason in counts)


def test_clean_bars_are_sorted_typed_and_on_a_fresh_index():
    market = markets.bars(3, 20, seed=1).drop(columns=["price_factor", "segment"])
    shuffled = market.sample(frac=1, random_state=0).astype({"date": "datetime64[ns]"})
    bars, _, _ = clean(shuffled, PARAMS)
    CLEAN_SCHEMA.validate(bars)
    pd.testing.assert_frame_equal(bars, market.assign(price_factor=1.0, segment=SEGMENT))


CORRUPTIONS = [
    *(fault for fault, _ in FAULTS),
    {"date": pd.Timestamp("2014-01-06")},
    {"close": 1e9},
]


def slow_reasons(frame: pd.DataFrame, min_history: int) -> list[str]:
    """The reasons, row by row as a person would find them."""
    reasons, seen = [], {}
    holidays = {pd.Timestamp("2014-12-25"), pd.Timestamp("2014-01-04"), pd.Timestamp("2014-01-02 16:00")}
    for row in frame.to_dict("records"):
        prices = [row[name] for name in ("open", "high", "low", "close")]
        key = (row["symbol"], row["date"])
        if any(pd.isna(value) for value in row.values()):
            reason = "missing"
        elif row["date"] in holidays:
            reason = "not_a_session"
        elif min(prices) <= 0 or max(prices) == np.inf:
            reason = "non_positive"
        elif row["volume"] < 0:
            reason = "negative_volume"
        elif row["high"] < row["low"]:
            reason = "high_below_low"
        elif not row["low"] <= row["open"] <= row["high"]:
            reason = "open_outside_range"
        elif not row["low"] <= row["close"] <= row["high"]:
            reason = "close_outside_range"
        elif row in seen.setdefault(key, []):
            reason = "duplicate"
        else:
            reason = ""
            seen[key].append(row)
        reasons.append(reason)
    history = Counter()
    for i, row in enumerate(frame.to_dict("records")):
        if reasons[i] == "":
            if len(seen[row["symbol"], row["date"]]) > 1:
                reasons[i] = "conflicting_duplicate"
            else:
                history[row["symbol"]] += 1
    short = {symbol for symbol, count in history.items() if count < min_history}
    return [
        "too_little_history" if r == "" and s in short else r
        for r, s in zip(reasons, frame["symbol"], strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    corruptions=st.lists(
        st.tuples(st.integers(0, 59), st.sampled_from(CORRUPTIONS)), min_size=3, max_size=30
    ),
    min_history=st.integers(1, 13),
)
def test_no_row_is_lost_and_each_has_the_reason_a_slow_reader_finds(seed, corruptions, min_history):
    market = markets.bars(4, 15, seed).drop(columns=["price_factor", "segment"])
    frame = market.sample(frac=1, random_state=seed).reset_index(drop=True)
    for row, corruption in corruptions:
        for column, value in corruption.items():
            frame.loc[row, column] = value
    reasons = pd.Series(slow_reasons(frame, min_history))
    # A bar moved to another day may look like an event, which is not what this test is about.
    params = PROJECT.model_copy(
        update={
            "min_history": min_history,
            "glitches": PROJECT.glitches.model_copy(update={"min_move": 50.0}),
            "actions": PROJECT.actions.model_copy(update={"min_move": 50.0}),
        }
    )
    if (reasons != "").all():
        with pytest.raises(DataError):
            clean(frame, params)
        return
    bars, quarantine, _ = clean(frame, params)
    CLEAN_SCHEMA.validate(bars)
    assert len(bars) + len(quarantine) == len(frame)
    expected = frame.assign(reason=reasons)[reasons != ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(quarantine, expected, check_dtype=False)
    kept = frame[reasons == ""].sort_values(["symbol", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(bars, kept.assign(price_factor=1.0, segment=SEGMENT))


def test_the_stage_accounts_for_every_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"clean": PROJECT.model_dump() | {"min_history": 2}})  # JSON is YAML
    Path("params.yaml").write_text(text)
    frame = raw({}, {"date": pd.Timestamp("2014-01-03")}, {"symbol": "BBB"}, {"high": 1.0})
    write_parquet(frame, Path("data/raw/bars.parquet"))
    main()
    assert len(pd.read_parquet("data/clean/bars.parquet")) == 2
    reasons = pd.read_parquet("data/clean/quarantine.parquet")["reason"].tolist()
    assert reasons == ["too_little_history", "high_below_low"]
    report = json.loads(Path("metrics/clean.json").read_text())
    assert report["rows_in"] == 4 == report["rows_clean"] + report["rows_quarantined"]
    assert report["quarantined_by_reason"] == {"high_below_low": 1, "too_little_history": 1}
    assert (report["first_session"], report["last_session"]) == ("2014-01-02", "2014-01-03")
