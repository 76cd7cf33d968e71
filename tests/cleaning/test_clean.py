from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaError
from support import markets
from support.faulty_bars import CLEAN, FAULTS, raw
from support.project import with_params

from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import bar_versions, write_versions
from pitwise.cleaning import __main__ as stage
from pitwise.cleaning import groups
from pitwise.cleaning.as_of import history
from pitwise.cleaning.by_shard import write_clean
from pitwise.cleaning.clean import CLEAN_SCHEMA, clean
from pitwise.engine import EngineParams
from pitwise.errors import DataError
from pitwise.simulation.market import SyntheticParams, synthetic_market
from pitwise.workspace import Workspace, read_json, read_parquet

PARAMS = CLEAN.model_copy(update={"min_history": 1})
SEGMENT = np.int32(0)
ALONE = EngineParams(kind="local", n_jobs=1, address=None)


def test_too_little_history_counts_only_good_rows():
    long = markets.bars(2, 10, seed=0)[COLUMNS]
    long.loc[long.index[-1], "close"] = -1.0
    bars, quarantine, _ = clean(long, CLEAN.model_copy(update={"min_history": 10}))
    assert bars["symbol"].value_counts().to_dict() == {"S000": 10}
    assert quarantine["reason"].value_counts().to_dict() == {"too_little_history": 9, "non_positive": 1}
    assert len(clean(long, CLEAN.model_copy(update={"min_history": 9}))[0]) == 19


@pytest.mark.parametrize("frame", [raw({"close": 0.0}, {"volume": -1.0}), raw({}), raw({}).head(0)])
def test_nothing_left_is_an_error_with_the_counts_of_its_reasons(frame):
    with pytest.raises(DataError, match=r"no row is left.*clean\.min_history") as caught:
        clean(frame, CLEAN.model_copy(update={"min_history": 2}))
    counts = {"non_positive", "negative_volume"} if len(frame) == 2 else {"too_little_history"}
    assert frame.empty or all(reason in str(caught.value) for reason in counts)


def test_clean_bars_are_sorted_typed_and_on_a_fresh_index():
    market = markets.bars(3, 20, seed=1)[COLUMNS]
    shuffled = market.sample(frac=1, random_state=0).astype({"date": "datetime64[ns]"})
    bars, _, _ = clean(shuffled, PARAMS)
    CLEAN_SCHEMA.validate(bars)
    pd.testing.assert_frame_equal(
        bars, market.assign(price_factor=1.0, share_factor=1.0, segment=SEGMENT)
    )


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([0, 2, 1, 3], id="a date before the one above"),
        pytest.param([0, 1, 1, 2], id="a session twice"),
        pytest.param([3, 4, 5, 0], id="a symbol before the one above"),
        pytest.param([0, 3, 1, 4], id="symbols mixed"),
    ],
)
def test_clean_bars_out_of_order_are_refused(rows):
    bars, _, _ = clean(markets.bars(2, 3, seed=1)[COLUMNS], PARAMS)
    CLEAN_SCHEMA.validate(bars)
    with pytest.raises(SchemaError, match="sorted by symbol and date, each session of a symbol once"):
        CLEAN_SCHEMA.validate(bars.iloc[rows].reset_index(drop=True))


def test_clean_bars_of_no_symbol_are_refused():
    bars, _, _ = clean(markets.bars(2, 3, seed=1)[COLUMNS], PARAMS)
    nameless = bars.assign(symbol=bars["symbol"].mask(bars["symbol"] == "S000", ""))
    with pytest.raises(SchemaError, match=r"'symbol'.*is not empty"):
        CLEAN_SCHEMA.validate(nameless)


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
    market = markets.bars(4, 15, seed)[COLUMNS]
    frame = market.sample(frac=1, random_state=seed).reset_index(drop=True)
    for row, corruption in corruptions:
        for column, value in corruption.items():
            frame.loc[row, column] = value
    reasons = pd.Series(slow_reasons(frame, min_history))
    # A bar moved to another day may look like an event or a copy, which this test is not about.
    params = CLEAN.model_copy(update={"min_history": min_history, "verdicts": "off"})
    if (reasons != "").all():
        with pytest.raises(DataError):
            clean(frame, params)
        return
    bars, quarantine, _ = clean(frame, params)
    CLEAN_SCHEMA.validate(bars)
    assert len(bars) + len(quarantine) == len(frame)
    since = quarantine.pop("since")
    pd.testing.assert_series_equal(
        since, session_close(quarantine["date"]), check_names=False, check_dtype=False
    )
    expected = frame.assign(reason=reasons)[reasons != ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(quarantine, expected, check_dtype=False)
    kept = frame[reasons == ""].sort_values(["symbol", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(bars, kept.assign(price_factor=1.0, share_factor=1.0, segment=SEGMENT))


@pytest.mark.parametrize("verdicts", ["all", "off"])
@given(seed=st.integers(0, 1000), group=st.integers(1, 5000), vendor=st.booleans())
@settings(max_examples=5, deadline=None)
def test_it_does_not_matter_how_many_symbols_are_cleaned_at_a_time(verdicts, seed, group, vendor):
    planted = {"split": 8, "spin_off": 6, "bad_print": 10, "scale_error": 3, "stale": 3, "gap": 2}
    planted |= {"absurd_volume": 3, "duplicate": 2, "conflicting_duplicate": 2}
    raw = synthetic_market(
        SyntheticParams(
            symbols=24, start="2012-01-03", sessions=200, seed=seed, signal=0, faults=planted
        )
    ).bars
    raw = raw.sample(frac=0.98, random_state=seed, ignore_index=True)
    raw.loc[[5, 6], ["symbol", "date"]] = [[None, raw["date"][5]], [raw["symbol"][6], None]]
    if vendor:
        steps = np.random.default_rng(seed).choice([1.0, 1.01, 2.0], len(raw), p=[0.99, 0.008, 0.002])
        raw["adj_close"] = raw["close"] * steps
    params = CLEAN.model_copy(update={"verdicts": verdicts, "min_history": 160})
    unsealed = [raw["date"].max()]
    with pytest.MonkeyPatch.context() as patch:
        whole = clean(raw, params, unsealed=unsealed)
        patch.setattr(groups, "GROUP", group)
        parts = clean(raw, params, unsealed=unsealed)
    for table, same in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(table, same, check_exact=True)
    assert verdicts != "all" or vendor or {"bad_print", "split"} < set(whole.events["kind"])


@pytest.mark.parametrize("verdicts", ["all", "off"])
def test_it_does_not_matter_how_many_symbols_are_in_a_shard(tmp_path, verdicts):
    planted = {"split": 8, "bad_print": 10, "stale": 3, "gap": 2, "conflicting_duplicate": 2}
    first = synthetic_market(
        SyntheticParams(symbols=24, start="2012-01-03", sessions=100, seed=3, signal=0, faults=planted)
    ).bars
    bare = first.iloc[[1500, 1600, 30]].copy()
    bare.loc[bare.index[:2], "symbol"], bare.loc[bare.index[2], "date"] = None, None
    paid = (first["symbol"] == first["symbol"].iat[-1]) & (first["date"] < "2012-04-02")
    first["adj_close"] = first["close"].where(~paid, 0.98 * first["close"])
    later = first.iloc[[90, 2000]].assign(close=lambda bars: bars["low"])
    closed = session_close(first["date"]).max()
    versions = bar_versions(
        [
            Landing(pd.concat([first, bare]), "csv", closed, history="assumed"),
            Landing(later, "csv", closed + pd.Timedelta(days=1)),
        ],
        0.95,
    )
    params = CLEAN.model_copy(update={"verdicts": verdicts, "min_history": 80})
    whole, parts = Workspace(tmp_path / "whole"), Workspace(tmp_path / "parts")
    reports = []
    for workspace, rows in ((whole, 10**6), (parts, 1000)):
        write_versions(workspace, versions)
        reports.append(write_clean(workspace, params, ALONE, rows))
    assert reports[0] == reports[1]
    outputs = sorted(path.name for path in whole.clean_bars.parent.iterdir())
    assert outputs == sorted(path.name for path in parts.clean_bars.parent.iterdir())
    for name in outputs:
        one, other = (read_parquet(w.clean_bars.with_name(name)) for w in (whole, parts))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    told, market = history(versions, params), read_parquet(whole.market)
    pd.testing.assert_frame_equal(read_parquet(parts.clean_bars), told.cleaned.bars, check_exact=True)
    pd.testing.assert_frame_equal(read_parquet(parts.quarantine), told.cleaned.quarantine)
    pd.testing.assert_frame_equal(read_parquet(parts.events), told.cleaned.events.reset_index(drop=True))
    pd.testing.assert_frame_equal(read_parquet(parts.changes), told.changes)
    assert len(told.changes) >= 2
    assert reports[0]["quarantined_by_reason"]["missing"] == 3
    assert (verdicts == "all") == (len(market) > 0)


def test_the_stage_accounts_for_every_row(tmp_path, capsys):
    params = CLEAN.model_dump(mode="json") | {"min_history": 2}
    workspace = with_params(tmp_path, clean=params, engine=ALONE.model_dump())
    next_day = {"date": pd.Timestamp("2014-01-03"), "open": 11.0, "high": 11.5, "low": 10.5}
    frame = raw({}, next_day, {"symbol": "BBB"}, {"high": 1.0})
    known = pd.Timestamp("2014-02-03", tz="UTC")
    landing = Landing(frame, "csv", known, "traded", "assumed", covers={})
    write_versions(workspace, bar_versions([landing], seal_coverage=0.5))
    stage.main(workspace)
    assert len(read_parquet(workspace.clean_bars)) == 2
    reasons = read_parquet(workspace.quarantine)["reason"].tolist()
    assert reasons == ["high_below_low", "too_little_history"]
    report = read_json(workspace.clean_report)
    assert report["rows_in"] == 4 == report["rows_clean"] + report["rows_quarantined"]
    assert report["quarantined_by_reason"] == {"high_below_low": 1, "too_little_history": 1}
    assert (report["first_session"], report["last_session"]) == ("2014-01-02", "2014-01-03")
    assert capsys.readouterr().out == "4 rows in = 2 clean + 2 quarantined\n"
