"""Every version of the daily features, from the versions of the bars.

It is made in shards of symbols, so it need not fit into memory.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pitwise.bars.calendar import session_close
from pitwise.bars.news import SHIFT
from pitwise.bars.ranges import read_symbols
from pitwise.bars.schema import BAR_KEY
from pitwise.bars.versions import KNOWN, BarVersions, known_bars
from pitwise.cleaning.as_of import FOREVER, History, history, pasts, spans_between
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.cross_section import CrossSection, read_cross_section
from pitwise.engine import EngineParams
from pitwise.features.daily import daily_table, feature_values
from pitwise.features.history import CREATED, KEYS, revisions
from pitwise.features.indicators import NAMES, symbol_edges
from pitwise.shards import Range, Shards, read_range, symbol_counts, symbol_ranges, write_groups
from pitwise.workspace import Workspace, read_parquet, write_parquet

SHARD_ROWS = 500_000
"""About as many bars are in a process's memory with their features at a time."""
CODE = ("pitwise/bars", "pitwise/cleaning", "pitwise/features")
INPUTS = (
    Workspace.clean_bars,
    Workspace.changes,
    Workspace.market,
    Workspace.session_copies,
    Workspace.absent_bars,
    Workspace.bar_versions,
    Workspace.bar_factors,
    Workspace.bar_actions,
    Workspace.seals,
)
ROUNDING = {"rtol": 1e-12, "atol": 1e-10}
"""Features that differ by less make no version: an average that never quite forgets a corrected bar
would else go on to version every session after it. What a changed bar changes is larger: a share in 1e10
moves the mean volume of 20 sessions by 5e-12."""


class _Table(NamedTuple):
    """Features of n bars, each symbol's together, oldest first."""

    values: np.ndarray
    """(n_features + n_factors, n)"""
    segment: np.ndarray
    session: np.ndarray
    """(n,) datetime64[us], when each closed, UTC."""
    created: np.ndarray
    """(n,) datetime64[us], from when each was known, UTC."""


class _Versions(NamedTuple):
    """Some rows of a table, and from when they were known, or known to be gone."""

    rows: np.ndarray
    created: np.ndarray
    gone: bool


def feature_versions(
    versions: BarVersions,
    bars: pd.DataFrame,
    changes: pd.DataFrame,
    market: CrossSection | None,
    params: CleanParams,
) -> pd.DataFrame:
    """Every version of some symbols' features, each with the instant from which it was known.

    The features of a session follow from the bars up to it, so a session that came in order has one
    version, known when its bar was. Where the past of a symbol changed, what differs in it is a version
    known from there.

    Args:
        versions: of these symbols' bars, factors and actions.
        bars: theirs as known now, clean.
        changes: when their past changed, see `pitwise.cleaning.as_of.changes`.
        market: the cross-section of each session; None with the verdicts switched off.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp`, the features, `price_factor`, `share_factor`,
        `segment`, sorted by the first three. A withdrawn row has no features.
    """
    spans = spans_between(changes)
    spans["name"] = spans["symbol"]
    known = known_bars(versions)[[*BAR_KEY, KNOWN]]
    past = spans["until"] != FOREVER
    if past.any():
        changing = versions.bars[versions.bars["symbol"].isin(spans["symbol"])]
        changing = changing.astype({"symbol": "string"})
        then = pasts(versions._replace(bars=changing), spans[past], market, params)
        # Computed together with the others; as it stood, each is a symbol of its own.
        spans.loc[past, "name"] = then.spans["name"]
        bars = pd.concat([bars, then.cleaned.bars], ignore_index=True)
        known = pd.concat([known, then.raw[[*BAR_KEY, KNOWN]]], ignore_index=True)
    edges = symbol_edges(bars["symbol"])
    names = pd.Index(bars["symbol"].iloc[edges[:-1]], dtype="string")
    code = np.repeat(np.arange(len(names)), np.diff(edges))
    table = _Table(
        feature_values(bars),
        bars["segment"].to_numpy(),
        _instants(session_close(bars["date"])),
        _known_since(bars["date"], code, names, known, params.min_history),
    )
    rows_of = {name: np.arange(*edge) for name, edge in zip(names, pairwise(edges), strict=True)}
    told = list(_told(table, np.flatnonzero(~names.isin(spans["name"])[code]), spans, rows_of))
    symbol_of = dict(zip(spans["name"], spans["symbol"], strict=True))
    symbols, rank = np.unique([symbol_of.get(name, name) for name in names], return_inverse=True)
    return _in_order(told, table, pd.array(symbols, "string"), rank[code])


def _in_order(
    told: list[_Versions], table: _Table, symbols: pd.api.extensions.ExtensionArray, symbol: np.ndarray
) -> pd.DataFrame:
    """The versions as a table, see `feature_versions`.

    Args:
        symbols: sorted.
        symbol: (n,) the position in them of each row's of the table.
    """
    rows = np.concatenate([some.rows for some in told])
    created = np.concatenate([some.created for some in told])
    gone = np.repeat([some.gone for some in told], [len(some.rows) for some in told])
    order = np.lexsort((created, table.session[rows], symbol[rows]))
    rows, created, gone = rows[order], created[order], gone[order]
    values = table.values.take(rows, axis=1)
    values[:, gone] = np.nan
    result = daily_table(
        values, symbols.take(symbol[rows]), _utc(table.session[rows]), table.segment[rows]
    )
    result.insert(len(KEYS), CREATED, _utc(created))
    return result


def feature_history(versions: BarVersions, params: CleanParams) -> tuple[History, pd.DataFrame]:
    """What became of all bars, and every version of their features; see `feature_versions`."""
    told = history(versions, params)
    return told, feature_versions(versions, told.cleaned.bars, told.changes, told.market, params)


def _known_since(
    dates: pd.Series, code: np.ndarray, names: pd.Index, known: pd.DataFrame, min_history: int
) -> np.ndarray:
    """When the features of each bar were known: when it was, and `min_history` bars of its symbol were.

    Args:
        dates: (n,) of clean bars, each symbol's together.
        code: (n,) the position of each one's symbol in `names`, ascending.
        known: `symbol`, `date` and `known_at` of these bars, and of others.

    Returns:
        (n,) datetime64[us], UTC.
    """
    mine, theirs = (
        symbol * SHIFT + days.to_numpy("datetime64[D]").astype("int64")
        for symbol, days in ((code, dates), (names.get_indexer(known["symbol"]), known["date"]))
    )
    order = np.argsort(theirs, kind="stable")  # of several rows of one bar the first counts
    own = _instants(known[KNOWN])[order[np.searchsorted(theirs, mine, sorter=order)]]
    counts = np.bincount(code)
    long = counts >= min_history
    enough = np.full(len(counts), np.datetime64("NaT", "us"))
    first = np.cumsum(counts) - counts
    enough[long] = own[np.lexsort((own, code))][first[long] + min_history - 1]
    enough = np.repeat(enough, counts)
    return np.where(own >= enough, own, enough)


def _instants(column: pd.Series) -> np.ndarray:
    """A column of instants (UTC) as datetime64[us]."""
    return column.dt.tz_convert(None).to_numpy("datetime64[us]")


def _utc(instants: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(instants, tz="UTC")


def _told(
    table: _Table, in_order: np.ndarray, spans: pd.DataFrame, rows_of: dict[str, np.ndarray]
) -> Iterator[_Versions]:
    """All versions of all symbols.

    Args:
        in_order: the rows of symbols whose past never changed.
        spans: `symbol`, `since` and the `name` of what stood in it; of the others.
        rows_of: those of a name; one of which no bar was clean is missing.
    """
    yield _Versions(in_order, table.created[in_order], gone=False)
    none = np.arange(0)
    for _, of_symbol in spans.groupby("symbol", sort=False):
        stood = [rows_of.get(name, none) for name in of_symbol["name"]]
        yield from _changes(table, list(zip(_instants(of_symbol["since"]), stood, strict=True)))


def _changes(table: _Table, spans: list[tuple[np.datetime64, np.ndarray]]) -> Iterator[_Versions]:
    """The versions of one symbol's rows.

    Args:
        spans: (its begin, the rows as they stood in it), in order of time.
    """
    (_, current), *later = spans
    yield _Versions(current, table.created[current], gone=False)
    steps = []
    for since, rows in later:
        if len(rows) and table.created[rows].min() > since:
            steps.append((since, rows[:0]))  # its history was too short at first, and then long enough
        steps.append((since, rows))
    for since, rows in steps:
        _, had, has = np.intersect1d(
            table.session[current], table.session[rows], assume_unique=True, return_indices=True
        )
        same = _same(table, current[had], rows[has])
        new, gone = np.delete(rows, has[same]), np.delete(current, had)
        yield _Versions(new, np.maximum(table.created[new], since), gone=False)
        yield _Versions(gone, np.full(len(gone), since), gone=True)
        current = np.concatenate([current[had[same]], new])
        current = current[np.argsort(table.session[current])]


def _same(table: _Table, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether rows are those others but for rounding; (n,) bool of (n,) row numbers each."""
    a, b = (table.values.take(rows, axis=1) for rows in (some, others))
    same = (a.view("int64") == b.view("int64")).all(axis=0)
    differ = ~same
    same[differ] = np.isclose(a[:, differ], b[:, differ], equal_nan=True, **ROUNDING).all(axis=0)
    return same & (table.segment[some] == table.segment[others])


def write_feature_versions(
    workspace: Workspace, params: CleanParams, engine: EngineParams, shard_rows: int = SHARD_ROWS
) -> str:
    """Write the versions of the features of all symbols, and the list of their revisions.

    Returns:
        a summary for a person: rows, and what was revised.
    """
    ranges = symbol_ranges(workspace.clean_bars, shard_rows)
    shards = Shards(
        engine,
        partial(_shard, str(workspace.root), params),
        ranges,
        workspace.feature_shards,
        [workspace.root / name for name in INPUTS],
        params.model_dump(mode="json"),
        CODE,
    )
    revised = []

    def versions() -> Iterator[pa.Table]:
        for tables in shards:
            revised.append(tables["revisions"].to_pandas())
            yield tables["versions"]

    write_groups(versions(), workspace.daily_features)
    changes = pd.concat(revised, ignore_index=True)
    write_parquet(changes, workspace.revisions)
    shards.remove()
    counts = symbol_counts(workspace.clean_bars)
    rows = pc.sum(counts["rows"]).as_py()
    head = f"{rows:,} rows of {len(NAMES)} features for {len(counts):,} symbols"
    return "\n".join([head, *_describe(changes, workspace.revisions)])


def _shard(root: str, params: CleanParams, symbols: Range) -> dict[str, pa.Table]:
    workspace = Workspace(root)
    market = read_cross_section(workspace) if params.verdicts == "all" else None
    paths = workspace.clean_bars, workspace.bar_versions
    bars, of_bars = (read_symbols(path, symbols).to_pandas() for path in paths)
    changes, factors, actions = (
        read_range(path, symbols)
        for path in (workspace.changes, workspace.bar_factors, workspace.bar_actions)
    )
    versions = BarVersions(of_bars, factors, read_parquet(workspace.seals), actions)
    rows = feature_versions(versions, bars, changes, market, params)
    return {
        "versions": pa.Table.from_pandas(rows, preserve_index=False),
        "revisions": pa.Table.from_pandas(revisions(rows), preserve_index=False),
    }


def _describe(changes: pd.DataFrame, path: Path) -> Iterator[str]:
    """Revisions in a sentence, if there are any."""
    bars = changes[changes["bar_changed"]]
    if len(bars):
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in bars["kind"].value_counts(sort=False).items())
        names = bars["symbol"].unique()
        yield f"{len(bars):,} bars revised ({kinds}) of {', '.join(names[:5])}" + (
            f" and {len(names) - 5:,} more symbols" if len(names) > 5 else ""
        )
    if len(changes):
        instants = changes["event_timestamp"]
        yield (
            f"features moved in {len(changes):,} rows, sessions {instants.min():%Y-%m-%d} to "
            f"{instants.max():%Y-%m-%d}: {path}"
        )
