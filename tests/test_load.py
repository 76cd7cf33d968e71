"""What `pitwise load` lands of each source, and what it refuses."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from support.markets import synthetic_params
from support.project import PROJECT, with_params
from typer.testing import CliRunner

from pitwise import cli
from pitwise.bars.landing import landing_files, landings, read_landing
from pitwise.bars.versions import bar_versions
from pitwise.errors import DataError, ParamsError, PitwiseError, StoreError
from pitwise.load import days_of, described, load, load_actions, load_where_nothing_landed
from pitwise.simulation.market import synthetic_market
from pitwise.workspace import Workspace, read_parquet

HEADER = "symbol,date,open,high,low,close,volume\n"
AAPL = "AAPL,2014-01-02,10,12,9,11,100\nAAPL,2014-01-03,11,13,10,12,200\n"
MSFT = "MSFT,2014-01-03,20,22,19,21,300\n"
FRIDAY = pd.Timestamp("2014-01-03 22:30", tz="UTC")
MONDAY = pd.Timestamp("2014-01-06 22:30", tz="UTC")
SECOND, THIRD = date(2014, 1, 2), date(2014, 1, 3)


def new_workspace(folder: Path, source: str, path: str = "bars.csv", **more: str) -> Workspace:
    return with_params(folder, load={"source": source, "path": path, **more})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A workspace on a file of two symbols, nothing landed yet."""
    (tmp_path / "bars.csv").write_text(HEADER + AAPL + MSFT)
    return new_workspace(tmp_path, "csv")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("content", "path", "more", "named"),
    [
        (HEADER + AAPL.replace("12,200", "twelve,200"), "bars.csv", {}, "row 3, column 'close'"),
        (HEADER + AAPL, "bars.csv.gz", {}, "bars.csv.gz: cannot be read"),
        (HEADER + AAPL, "bars.csv", {"pth": "x"}, "load.pth"),
    ],
)
def test_the_command_fails_with_one_line_and_writes_nothing(
    tmp_path, monkeypatch, content, path, more, named
):
    (tmp_path / path).write_text(content)
    new_workspace(tmp_path, "csv", path, **more)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["load"])
    assert isinstance(done.exception, PitwiseError)
    assert done.output == ""
    message = str(done.exception)
    assert message.startswith(f"{tmp_path}/")
    assert "\n" not in message
    assert named in message
    assert files(tmp_path) == sorted([path, "params.yaml"])


# What lands.


def test_a_file_lands_as_it_was_delivered_with_when_and_what_it_holds_whole(workspace):
    path = load(workspace, now=FRIDAY)
    assert path.parent == workspace.root / "data/landing"
    assert path.name.startswith("20140103T223000000000Z-csv-")
    landing = read_landing(path)
    assert (landing.source, landing.basis, landing.history) == ("csv", "traded", "assumed")
    assert landing.received_at == FRIDAY
    assert landing.covers == {"AAPL": (SECOND, THIRD), "MSFT": (THIRD, THIRD)}
    assert landing.seals == ()
    assert landing.rows.to_numpy().tolist() == [
        ["AAPL", pd.Timestamp("2014-01-02"), 10.0, 12.0, 9.0, 11.0, 100.0],
        ["AAPL", pd.Timestamp("2014-01-03"), 11.0, 13.0, 10.0, 12.0, 200.0],
        ["MSFT", pd.Timestamp("2014-01-03"), 20.0, 22.0, 19.0, 21.0, 300.0],
    ]
    shown = f"3 rows of 2 symbols from csv, received 2014-01-03 22:30:00 UTC: {path}"
    assert described(path) == shown


def test_without_an_instant_it_is_received_now(workspace):
    before = pd.Timestamp.now("UTC")
    landing = read_landing(load(workspace))
    assert before.floor("us") <= landing.received_at <= pd.Timestamp.now("UTC")


def test_the_sample_lands_everywhere_as_the_same_file(tmp_path):
    paths = []
    for name, now in (("one", FRIDAY), ("two", MONDAY)):
        (tmp_path / name).mkdir()
        paths.append(load(new_workspace(tmp_path / name, "sample"), now=now))
    assert [path.name for path in paths] == ["20130301T210000000000Z-sample-d40dbf422dee.parquet"] * 2
    assert paths[0].read_bytes() == paths[1].read_bytes()
    landing = read_landing(paths[0])
    assert landing.received_at == pd.Timestamp("2013-03-01 21:00", tz="UTC")
    assert (landing.basis, landing.history, len(landing.rows)) == ("traded", "assumed", 12_154)
    last = date(2013, 3, 1)
    assert landing.covers == {
        "AAPL": (date(2000, 3, 1), last),
        "FB": (date(2012, 5, 18), last),
        "GOOG": (date(2004, 8, 19), last),
        "IBM": (date(2000, 3, 1), last),
        "MSFT": (date(2000, 3, 1), last),
    }


def test_a_made_market_lands_everywhere_as_the_same_file_with_its_truth_beside(tmp_path):
    params = synthetic_params(symbols=3, sessions=200, faults={"split": 2})
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        section = {"source": "synthetic", "path": "prices"}
        made = with_params(tmp_path / name, load=section, synthetic=params.model_dump(mode="json"))
        paths.append(load(made))
    assert paths[0].name == paths[1].name
    assert paths[0].read_bytes() == paths[1].read_bytes()
    market = synthetic_market(params)
    landing = read_landing(paths[1])
    pd.testing.assert_frame_equal(landing.rows.astype({"symbol": "string"}), market.bars)
    assert landing.received_at == pd.Timestamp("2012-10-16 20:00", tz="UTC")
    pd.testing.assert_frame_equal(read_parquet(made.planted_truth), market.truth, check_dtype=False)


@pytest.mark.parametrize("basis", ["traded", "split_adjusted"])
def test_the_params_say_the_basis_of_the_prices(workspace, basis):
    new_workspace(workspace.root, "csv", basis=basis)
    assert read_landing(load(workspace)).basis == basis


def test_a_source_and_a_file_may_be_named(workspace, tmp_path, monkeypatch):
    desk = new_workspace(tmp_path, "sample")
    (tmp_path / "else").mkdir()
    (tmp_path / "else/tonight.csv").write_text(HEADER + MSFT)
    monkeypatch.chdir(tmp_path / "else")
    landing = read_landing(load(desk, "csv", "tonight.csv"))
    assert (landing.source, len(landing.rows)) == ("csv", 1)


def test_an_absolute_path_is_read_where_it_is(workspace, tmp_path):
    (tmp_path / "desk").mkdir()
    desk = new_workspace(tmp_path / "desk", "csv", str(tmp_path / "bars.csv"))
    assert len(read_landing(load(desk)).rows) == 3


def test_covers_may_be_said_for_every_symbol_of_the_delivery(workspace):
    landing = read_landing(load(workspace, covers=(date(2013, 12, 30), date(2014, 1, 6))))
    days = date(2013, 12, 30), date(2014, 1, 6)
    assert landing.covers == {"AAPL": days, "MSFT": days}


# Later loads.


def test_the_first_load_is_of_an_assumed_history_and_later_ones_are_observed(workspace):
    load(workspace, now=FRIDAY)
    (workspace.root / "bars.csv").write_text(HEADER + AAPL)
    load(workspace, now=MONDAY)
    assert [landing.history for landing in landings(workspace)] == ["assumed", "observed"]


@pytest.mark.parametrize("history", ["assumed", "observed"])
def test_the_history_may_be_said(workspace, history):
    load(workspace, history=history, now=FRIDAY)
    (workspace.root / "bars.csv").write_text(HEADER + AAPL)
    load(workspace, history=history, now=MONDAY)
    assert [landing.history for landing in landings(workspace)] == [history] * 2


def test_what_the_last_load_brought_does_not_land_again(workspace):
    first = load(workspace, now=FRIDAY)
    assert load(workspace, now=MONDAY) == first
    assert landing_files(workspace) == [first]
    assert read_landing(first).received_at == FRIDAY


def test_a_later_load_leaves_those_before_as_they_were(workspace):
    first = load(workspace, now=FRIDAY)
    before = first.read_bytes()
    (workspace.root / "bars.csv").write_text(HEADER + AAPL.replace("12,200", "12,201") + MSFT)
    second = load(workspace, now=MONDAY)
    assert landing_files(workspace) == [first, second]
    assert first.read_bytes() == before
    (workspace.root / "bars.csv").write_text(HEADER + AAPL + MSFT)
    third = load(workspace, now=MONDAY + pd.Timedelta(1, "h"))  # what was said first is said again
    assert landing_files(workspace) == [first, second, third]


def test_a_load_that_fails_leaves_what_landed(workspace):
    load(workspace, now=FRIDAY)
    before = {path: path.read_bytes() for path in landing_files(workspace)}
    new_workspace(workspace.root, "csv", "absent.csv")
    message = f"{workspace.root}/absent.csv: there is no such file"
    with pytest.raises(DataError, match=message):
        load(workspace, now=MONDAY)
    assert {path: path.read_bytes() for path in landing_files(workspace)} == before


@pytest.mark.parametrize("now", [FRIDAY, FRIDAY - pd.Timedelta(1, "us")])
def test_a_delivery_is_not_put_before_one_of_its_source(workspace, now):
    first = load(workspace, now=FRIDAY)
    (workspace.root / "bars.csv").write_text(HEADER + AAPL)
    with pytest.raises(DataError, match="was received no earlier than 2014-01-03 22:") as refused:
        load(workspace, now=now)
    assert str(refused.value).startswith(f"{first}: ")
    assert landing_files(workspace) == [first]


def test_a_made_market_with_other_params_needs_a_workspace_of_its_own(tmp_path):
    def made(seed: int) -> Workspace:
        params = synthetic_params(symbols=3, sessions=200, seed=seed).model_dump(mode="json")
        section = {"source": "synthetic", "path": "prices"}
        return with_params(tmp_path, load=section, synthetic=params)

    first = load(made(1))
    with pytest.raises(DataError, match="use a new workspace"):
        load(made(2))
    assert landing_files(Workspace(tmp_path)) == [first]


def test_a_delivery_of_another_source_stands_where_it_was_received(workspace):
    csv = load(workspace, now=FRIDAY)
    sample = load(workspace, "sample", now=MONDAY)
    assert landing_files(workspace) == [sample, csv]
    assert [landing.source for landing in landings(workspace)] == ["sample", "csv"]


# What is refused.


@pytest.mark.parametrize("source", ["sample", "synthetic"])
def test_a_made_source_takes_no_data(workspace, source):
    with pytest.raises(ParamsError, match=f"--data: source {source} takes none"):
        load(workspace, source, "bars.csv")


def test_covers_that_end_before_they_begin_are_refused(workspace):
    with pytest.raises(ParamsError, match="--covers: 2014-01-02 is before 2014-01-03"):
        load(workspace, covers=(THIRD, SECOND))
    assert landing_files(workspace) == []


def test_a_workspace_of_an_older_version_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "bars.csv").write_text(HEADER + AAPL)
    older = with_params(tmp_path, ingest={"source": "csv", "path": "bars.csv"})
    for loads in (load, load_where_nothing_landed):
        with pytest.raises(StoreError, match=r"older version.*`pitwise upgrade` in it brings it up"):
            loads(older)
    assert files(tmp_path) == ["bars.csv", "params.yaml"]


def test_days_are_read():
    assert days_of("2020-01-02:2020-12-31") == (date(2020, 1, 2), date(2020, 12, 31))


@pytest.mark.parametrize("text", ["", "2020-01-02", "2020-01-02:", "2020-01-02:2020-13-01", "a:b", "::"])
def test_what_is_not_two_days_is_named(text):
    with pytest.raises(ParamsError, match=r"--covers: .* is not two days such as 2020-01-02:2020-12-31"):
        days_of(text)


# The load that a run makes where it finds nothing.


def test_a_run_loads_where_nothing_landed_and_only_there(workspace, capsys):
    load_where_nothing_landed(workspace)
    (path,) = landing_files(workspace)
    assert capsys.readouterr().out == f"{described(path)}\n"
    (workspace.root / "bars.csv").write_text(HEADER + AAPL)
    load_where_nothing_landed(workspace)
    assert landing_files(workspace) == [path]
    assert capsys.readouterr().out == ""


def test_a_history_that_dvc_keeps_elsewhere_is_not_begun_anew(workspace):
    """Its deliveries would be known from now on, and what came tonight would be taken for the first."""
    tracked = workspace.root / "data/landing.dvc"
    tracked.parent.mkdir()
    tracked.write_text("outs: []\n")
    with pytest.raises(DataError, match=r"names deliveries that are not here\. `dvc pull data/landing`"):
        load_where_nothing_landed(workspace)
    assert landing_files(workspace) == []


def test_the_sample_is_loaded_again_where_dvc_keeps_it(tmp_path):
    desk = new_workspace(tmp_path, "sample")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/landing.dvc").write_text("outs: []\n")
    load_where_nothing_landed(desk)
    names = [path.name for path in landing_files(desk)]
    assert names == ["20130301T210000000000Z-sample-d40dbf422dee.parquet"]


@pytest.mark.component
def test_the_sample_loads_without_what_other_sources_need():
    code = (
        "import sys, pitwise.load\n"
        "heavy = {'yfinance', 'sklearn', 'pitwise.simulation.market', 'pitwise.bars.sources.yahoo'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT.root, timeout=60, check=False)
    assert done.returncode == 0


# Corporate actions.

SPLIT = "symbol,date,kind,ratio,amount\nAAPL,2014-01-03,split,2,\n"


@pytest.fixture
def split_feed(tmp_path) -> Path:
    path = tmp_path / "actions.csv"
    path.write_text(SPLIT)
    return path


def test_a_feed_lands_alone(workspace, split_feed):
    load(workspace, now=FRIDAY)
    path = load_actions(workspace, split_feed, now=MONDAY)
    landing = read_landing(path)
    assert (landing.source, landing.history, landing.received_at) == ("actions", "observed", MONDAY)
    assert landing.covers == {"AAPL": (THIRD, THIRD)}
    assert landing.actions["ratio"].tolist() == [2.0]
    assert described(path).startswith(
        "1 corporate actions of 1 symbols from actions, received 2014-01-06"
    )
    assert load_actions(workspace, split_feed, now=MONDAY + pd.Timedelta("1h")) == path
    assert len(landing_files(workspace)) == 2


@pytest.mark.parametrize("by_params", [True, False])
def test_a_feed_of_the_first_load_is_a_history_as_its_bars_are(workspace, split_feed, by_params):
    if by_params:
        workspace = new_workspace(workspace.root, "csv", actions="actions.csv")
    bars = load(workspace, now=FRIDAY, actions=None if by_params else split_feed)
    feed, own = landings(workspace)
    assert own.name == bars.name
    assert (feed.source, feed.history, own.history) == ("actions", "assumed", "assumed")
    known = bar_versions([own, feed], 0.95).actions["known_at"].tolist()
    assert known == [pd.Timestamp("2014-01-02T21:00Z")]


def test_bars_after_a_feed_are_still_the_first_ones(workspace, split_feed):
    load_actions(workspace, split_feed, now=FRIDAY)
    load_where_nothing_landed(workspace)
    assert [landing.history for landing in landings(workspace)] == ["assumed", "assumed"]
    assert [landing.source for landing in landings(workspace)] == ["actions", "csv"]


def test_a_bad_feed_stops_the_load_before_any_bar_lands(workspace, split_feed):
    split_feed.write_text(SPLIT.replace(",2,", ",zero,"))
    with pytest.raises(DataError, match=r"actions\.csv: row 2, column 'ratio': 'zero'"):
        load(workspace, actions=split_feed)
    with pytest.raises(ParamsError, match="--covers"):
        load_actions(workspace, split_feed, covers=(THIRD, SECOND))
    assert landing_files(workspace) == []


@pytest.mark.parametrize(("more", "lines"), [([], 1), (["--source", "csv"], 2)])
def test_the_command_brings_a_feed_alone_or_beside_bars(workspace, split_feed, monkeypatch, more, lines):
    monkeypatch.chdir(workspace.root)
    done = CliRunner().invoke(cli.app, ["load", "--actions", str(split_feed), *more])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("\n") == lines
    assert "1 corporate actions of 1 symbols from actions" in done.stdout
    assert len(landing_files(workspace)) == lines
