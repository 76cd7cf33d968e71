"""Bar versions made in shards of symbols, so that they need not fit into memory.

What a source says of a symbol's bars says nothing of another symbol's. Only when a session was sealed is
told from all of them: each shard hands on which bars it has, and from when they were known.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pitwise.bars.actions import ACTION_KEY
from pitwise.bars.landing import as_landing, each_landing, landing_files
from pitwise.bars.news import SHIFT
from pitwise.bars.ranges import in_groups, read_symbols, read_without_key
from pitwise.bars.schema import BAR_KEY
from pitwise.bars.seals import sealed
from pitwise.bars.versions import TEXT, bars_of, factors_of, taken_from, unkeyed_bars, version_rows
from pitwise.engine import EngineParams
from pitwise.shards import Range, Shards, Tables, ranges_of, write_groups
from pitwise.workspace import Workspace, write_parquet

SHARD_ROWS = 1_000_000
"""About as many bars are in a process's memory at a time."""
CODE = ("pitwise/bars",)
SEEN = ("symbol", "day", "known", "withdrawn")
"""What seals are told from; see `sealed`."""


def write_versions_by_shard(
    workspace: Workspace, seal_coverage: float, engine: EngineParams, shard_rows: int = SHARD_ROWS
) -> dict[str, int]:
    """Write what `bar_versions` tells of all that has landed.

    Returns:
        how many `versions`, `bars`, `symbols`, `sessions` (sealed) and `actions` there are.
    """
    shards = Shards(
        engine,
        partial(_shard, str(workspace.root)),
        _ranges(workspace, shard_rows),
        workspace.bar_shards,
        landing_files(workspace),
        {},
        CODE,
    )
    bare = taken_from(each_landing(workspace, read_without_key))
    told: dict[str, list[pa.Table]] = {"factors": [], "actions": []}
    seen: dict[str, list[np.ndarray]] = {name: [] for name in SEEN}
    assumed: set[int] = set()
    counts: Counter[str] = Counter()

    def bars() -> Iterator[pa.Table]:
        for tables in shards:
            for name, parts in told.items():
                parts.append(tables[name])
            ours = {name: tables["seen"][name].to_numpy() for name in SEEN}
            begins = _changes(ours["symbol"])
            counts["bars"] += int((begins | _changes(ours["day"])).sum())
            # Each shard counts its symbols from 0.
            ours["symbol"] = ours["symbol"] + np.int32(counts["symbols"])
            counts["symbols"] += int(begins.sum())
            for name, parts in seen.items():
                parts.append(ours[name])
            assumed.update(tables["assumed"]["day"].to_pylist())
            yield from in_groups(tables["bars"])
        if bare.unkeyed:
            table = unkeyed_bars(bare)
            counts["bars"] += len(table.drop_duplicates(BAR_KEY))
            yield pa.Table.from_pandas(table, preserve_index=False)

    write_groups(bars(), workspace.bar_versions)
    # Each column gives its parts away: all of them together would be twice the memory.
    symbol, day, known, withdrawn = (np.concatenate(seen.pop(name)) for name in SEEN)
    seals = sealed(symbol, day, known, withdrawn, bare.seals, assumed, seal_coverage)
    factors, actions = (pa.concat_tables(parts) for parts in told.values())
    write_parquet(factors, workspace.bar_factors)
    write_parquet(seals, workspace.seals)
    write_parquet(actions, workspace.bar_actions)
    shards.remove()
    return {
        "versions": pq.read_metadata(workspace.bar_versions).num_rows,
        "bars": counts["bars"],
        "symbols": counts["symbols"],
        "sessions": len(seals),
        "actions": len(actions.select(ACTION_KEY).group_by(ACTION_KEY).aggregate([])),
    }


def _ranges(workspace: Workspace, rows: int) -> list[Range]:
    """Ranges of symbols of about `rows` bars: as many as were delivered, and one a day at most."""
    delivered: Counter[str] = Counter()
    days: set[int] = set()
    for path in landing_files(workspace):
        with as_landing(path), pq.ParquetFile(path, read_dictionary=["symbol"]) as file:
            for batch in file.iter_batches(columns=BAR_KEY):
                for each in pc.value_counts(batch["symbol"].drop_null()).to_pylist():
                    delivered[each["values"]] += each["counts"]
                days.update(pc.unique(batch["date"]).cast("int64").to_pylist())
    return ranges_of({symbol: min(n, len(days)) for symbol, n in delivered.items()}, rows)


def _shard(root: str, symbols: Range) -> Tables:
    taken = taken_from(each_landing(Workspace(root), partial(read_symbols, symbols=symbols)))
    rows = version_rows(taken)
    bars = bars_of(rows, taken)
    as_text = pa.Schema.from_pandas(bars.iloc[:0].astype(TEXT), preserve_index=False)
    codes = rows["key"] // SHIFT
    return {
        "bars": pa.Table.from_pandas(bars, preserve_index=False).cast(as_text),
        "factors": pa.Table.from_pandas(factors_of(taken), preserve_index=False),
        "actions": pa.Table.from_pandas(taken.actions.versions(), preserve_index=False),
        "seen": pa.table(
            {
                "symbol": (_changes(codes).cumsum() - 1).astype("int32"),
                "day": (rows["key"] % SHIFT - SHIFT // 2).astype("int32"),
                "known": rows["known"],
                "withdrawn": rows["withdrawn"],
            }
        ),
        "assumed": pa.table({"day": np.array(sorted(taken.assumed), "int64")}),
    }


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value is another than the one before; (n,) bool."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
