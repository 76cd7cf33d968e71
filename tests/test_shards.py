"""Shards: whole symbols, each computed once; a death costs the shards that were not finished."""

import os
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import markets
from support.engine_tasks import once_deadly_table

from pitwise.engine import EngineParams
from pitwise.errors import StoreError
from pitwise.shards import Shards, read_range, symbol_ranges, write_groups
from pitwise.workspace import write_parquet

ALONE = EngineParams(kind="local", n_jobs=1, address=None)
CORES = EngineParams(kind="local", n_jobs=2, address=None)
NAMES = ["first", "deadly", "third", "fourth"]


def shards(folder: Path, engine: EngineParams = ALONE, depends: int = 1) -> Shards[str]:
    """Shards whose second one kills the process that computes it, unless that has happened."""
    depended = folder / "input"
    if not depended.exists():
        depended.write_text("an input")
    function = partial(once_deadly_table, folder)
    return Shards(engine, function, NAMES, folder / "shards", [depended], {"x": depends}, [])


def computed(folder: Path) -> list[int]:
    """How often each shard was computed."""
    files = [folder / name for name in NAMES]
    return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files]


def same(some: list, others: list) -> bool:
    pairs = zip(some, others, strict=True)
    return all(one["rows"].equals(other["rows"], check_metadata=True) for one, other in pairs)


@pytest.mark.parametrize("rows", [1, 50, 60, 61, 120, 1000])
def test_ranges_hold_whole_symbols_and_every_row_once(tmp_path, rows):
    bars, path = markets.bars(5, 60, seed=5), tmp_path / "bars.parquet"
    write_parquet(bars, path)
    ranges = symbol_ranges(path, rows)
    parts = [read_range(path, symbols) for symbols in ranges]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), bars)
    assert len(parts) == {1: 5, 50: 5, 60: 5, 61: 4, 120: 3, 1000: 1}[rows]
    for name in ("A", "S002X", "ZZZ"):  # symbols that other tables have
        inside = [(first or "") <= name and (end is None or name < end) for first, end in ranges]
        assert sum(inside) == 1


def test_parts_of_a_table_are_its_row_groups(tmp_path):
    parts = [pa.table({"symbol": [name] * n}) for name, n in (("A", 3), ("B", 1), ("C", 2))]
    write_groups(iter(parts), tmp_path / "t.parquet")
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert [file.read_row_group(i).equals(part) for i, part in enumerate(parts)] == [True] * 3
    assert file.num_row_groups == 3


def test_a_killed_process_costs_the_shards_that_were_not_finished(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/died").touch()
    expected = list(shards(tmp_path / "alone"))
    two = shards(tmp_path, CORES)
    with pytest.raises(StoreError, match="died"):
        list(two)
    finished = {path.name for path in two.folder.iterdir() if not path.name.startswith(".")}
    before = computed(tmp_path)[:2]
    again = list(two)
    assert all(
        a["rows"].equals(b["rows"], check_metadata=True) for a, b in zip(again, expected, strict=True)
    )
    assert "0001" not in finished
    assert computed(tmp_path)[0] == before[0] + ("0000" not in finished)
    assert computed(tmp_path)[1] == before[1] + 1
    counts = computed(tmp_path)
    assert [table["rows"]["name"][0].as_py() for table in two] == NAMES
    assert computed(tmp_path) == counts, "what is there is read"
    two.remove()
    assert not (tmp_path / "shards").exists()


def test_a_half_written_shard_is_none(tmp_path):
    (tmp_path / "died").touch()
    of = shards(tmp_path)
    list(of)
    (of.folder / "0002").rename(of.folder / ".half")
    os.truncate(of.folder / "0000/rows", 0)  # as a power loss can leave it
    with (of.folder / "0003/rows").open("r+b") as file:  # or with a middle that is missing
        file.seek(300)
        file.write(bytes(8))
    assert [tables["rows"]["name"][0].as_py() for tables in of] == NAMES
    assert computed(tmp_path) == [2, 1, 2, 2]
    assert not (of.folder / ".half").exists()


@pytest.mark.parametrize("changed", ["input", "depends"])
def test_shards_of_something_else_count_for_nothing_and_go(tmp_path, changed):
    (tmp_path / "died").touch()
    list(shards(tmp_path))
    if changed == "input":
        (tmp_path / "input").write_text("another input")
    list(shards(tmp_path, depends=2 if changed == "depends" else 1))
    assert computed(tmp_path) == [2, 2, 2, 2]
    assert len(list((tmp_path / "shards").iterdir())) == 1
