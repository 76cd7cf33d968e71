"""Bar versions by shards of symbols are those that all landings in memory give."""

import dataclasses

import pandas as pd
import pyarrow as pa
import pytest
from support import markets
from support.deliveries import COVERAGE, deliveries

from pitwise.bars import landing as landing_module
from pitwise.bars import ranges
from pitwise.bars.actions import ACTION_KEY, FEED, TYPES
from pitwise.bars.by_shard import write_versions_by_shard
from pitwise.bars.landing import Landing, each_landing, land, no_bars
from pitwise.bars.ranges import read_symbols, read_without_key
from pitwise.bars.versions import bar_versions, read_versions
from pitwise.engine import EngineParams
from pitwise.errors import DataError
from pitwise.shards import ranges_of
from pitwise.workspace import Workspace

ALONE = EngineParams(kind="local", n_jobs=1, address=None)


def text(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas().astype({"symbol": "string"})


def feed(received_at: pd.Timestamp, names: list[str]) -> Landing:
    """A split of a symbol that has bars, and one of a symbol that has none."""
    rows = [(name, pd.Timestamp("2014-02-03"), "split", 2.0, None, None) for name in names]
    actions = pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)
    return Landing(no_bars(), FEED, received_at, history="assumed", actions=actions)


def test_versions_by_shard_are_those_of_all_landings_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(landing_module, "GROUP", 100)
    monkeypatch.setattr(ranges, "GROUP_ROWS", 100)
    workspace = Workspace(tmp_path)
    made = deliveries(7, "split_adjusted", first=105)
    # As a file sorted by date comes, whose rows are not by symbol.
    first = dataclasses.replace(made[0], rows=made[0].rows.sort_values("date", kind="stable"))
    for each in [first, feed(first.received_at, ["SYN3", "NONE"]), *made[1:]]:
        land(workspace, each)
    expected = bar_versions(each_landing(workspace), COVERAGE)
    assert expected.bars[["symbol", "date"]].isna().any().all()
    assert expected.bars["withdrawn"].any()
    assert len(expected.actions) == 2
    assert set(expected.factors["kind"]) == {"adjusted_close", "split"}
    files = []
    for rows in (10**6, 300):
        counts = write_versions_by_shard(workspace, COVERAGE, ALONE, rows)
        for found, wanted in zip(read_versions(workspace), expected, strict=True):
            pd.testing.assert_frame_equal(found, wanted, check_exact=True)
        assert counts == {
            "versions": len(expected.bars),
            "bars": len(expected.bars.drop_duplicates(["symbol", "date"])),
            "symbols": expected.bars["symbol"].nunique(),
            "sessions": len(expected.seals),
            "actions": len(expected.actions.drop_duplicates(ACTION_KEY)),
        }
        files.append(sorted(path.name for path in workspace.bar_versions.parent.iterdir()))
    assert files[0] == files[1], "no shard is left behind"


@pytest.mark.parametrize("dated", [True, False])
def test_a_shard_may_have_no_bar_with_a_key(tmp_path, dated):
    workspace = Workspace(tmp_path)
    bars = markets.bars(2, 30, seed=1)
    at = pd.Timestamp("2015-01-05 21:00", tz="UTC")
    rows = bars if dated else bars.assign(date=pd.NaT)
    land(workspace, Landing(rows, "csv", at, history="assumed"))
    land(workspace, feed(at, ["ZZZ"]))
    expected = bar_versions(each_landing(workspace), COVERAGE)
    write_versions_by_shard(workspace, COVERAGE, ALONE, 30)
    for found, wanted in zip(read_versions(workspace), expected, strict=True):
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=dated)


def test_a_landing_that_is_cut_off_is_named(tmp_path):
    workspace = Workspace(tmp_path)
    path = land(workspace, feed(pd.Timestamp("2014-02-04", tz="UTC"), ["AAPL"]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read as a landing"):
        write_versions_by_shard(workspace, COVERAGE, ALONE)


def test_symbols_and_what_has_no_key_are_read_from_their_row_groups(tmp_path):
    frame = markets.bars(6, 50, seed=1)
    frame.loc[[7, 120], "symbol"], frame.loc[[130, 299], "date"] = None, pd.NaT
    path = tmp_path / "bars.parquet"
    frame.to_parquet(path, row_group_size=30)
    bare = frame[frame["symbol"].isna() | frame["date"].isna()]
    pd.testing.assert_frame_equal(text(read_without_key(path)), bare.reset_index(drop=True))
    found = [read_symbols(path, symbols) for symbols in ranges_of(dict.fromkeys("ABS", 9), 9)]
    assert [len(table) for table in found] == [0, 0, 298]
    for table in (frame, frame.sample(frac=1, random_state=0, ignore_index=True)):
        table.to_parquet(path, row_group_size=30)
        names = table["symbol"].dropna()
        counts = ranges_of(names.value_counts().to_dict(), 100)
        assert counts == [(None, "S003"), ("S003", "S005"), ("S005", None)]
        for first, end in counts:
            inside = table["symbol"].ge(first or "A") & table["symbol"].lt(end or "Z")
            wanted, symbols = table[inside.fillna(False)], (first, end)
            pd.testing.assert_frame_equal(
                text(read_symbols(path, symbols)), wanted.reset_index(drop=True)
            )
