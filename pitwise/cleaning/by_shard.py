"""Clean bars made in shards of symbols, so that they need not fit into memory.

It goes through the shards twice: for what each adds to the market's cross-section, and, once that is
known, for the verdicts.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pitwise.bars.ranges import in_groups, read_symbols, read_without_key
from pitwise.bars.versions import BarVersions, known_actions
from pitwise.cleaning.as_of import judged_bars, with_the_past
from pitwise.cleaning.clean import CLEAN_SCHEMA, Cleaned, CleanParams, cleaned_by_group, nothing_left
from pitwise.cleaning.cross_section import (
    CrossSection,
    Seen,
    cross_section,
    cross_section_of,
    read_cross_section,
    seen,
    tape,
    write_cross_section,
)
from pitwise.cleaning.groups import sorted_by_symbol
from pitwise.engine import EngineParams
from pitwise.shards import Range, Shards, Tables, read_range, symbol_ranges, write_groups
from pitwise.workspace import Workspace, read_parquet, write_parquet

SHARD_ROWS = 1_000_000
"""About as many versions of bars are in a process's memory at a time."""
CODE = ("pitwise/bars", "pitwise/cleaning")
VERSIONS = (Workspace.bar_versions, Workspace.bar_factors, Workspace.seals, Workspace.bar_actions)
MARKET = (Workspace.market, Workspace.session_copies, Workspace.absent_bars)
NO_SYMBOLS = ("", "")


def write_clean(
    workspace: Workspace, params: CleanParams, engine: EngineParams, shard_rows: int = SHARD_ROWS
) -> dict:
    """Write the clean bars, the quarantine, the events, the changes and the cross-section.

    Returns:
        how many of what there are, for `metrics/clean.json`.

    Raises:
        DataError: stage `bars` has not run, or no row is left.
    """
    read_parquet(workspace.seals)  # the error of a workspace without bars
    root, ranges = str(workspace.root), symbol_ranges(workspace.bar_versions, shard_rows)
    files = [workspace.root / name for name in VERSIONS]
    market = Shards(
        engine, partial(_market_shard, root), ranges, workspace.market_shards, files, {}, CODE
    )
    write_cross_section(workspace, _market(workspace, params, market))
    files += [workspace.root / name for name in MARKET]
    shards = Shards(
        engine,
        partial(_shard, root, params),
        ranges,
        workspace.clean_shards,
        files,
        params.model_dump(mode="json"),
        CODE,
    )
    told: dict[str, list[pd.DataFrame]] = {name: [] for name in ("quarantine", "events", "changes")}
    rows = symbols = 0
    sessions: set[pd.Timestamp] = set()

    def bars() -> Iterator[pa.Table]:
        nonlocal rows, symbols
        for tables in shards:
            for name, parts in told.items():
                parts.append(tables[name].to_pandas())
            clean = tables["bars"]
            if len(clean):
                rows += len(clean)
                symbols += pc.count_distinct(clean["symbol"]).as_py()
                sessions.update(pc.unique(clean["date"]).to_pandas())
                yield from in_groups(clean)
        told["quarantine"].append(_without_key(workspace, params))
        if not rows:
            raise nothing_left(_joined(told["quarantine"]), params)

    write_groups(bars(), workspace.clean_bars)
    quarantine, events, changes = (_joined(parts) for parts in told.values())
    write_parquet(quarantine, workspace.quarantine)
    write_parquet(events, workspace.events)
    write_parquet(changes, workspace.changes)
    market.remove()
    shards.remove()
    by_reason = quarantine["reason"].value_counts().sort_index()
    by_kind = events.loc[events["status"] != "withdrawn", "kind"].value_counts().sort_index()
    return {
        "rows_in": rows + len(quarantine),
        "rows_clean": rows,
        "rows_quarantined": len(quarantine),
        "quarantined_by_reason": {str(r): int(n) for r, n in by_reason.items()},
        "events_by_kind": {str(k): int(n) for k, n in by_kind.items()},
        "symbols": symbols,
        "sessions": len(sessions),
        "first_session": f"{min(sessions):%Y-%m-%d}",
        "last_session": f"{max(sessions):%Y-%m-%d}",
    }


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all; a table without rows does not know the types of its columns."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _versions(workspace: Workspace, symbols: Range) -> BarVersions:
    """Of a shard's symbols; versions without a symbol or a date are in no shard."""
    bars = read_symbols(workspace.bar_versions, symbols).to_pandas()
    factors, actions = (
        read_range(path, symbols) for path in (workspace.bar_factors, workspace.bar_actions)
    )
    keyed = bars["date"].notna().to_numpy()
    bars = bars if keyed.all() else bars[keyed].reset_index(drop=True)
    return BarVersions(bars, factors, read_parquet(workspace.seals), actions)


def _market_shard(root: str, symbols: Range) -> Tables:
    with pd.option_context("mode.copy_on_write", True):  # a third of the memory
        told = seen(sorted_by_symbol(tape(_versions(Workspace(root), symbols))))
    return {
        "bars": pa.table({**told.bars, "assumed": told.assumed}),
        "equal": pa.Table.from_pandas(told.equal, preserve_index=False),
        "values": pa.Table.from_pandas(told.values, preserve_index=True),
    }


def _market(workspace: Workspace, params: CleanParams, shards: Iterable[Tables]) -> CrossSection:
    if params.verdicts == "off":
        return cross_section(tape(_versions(workspace, NO_SYMBOLS)))
    return cross_section_of(
        Seen(
            {name: tables["bars"][name].to_numpy() for name in tables["bars"].column_names[:-1]},
            tables["bars"]["assumed"].to_numpy(),
            tables["equal"].to_pandas(),
            tables["values"].to_pandas(),
        )
        for tables in shards
    )


def _shard(root: str, params: CleanParams, symbols: Range) -> Tables:
    workspace = Workspace(root)
    with pd.option_context("mode.copy_on_write", True):
        versions = _versions(workspace, symbols)
        market = read_cross_section(workspace) if params.verdicts == "all" else None
        parts = list(_cleaned(workspace, versions, market, params))
        quarantine = pd.concat([part.quarantine for part in parts]).sort_index()
        events = pd.concat([part.events for part in parts])
        told = with_the_past(Cleaned(pd.DataFrame(), quarantine, events), versions, market, params)
        return {
            "bars": pa.concat_tables(_validated(part.bars) for part in parts),
            "quarantine": pa.Table.from_pandas(quarantine, preserve_index=False),
            "events": pa.Table.from_pandas(told.cleaned.events, preserve_index=False),
            "changes": pa.Table.from_pandas(told.changes, preserve_index=False),
        }


def _cleaned(
    workspace: Workspace, versions: BarVersions, market: CrossSection | None, params: CleanParams
) -> Iterator[Cleaned]:
    # The quarantine has an adjusted close where the market has one, also of symbols without factors.
    raw = judged_bars(versions._replace(factors=read_parquet(workspace.bar_factors)))
    return cleaned_by_group(raw, params, market, actions=known_actions(versions))


def _validated(bars: pd.DataFrame) -> pa.Table:
    CLEAN_SCHEMA.validate(bars, inplace=True)
    return pa.Table.from_pandas(bars, preserve_index=False)


def _without_key(workspace: Workspace, params: CleanParams) -> pd.DataFrame:
    """The quarantine of the versions without a symbol or a date."""
    bars = read_without_key(workspace.bar_versions).to_pandas()
    versions = _versions(workspace, NO_SYMBOLS)._replace(bars=bars)
    parts = _cleaned(workspace, versions, None, params)
    return pd.concat([part.quarantine for part in parts]).sort_index()
