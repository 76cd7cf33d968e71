"""Every version of the daily features, from the versions of the bars.

It is made in shards of symbols, so it need not fit into memory.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pitwise.bars.calendar import session_close
from pitwise.bars.schema import BAR_KEY
from pitwise.bars.versions import KNOWN, BarVersions, known_bars
from pitwise.cleaning.as_of import FOREVER, History, history, pasts, spans_between
from pitwise.cleaning.clean import Cleaned, CleanParams
from pitwise.cleaning.cross_section import CrossSection, read_cross_section
from pitwise.cleaning.events import INSTANT
from pitwise.engine import EngineParams
from pitwise.features.daily import FACTORS, daily_features
from pitwise.features.history import CREATED, KEYS, revisions
from pitwise.features.indicators import NAMES
from pitwise.shards import Range, Shards, read_range, symbol_ranges, write_groups
from pitwise.workspace import Workspace, read_parquet, write_parquet

SHARD_ROWS = 250_000
"""About as many bars are in a process's memory with their features at a time."""
CODE = ("pitwise/bars", "pitwise/cleaning", "pitwise/features")
INPUTS = (
    Workspace.clean_bars,
    Workspace.quarantine,
    Workspace.events,
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


def feature_versions(
    versions: BarVersions,
    cleaned: Cleaned,
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
        cleaned: their bars as known now, cleaned.
        changes: when their past changed, see `pitwise.cleaning.as_of.changes`.
        market: the cross-section of each session; None with the verdicts switched off.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp`, the features, `price_factor`, `share_factor`,
        `segment`, sorted by the first three. A withdrawn row has no features.
    """
    spans = spans_between(changes)
    changed = cleaned.bars["symbol"].isin(spans["symbol"])
    now = known_bars(versions)[[*BAR_KEY, KNOWN]]
    enough = params.min_history
    parts = [_known_since(daily_features(cleaned.bars[~changed]), now, enough)]
    if len(spans):
        last = spans["until"] == FOREVER
        newest = _known_since(daily_features(cleaned.bars[changed]), now, enough)
        tables = {symbol: [rows] for symbol, rows in newest.groupby("symbol", sort=False)}
        then = pasts(versions, spans[~last], market, params)
        before = _known_since(daily_features(then.cleaned.bars), then.raw[[*BAR_KEY, KNOWN]], enough)
        by_name = dict(list(before.groupby("symbol", sort=False)))
        since = spans.groupby("symbol")["since"].agg(list)
        for symbol, names in then.spans.groupby("symbol", sort=False)["name"]:
            earlier = [by_name.get(name, before.iloc[:0]) for name in names]
            earlier = [rows.assign(symbol=pd.array([symbol] * len(rows), "string")) for rows in earlier]
            pasts_of = [*earlier, *tables.get(symbol, [newest.iloc[:0]])]
            parts.append(_changes(list(zip(since[symbol], pasts_of, strict=True))))
    whole = pd.concat(parts).astype({"symbol": "string"})
    return whole.sort_values([*KEYS, CREATED], ignore_index=True)


def feature_history(versions: BarVersions, params: CleanParams) -> tuple[History, pd.DataFrame]:
    """What became of all bars, and every version of their features; see `feature_versions`."""
    told = history(versions, params)
    return told, feature_versions(versions, told.cleaned, told.changes, told.market, params)


def _known_since(table: pd.DataFrame, bars: pd.DataFrame, min_history: int) -> pd.DataFrame:
    """The table with `created_timestamp`: when the row's bar was known, and `min_history` bars were.

    Args:
        bars: `symbol`, `date` and `known_at` of the bars that the table is made of, at least.
    """
    own = bars.assign(event_timestamp=session_close(bars["date"]))
    own = own[own["event_timestamp"].notna()]  # a misdated row is of no session
    own = own.drop_duplicates(KEYS)[[*KEYS, KNOWN]]
    known = table[KEYS].merge(own, on=KEYS, how="left", validate="one_to_one")[KNOWN]
    ranks = known.groupby(table["symbol"].array).rank(method="first")
    enough = known.where(ranks == min_history).groupby(table["symbol"].array).transform("max")
    table = table.reset_index(drop=True)
    table.insert(len(KEYS), CREATED, known.where(known >= enough, enough).astype(INSTANT))
    return table


def _changes(tables: list[tuple[pd.Timestamp, pd.DataFrame]]) -> pd.DataFrame:
    """The versions of one symbol's rows, from its tables as they stood in each span.

    Args:
        tables: (the span's begin, the table with `created_timestamp`), in order of time.
    """
    (_, current), *later = tables
    versions = [current]
    steps = []
    for since, table in later:
        if table[CREATED].min() > since:  # its history was too short at first, and then long enough
            steps.append((since, table.iloc[:0]))
        steps.append((since, table))
    for since, table in steps:
        had = current.set_index("event_timestamp")
        has = table.set_index("event_timestamp")
        both = had.index.intersection(has.index)
        columns = [*NAMES, *FACTORS]
        close = np.isclose(had.loc[both, columns], has.loc[both, columns], equal_nan=True, **ROUNDING)
        same = close.all(axis=1) & (had.loc[both, "segment"] == has.loc[both, "segment"]).to_numpy()
        new = table[~table["event_timestamp"].isin(both[same])]
        gone = current[~current["event_timestamp"].isin(has.index)].copy()
        gone[columns] = np.nan
        gone[CREATED] = pd.Series(since, gone.index, dtype=INSTANT)
        new = new.assign(**{CREATED: new[CREATED].clip(lower=since).astype(INSTANT)})
        versions += [new, gone]
        kept = current[current["event_timestamp"].isin(both[same])]
        current = pd.concat([kept, new]).sort_values("event_timestamp", ignore_index=True)
    return pd.concat(versions)


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
    symbols = pq.read_table(workspace.clean_bars, columns=["symbol"])["symbol"]
    n_symbols = pc.count_distinct(symbols).as_py()
    head = f"{len(symbols):,} rows of {len(NAMES)} features for {n_symbols:,} symbols"
    return "\n".join([head, *_describe(changes, workspace.revisions)])


def _shard(root: str, params: CleanParams, symbols: Range) -> dict[str, pa.Table]:
    workspace = Workspace(root)
    market = read_cross_section(workspace) if params.verdicts == "all" else None
    bars, quarantine, events, changes, of_bars, factors, actions = (
        read_range(path, symbols)
        for path in (
            workspace.clean_bars,
            workspace.quarantine,
            workspace.events,
            workspace.changes,
            workspace.bar_versions,
            workspace.bar_factors,
            workspace.bar_actions,
        )
    )
    versions = BarVersions(of_bars, factors, read_parquet(workspace.seals), actions)
    rows = feature_versions(versions, Cleaned(bars, quarantine, events), changes, market, params)
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
