"""Two sources against each other: figures by hand, the command, and the two vendors of the S&P 500."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.report_pages import Reader
from support.workspaces import Run, new_run
from typer.testing import CliRunner, Result

from pitwise import cli, pipeline
from pitwise.bars.landing import Landing
from pitwise.bars.reconciliation import by_session, by_symbol, reconciled
from pitwise.bars.versions import bar_versions, write_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.errors import DataError, ParamsError, PitwiseError
from pitwise.reconcile import (
    PAGE,
    REPORT,
    TABLE,
    judged_by_the_other,
    read_side,
    reconcile,
    reference_of,
)
from pitwise.stage import load_params
from pitwise.workspace import Workspace, write_parquet

# The first sessions of 2016: 4 to 8, 11 to 15, 19 to 22, 25 to 29 January. The 18th is a holiday.
DAYS = pd.DatetimeIndex(
    [f"2016-01-{d:02d}" for d in (4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 19, 20, 21, 22, 25, 26, 27, 28, 29)]
)
EVIL = "<I>MARKUP"
VENDORS = [os.environ.get(name, "") for name in ("PITWISE_SP500_CSV", "PITWISE_SECOND_VENDOR_CSV")]


def source(symbol: str = "A", level: float = 100.0) -> pd.DataFrame:
    """19 bars whose close goes 100, 101, 100, 101 ...; open 99.5, high 102, low 99; times level/100."""
    close = np.where(np.arange(len(DAYS)) % 2, 101.0, 100.0)
    bars = pd.DataFrame({"symbol": symbol, "date": DAYS, "open": 99.5, "high": 102.0, "low": 99.0})
    bars = bars.assign(close=close, volume=1000.0 + np.arange(len(DAYS)))
    # No two sessions have the same three prices.
    bars["high"] += np.arange(len(DAYS)) * 0.01
    prices = ["open", "high", "low", "close"]
    return bars.assign(**{name: bars[name] * level / 100 for name in prices})


def changed(bars: pd.DataFrame, row: int, **values: float) -> pd.DataFrame:
    bars = bars.copy()
    for name, value in values.items():
        bars.loc[row, name] = value
    return bars


def row(found, day: int) -> pd.Series:
    return found.bars[found.bars["date"] == DAYS[day]].iloc[0]


def test_equal_sources_agree_on_every_bar():
    found = reconciled(source(), source())
    assert found.bars["status"].tolist() == ["agree"] * 19
    assert found.bars["fault"].tolist() == [""] * 19
    assert found.steps.empty
    counts = {name: found.summary[name] for name in ("both", "agree", "differ", "only_a", "only_b")}
    assert counts == {"both": 19, "agree": 19, "differ": 0, "only_a": 0, "only_b": 0}
    assert (found.summary["returns"], found.summary["returns_equal"]) == (18, 18)


@pytest.mark.parametrize(
    ("level", "off", "status"),
    [
        (100, 0.10, "agree"),  # 0.1% of 100
        (100, 0.11, "differ"),
        (2, 0.005, "agree"),  # half a cent is more than 0.1% of 2
        (2, 0.006, "differ"),
    ],
)
def test_prices_agree_within_a_thousandth_or_half_a_cent(level, off, status):
    a = source(level=level)
    found = reconciled(changed(a, 8, close=a.loc[8, "close"] + off), a)
    assert row(found, 8)["status"] == status
    assert (found.bars["status"] == "differ").sum() == (status == "differ")


def test_the_tolerance_is_the_caller_s():
    a = source()
    assert row(reconciled(changed(a, 8, close=100.4), a, tolerance=0.005), 8)["status"] == "agree"


def test_a_constant_factor_between_the_levels_is_no_difference():
    found = reconciled(source(level=200), source(level=50))
    assert found.summary["agree"] == 19
    assert found.bars["ratio"].tolist() == pytest.approx([4.0] * 19)
    assert found.steps.empty


def test_a_step_of_the_ratio_is_a_step_with_both_dates_and_no_difference():
    """A is as traded, 200 before its split of two for one and 100 after; B has it in its prices."""
    before = source(level=200).head(9)
    found = reconciled(pd.concat([before, source().iloc[9:]]), source())
    assert found.summary["agree"] == 19
    assert len(found.steps) == 1
    step = found.steps.iloc[0]
    assert (step["symbol"], step["before"], step["date"]) == ("A", DAYS[8], DAYS[9])
    assert (step["ratio_before"], step["ratio_after"]) == pytest.approx((2.0, 1.0))
    assert step["step"] == pytest.approx(0.5)
    assert step["return_a"] == pytest.approx(np.log(101 / 200))
    assert step["return_b"] == pytest.approx(np.log(101 / 100))
    assert step["moves"] == "a"
    assert (found.summary["returns"], found.summary["returns_equal"]) == (17, 17)


def test_a_step_close_to_the_first_session_is_one_too():
    before = source(level=200).head(4)
    found = reconciled(source(), pd.concat([before, source().iloc[4:]]))
    assert found.summary["agree"] == 19
    assert found.steps[["before", "date", "moves"]].values.tolist() == [[DAYS[3], DAYS[4], "b"]]


@pytest.mark.parametrize(("wrong", "other"), [("a", "b"), ("b", "a")])
def test_a_close_that_both_neighbours_and_the_other_deny_is_a_fault(wrong, other):
    good, bad = source(), changed(source(), 8, close=120.0, high=121.0)
    found = reconciled(*((bad, good) if wrong == "a" else (good, bad)))
    assert (found.bars["status"] == "differ").sum() == 1
    bar = row(found, 8)
    assert (bar["fields"], bar["fault"], bar["told_by"]) == ("high close", wrong, "neighbours")
    assert abs(bar["difference"]) == pytest.approx(np.log(120 / 100))
    assert (bar[f"close_{wrong}"], bar[f"close_{other}"]) == (120, 100)
    assert (found.summary["returns"], found.summary["returns_equal"]) == (18, 16)
    assert found.summary["differ_by_fault"] == {wrong: 1, other: 0, "unknown": 0}
    assert found.summary["differ_by_price"] == {"open": 0, "high": 1, "low": 0, "close": 1}


def test_a_difference_that_nothing_tells_is_unknown():
    found = reconciled(changed(source(), 8, close=100.5), source())
    assert row(found, 8)[["status", "fault", "told_by"]].tolist() == ["differ", "unknown", ""]


def test_where_both_contradict_their_neighbours_it_is_unknown():
    found = reconciled(
        changed(source(), 8, close=130.0, high=131.0), changed(source(), 8, close=60.0, low=59.0)
    )
    assert row(found, 8)["fault"] == "unknown"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"close": 98.5}, "own_range"),  # below its low of 99
        ({"close": np.nan}, "missing"),
        ({"close": 0.0, "low": 0.0}, "missing"),
        ({"open": 100.2, "volume": 0.0}, "no_volume"),
        ({"open": 101.0, "close": 100.5}, "filled_open"),  # the close before
    ],
)
def test_what_a_bar_says_of_itself_tells_its_fault(values, told):
    found = reconciled(source(), changed(source(), 8, **values))
    bar = row(found, 8)
    assert (bar["status"], bar["fault"], bar["told_by"]) == ("differ", "b", told)


def test_an_open_that_is_the_close_before_tells_nothing_where_that_is_usual():
    """B opens at the close before in all of its bars; where A does not, either may be wrong."""
    a = source()
    a.loc[1:, "open"] = a["close"].shift()[1:]
    found = reconciled(changed(a, 8, open=100.3), a)
    assert row(found, 8)[["fields", "fault"]].tolist() == ["open", "unknown"]


def test_a_bar_with_another_session_s_prices_is_a_fault_and_the_one_it_copies_is_not():
    rising = source().assign(
        **{name: source()[name] + 0.3 * np.arange(19) for name in ("open", "high", "low", "close")}
    )
    of = rising.loc[15, ["open", "high", "low"]].to_dict()
    found = reconciled(changed(rising, 8, **of), changed(rising, 15, open=rising.loc[15, "open"] + 0.5))
    assert row(found, 8)[["fields", "fault", "told_by"]].tolist() == [
        "open high low",
        "a",
        "own_range copy",
    ]
    assert row(found, 15)[["fields", "fault"]].tolist() == ["open", "unknown"]


@pytest.mark.parametrize("sessions", [1, 2, 3, 4])
def test_a_fault_of_four_sessions_is_four_differences(sessions):
    short = source()
    short.loc[7 : 6 + sessions, ["open", "high", "low", "close"]] *= 10
    found = reconciled(short, source())
    differ = found.bars["status"].eq("differ").to_numpy().nonzero()[0]
    assert differ.tolist() == list(range(7, 7 + sessions))
    assert found.steps.empty


@pytest.mark.parametrize("sessions", [5, 6, 7])
def test_a_fault_of_more_is_two_steps(sessions):
    long = source()
    end = 5 + sessions
    long.loc[6:end, ["open", "high", "low", "close"]] *= 10
    found = reconciled(long, source())
    assert found.summary["agree"] == 19
    days = [[DAYS[5], DAYS[6]], [DAYS[end], DAYS[end + 1]]]
    assert found.steps[["before", "date"]].values.tolist() == days
    assert found.steps["step"].tolist() == pytest.approx([10, 0.1])


def test_bars_in_one_alone_are_counted_where_the_other_covers_the_day():
    a = source()
    b = pd.concat([source().drop([3]), source("B")], ignore_index=True)
    late = pd.concat([a, source("B").iloc[10:]], ignore_index=True)
    found = reconciled(late, b)
    alone = found.bars[found.bars["status"] != "agree"].set_index(["symbol", "date"])
    assert alone.loc[("A", DAYS[3]), ["status", "inside"]].tolist() == ["only_a", True]
    early = alone.loc["B"]
    assert early.index.tolist() == DAYS[:10].tolist()
    assert (early["status"] == "only_b").all()
    assert not early["inside"].any()
    assert (found.summary["only_a_inside"], found.summary["only_b_inside"]) == (1, 0)
    assert found.summary["only_b"] == 10


def test_a_bar_alone_that_cannot_have_been_traded_is_its_fault():
    holiday = source().iloc[[9]].assign(date=pd.Timestamp("2016-01-18"), high=103.77)
    stopped = source().iloc[[3]].assign(volume=0.0, high=103.55)
    b = source().drop([3])
    found = reconciled(pd.concat([source().drop([3]), stopped, holiday], ignore_index=True), b)
    alone = found.bars[found.bars["status"] == "only_a"]
    assert alone[["date", "fault", "told_by"]].values.tolist() == [
        [DAYS[3], "a", "no_volume"],
        [pd.Timestamp("2016-01-18"), "a", "no_session"],
    ]


def test_days_and_symbols_of_one_alone_are_not_compared():
    found = reconciled(pd.concat([source(), source("X")]), source().iloc[5:])
    assert found.summary["rows_a"] == {"rows": 38, "without_key": 0, "repeated": 0, "not_compared": 24}
    assert found.summary["symbols_only_a"] == ["X"]
    assert (found.summary["first_session"], found.summary["last_session"]) == (
        "2016-01-11",
        "2016-01-29",
    )


def test_of_a_repeated_row_the_last_counts_and_a_row_without_a_date_none():
    twice = pd.concat(
        [source().iloc[[8]].assign(close=50.0), source(), source().iloc[[8]].assign(date=pd.NaT)]
    )
    found = reconciled(twice, source())
    assert found.summary["rows_a"] == {"rows": 21, "without_key": 1, "repeated": 1, "not_compared": 0}
    assert found.summary["agree"] == 19


def test_a_class_of_shares_is_one_symbol_however_it_is_written():
    found = reconciled(source("BRK-B"), source("BRK.B"))
    assert found.summary["agree"] == 19
    assert found.bars["symbol"].unique().tolist() == ["BRK.B"]


def test_a_symbol_that_is_another_company_is_named():
    other = source().assign(
        **{
            name: source()[name] * np.exp(0.1 * np.arange(19))
            for name in ("open", "high", "low", "close")
        }
    )
    found = reconciled(pd.concat([other, source("B")]), pd.concat([source(), source("B")]))
    assert found.summary["symbols_unlike"] == ["A"]


def test_the_worst_symbols_and_sessions_come_first():
    a = pd.concat([source("A"), changed(changed(source("B"), 8, close=120), 5, close=120)])
    a = pd.concat([a, changed(source("C"), 8, close=120)], ignore_index=True)
    found = reconciled(a, pd.concat([source("A"), source("B"), source("C")]))
    symbols, sessions = by_symbol(found.bars), by_session(found.bars)
    assert symbols["symbol"].tolist() == ["B", "C", "A"]
    assert symbols["differ"].tolist() == [2, 1, 0]
    assert symbols["closes_differ"].tolist() == [2, 1, 0]
    assert symbols["agree_share"].tolist() == pytest.approx([17 / 19, 18 / 19, 1])
    assert sessions["date"].tolist()[:2] == [DAYS[8], DAYS[5]]
    assert sessions["differ"].tolist()[:3] == [2, 1, 0]


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (source("X"), "no symbol in common: A has A, B has X"),
        (source().assign(date=DAYS + pd.Timedelta(365, "D")), "no day in common"),
        (source().assign(symbol=pd.NA), "no row with a symbol"),
        (source().head(0), "no row with a symbol"),
    ],
)
def test_sources_with_nothing_in_common_are_an_error(b, said):
    with pytest.raises(DataError, match=said):
        reconciled(source(), b)


def test_one_common_bar_is_compared_as_it_is():
    found = reconciled(source().head(1), source().head(1))
    assert found.summary["agree"] == 1


def test_what_the_other_says_of_the_rows_that_the_cleaning_judged():
    a = changed(changed(source(), 8, close=120.0, high=121.0), 5, close=100.5)
    found = reconciled(a, source().drop([12]))
    reasons = {3: "bad_print", 8: "", 5: "bad_print", 12: "stale"}
    judged = a[["symbol", "date"]].assign(reason=[reasons.get(i, "") for i in range(19)])
    said = judged_by_the_other(found.bars, judged, "a")
    assert len(said) == 19
    by_row = dict(zip(said["date"], said["other"], strict=True))
    assert [by_row[DAYS[i]] for i in (3, 8, 5, 12, 0)] == [
        *("confirmed", "denied", "disputed", "absent", "confirmed"),
    ]


def workspace_of(folder: Path, bars: pd.DataFrame) -> Run:
    """A workspace with bars, of which row 3 is set aside and the rest is clean."""
    run = new_run(folder)
    now = pd.Timestamp("2016-02-01 22:00", tz="UTC")
    write_versions(run.workspace, bar_versions([Landing(bars, "csv", now)], seal_coverage=0.95))
    write_parquet(bars.drop([3])[["symbol", "date"]], run.workspace.clean_bars)
    write_parquet(bars.iloc[[3]].assign(reason="bad_print"), run.workspace.quarantine)
    return run


def pitwise(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pitwise.cli", "reconcile", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.component
def test_the_command_writes_the_page_the_figures_and_what_does_not_agree(tmp_path):
    a = pd.concat([changed(source(), 8, close=120.0, high=121.0), source(EVIL)], ignore_index=True)
    a.to_csv(tmp_path / "a.csv", index=False)
    pd.concat([source(), source(EVIL).head(9)]).to_parquet(tmp_path / "b.parquet")
    done = pitwise("a.csv", "b.parquet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "A: 38 rows of 2 symbols from a.csv" in done.stdout
    assert "28 bars in both: 27 agree, 1 differ; 10 only in A, 0 only in B" in done.stdout
    report = json.loads((tmp_path / REPORT).read_text())
    assert (report["a"], report["b"]) == ("a.csv", "b.parquet")
    assert report["worst_sessions"][0]["date"] == "2016-01-14"
    assert report["worst_symbols"][0]["symbol"] == "A"
    written = pd.read_parquet(tmp_path / TABLE)
    assert written["status"].value_counts().to_dict() == {"only_a": 10, "differ": 1}
    document = (tmp_path / PAGE).read_text()
    read = Reader(document)
    assert EVIL in read.words
    assert not {"i", "script", "link", "iframe", "object", "embed", "base"} & set(read.tags)
    assert read.loads == []
    assert "1 of 28 bars in both differ (3.57%): 1 by a fault of A, 0 of B, 0 unknown." in document
    again = pitwise("a.csv", "b.parquet", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / PAGE).read_text() == document


@pytest.mark.component
def test_a_workspace_is_a_source_and_its_cleaning_is_judged(tmp_path):
    run = workspace_of(tmp_path / "desk", changed(source(), 8, close=120.0, high=121.0))
    source().to_csv(tmp_path / "second.csv", index=False)
    report = reconcile(run.workspace, run.path, tmp_path / "second.csv")
    assert report["cleaning"] == {
        "a": {
            "set_aside": {"confirmed": 1, "denied": 0, "disputed": 0, "absent": 0},
            "kept": {"confirmed": 17, "denied": 1, "disputed": 0, "absent": 0},
        }
    }
    words = Reader((run.path / PAGE).read_text()).words
    assert "Set aside, and B has the same prices: 1" in words
    assert "Kept, and denied: 1" in words
    assert "as known at 2016-02-01 22:00 UTC" in words


@pytest.mark.component
def test_sources_that_agree_throughout_have_a_page_that_says_so(tmp_path):
    source().to_csv(tmp_path / "a.csv", index=False)
    reconcile(Workspace(tmp_path), tmp_path / "a.csv", tmp_path / "a.csv")
    assert "All 19 bars in both agree: they were traded." in (tmp_path / PAGE).read_text()


def test_bad_input_is_one_message(tmp_path, monkeypatch):
    source().to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.chdir(tmp_path)

    def reconciling(*sides: str) -> Result:
        return CliRunner().invoke(cli.app, ["reconcile", *sides])

    missing = reconciling("a.csv", "b.csv").exception
    assert isinstance(missing, PitwiseError)
    assert "b.csv: there is no such file or folder" in str(missing)
    assert "\n" not in str(missing)
    one = reconciling("a.csv")
    assert one.exit_code == 2
    assert "two sources are needed" in one.stderr
    nowhere = reconciling().exception
    assert isinstance(nowhere, PitwiseError)
    assert "Run in a workspace" in str(nowhere)


@pytest.mark.component
def test_without_sources_and_without_a_reference_it_says_what_to_set(tmp_path):
    run = new_run(tmp_path / "desk")
    with pytest.raises(ParamsError, match=r"clean\.reference"):
        reconcile(run.workspace)
    with pytest.raises(DataError, match="is a workspace without bars"):
        read_side(run.path)


needs_reference = pytest.mark.skipif(
    "reference" not in CleanParams.model_fields, reason="this version has no clean.reference"
)


@needs_reference
@pytest.mark.component
def test_a_workspace_is_compared_with_its_reference(tmp_path):
    run = workspace_of(tmp_path / "desk", source())
    run.change_params("clean", reference="second.csv")
    assert load_params(run.workspace, "clean", CleanParams)
    with pytest.raises(ParamsError, match=r"clean\.reference: .*second\.csv is not there"):
        reference_of(run.workspace)
    source().to_csv(run.path / "second.csv", index=False)
    assert reconcile(run.workspace)["agree"] == 19


@needs_reference
@pytest.mark.component
def test_a_run_ends_with_the_reconciliation_where_a_reference_is_set(tmp_path, monkeypatch):
    run = workspace_of(tmp_path / "desk", source())
    run.workspace.landing.mkdir(parents=True)
    (run.workspace.landing / "one.parquet").touch()
    done: list[str] = []
    monkeypatch.setattr(pipeline, "_python", lambda root, module, *rest: done.append(module))
    pipeline.run_pipeline(run.workspace)
    assert not (run.path / PAGE).exists()
    run.change_params("clean", reference="second.csv")
    with pytest.raises(ParamsError, match="is not there"):
        pipeline.run_pipeline(run.workspace)
    source().to_csv(run.path / "second.csv", index=False)
    pipeline.run_pipeline(run.workspace)
    assert (run.path / PAGE).is_file()


@pytest.mark.component
@pytest.mark.skipif(not all(VENDORS), reason="PITWISE_SP500_CSV and PITWISE_SECOND_VENDOR_CSV not set")
def test_the_two_vendors_of_the_sp500_agree_but_for_their_known_faults(tmp_path):
    report = reconcile(Workspace(tmp_path), *VENDORS)
    assert report["symbols_both"] == 471
    assert report["both"] == 348_173
    assert report["agree"] / report["both"] > 0.98
    told = report["differ_by_fault"]
    assert told["a"] > 300  # 2017-08-01, when A has other sessions' bars
    assert told["b"] > 1000  # opens filled with the close before
    sessions = {one["date"]: one for one in report["worst_sessions"]}
    assert sessions["2017-08-01"]["fault_a"] > 200
    assert sessions["2017-08-01"]["fault_b"] < 5
    assert report["returns_equal"] / report["returns"] > 0.997
    bars = pd.read_parquet(tmp_path / TABLE).set_index(["symbol", "date"])
    assert bars.loc[("LNT", pd.Timestamp("2016-05-19")), "fault"] == "a"  # half the price, unsplit
    assert bars.loc[("PFG", pd.Timestamp("2017-12-18")), "told_by"].startswith("no_volume")
    # Spin-offs that B takes out of its prices and A does not: both dates, and whose price jumps.
    steps = reconciled(*(read_side(vendor).bars for vendor in VENDORS)).steps.set_index("symbol")
    assert steps.loc["EBAY", ["before", "date", "moves"]].tolist() == [
        pd.Timestamp("2015-07-17"),
        pd.Timestamp("2015-07-20"),
        "a",
    ]
    assert steps.loc["EBAY", "ratio_before"] == pytest.approx(2.376, abs=0.001)
    assert 20 <= len(steps) <= 30
