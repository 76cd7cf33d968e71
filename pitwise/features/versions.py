"""Every version of the daily features, from the versions of the bars.

It is made a group of symbols at a time, so it need not fit into memory.
"""

from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pitwise.bars.calendar import session_close
from pitwise.bars.schema import BAR_KEY
from pitwise.bars.versions import BarVersions, known_bars
from pitwise.cleaning.as_of import cleaned_again
from pitwise.cleaning.clean import Cleaned, CleanParams
from pitwise.features.daily import FACTORS, daily_features
from pitwise.features.history import CREATED, KEYS, came_late, revisions
from pitwise.features.indicators import NAMES
from pitwise.workspace import Workspace, read_parquet, replacing, write_parquet

GROUP_ROWS = 250_000
"""About as many bars are in memory with their features at a time."""
MICROSECOND = pd.Timedelta(1, "us")
EVER = pd.Timestamp(0, tz="UTC")
INSTANT = "datetime64[us, UTC]"
ROUNDING = {"rtol": 1e-12, "atol": 1e-10}
"""Features that differ by less make no version: an average that never quite forgets a corrected bar
would else go on to version every session after it. What a changed bar changes is larger: a share in 1e10
moves the mean volume of 20 sessions by 5e-12."""

Range = tuple[str | None, str | None]
"""Symbols from the first, included, to the second, not included; None: no end."""


def symbol_groups(symbols: pd.Series, rows: int) -> Iterator[tuple[slice, Range]]:
    """Some symbols at a time, of `rows` rows or a little more.

    Args:
        symbols: (n,) of the bars, sorted.

    Yields:
        the rows, and the symbols that they are and those that sort between them and the next group's:
        together the ranges hold every symbol there is, each once.
    """
    starts = np.flatnonzero(~symbols.duplicated().to_numpy())
    wanted = np.arange(0, starts[-1] + 1, rows)
    edges = [*np.unique(starts[np.searchsorted(starts, wanted)]).tolist(), len(symbols)]
    for start, end in pairwise(edges):
        first = symbols.iloc[start] if start > 0 else None
        yield slice(start, end), (first, symbols.iloc[end] if end < len(symbols) else None)


def feature_versions(
    versions: BarVersions, cleaned: Cleaned, params: CleanParams, progress: bool = False
) -> pd.DataFrame:
    """Every version of some symbols' features, each with the instant from which it was known.

    The features of a session follow from the bars up to it, so a session that came in order has one
    version, known when its bar was. What came late, was corrected or withdrawn, or an adjustment made
    known late, is a revision: from its instant on the symbol's past is another one, and what differs in
    it is a version known from there.

    Args:
        versions: of these symbols' bars and factors.
        cleaned: their bars as known now, cleaned.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp`, the features, `price_factor`, `share_factor`,
        `segment`, sorted by the first three. A withdrawn row has no features.
    """
    keyed = versions.bars.dropna(subset=BAR_KEY).drop_duplicates([*BAR_KEY, "known_at"])
    spans = _spans(keyed, versions.factors)
    revised = cleaned.bars["symbol"].isin(spans["symbol"])
    parts = [_known_since(daily_features(cleaned.bars[~revised], progress), keyed, params.min_history)]

    tables: dict[str, list[tuple[pd.Timestamp, pd.DataFrame]]] = {}
    for until, of_symbols in spans.groupby("until", dropna=False):
        symbols = of_symbols["symbol"]
        bars, had = cleaned.bars[cleaned.bars["symbol"].isin(symbols)], keyed
        if not pd.isna(until):
            at = until - MICROSECOND
            bars = cleaned_again(known_bars(versions, at, set(symbols)), cleaned, params)
            had = keyed[keyed["known_at"] <= at]
        table = _known_since(daily_features(bars), had, params.min_history)
        by_symbol = dict(list(table.groupby("symbol", sort=False)))
        for symbol, since in zip(symbols, of_symbols["since"], strict=True):
            tables.setdefault(symbol, []).append((since, by_symbol.get(symbol, table.iloc[:0])))
    parts += [_changes(sorted(of_symbol, key=lambda t: t[0])) for of_symbol in tables.values()]
    return pd.concat(parts).sort_values([*KEYS, CREATED], ignore_index=True)


def _spans(keyed: pd.DataFrame, factors: pd.DataFrame) -> pd.DataFrame:
    """The spans of time between two revisions of a symbol that was ever revised.

    Returns:
        `symbol`, `since` and `until`: the first begins at `EVER`, the last has no end (NaT).
    """
    again = keyed.duplicated(BAR_KEY).to_numpy()
    first = keyed[~again]
    late = first[came_late(first, "known_at")]
    known_first = first.set_index(BAR_KEY)["known_at"]
    with_bar = known_first.reindex(pd.MultiIndex.from_frame(factors[BAR_KEY])).to_numpy()
    adjusted = factors[~(factors["known_at"].to_numpy() <= with_bar)]
    instants = pd.concat([part[["symbol", "known_at"]] for part in (keyed[again], late, adjusted)])
    instants = instants.drop_duplicates().sort_values(["symbol", "known_at"], ignore_index=True)
    begin = instants[["symbol"]].drop_duplicates().assign(known_at=EVER)
    begin["known_at"] = begin["known_at"].astype(instants["known_at"].dtype)
    spans = pd.concat([begin, instants]).sort_values(["symbol", "known_at"], ignore_index=True)
    spans = spans.rename(columns={"known_at": "since"})
    return spans.assign(until=spans.groupby("symbol")["since"].shift(-1))


def _known_since(table: pd.DataFrame, keyed: pd.DataFrame, min_history: int) -> pd.DataFrame:
    """The table with `created_timestamp`: when the row's bar was known, and `min_history` bars were."""
    own = keyed.drop_duplicates(BAR_KEY, keep="last")
    own = own.assign(event_timestamp=session_close(own["date"]))[[*KEYS, "known_at"]]
    own = own[own["event_timestamp"].notna()]  # a misdated row is of no session
    known = table[KEYS].merge(own, on=KEYS, how="left", validate="one_to_one")["known_at"]
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
    for since, table in later:
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
    workspace: Workspace, params: CleanParams, group_rows: int = GROUP_ROWS, progress: bool = False
) -> str:
    """Write the versions of the features of all symbols, and the list of their revisions.

    Returns:
        a summary for a person: rows, and what was revised.
    """
    bars = read_parquet(workspace.clean_bars)
    quarantine, events, factors = (
        read_parquet(path) for path in (workspace.quarantine, workspace.events, workspace.bar_factors)
    )
    revised = []

    def groups() -> Iterator[pa.Table]:
        for rows, symbols in symbol_groups(bars["symbol"], group_rows):
            cleaned = Cleaned(bars.iloc[rows], _of(quarantine, symbols), _of(events, symbols))
            versions = BarVersions(
                _read(workspace.bar_versions, symbols), _of(factors, symbols), factors.iloc[:0]
            )
            history = feature_versions(versions, cleaned, params, progress)
            revised.append(revisions(history))
            yield pa.Table.from_pandas(history, preserve_index=False)

    _write_groups(groups(), workspace.daily_features)
    changes = pd.concat(revised, ignore_index=True)
    write_parquet(changes, workspace.revisions)
    head = f"{len(bars):,} rows of {len(NAMES)} features for {bars['symbol'].nunique():,} symbols"
    return "\n".join([head, *_describe(changes, workspace.revisions)])


def _read(path: Path, symbols: Range) -> pd.DataFrame:
    """The rows of a table, sorted by symbol, of a range of symbols."""
    first, end = symbols
    filters = [("symbol", ">=", first)] * (first is not None) + [("symbol", "<", end)] * (
        end is not None
    )
    return pd.read_parquet(path, filters=filters or None)


def _of(rows: pd.DataFrame, symbols: Range) -> pd.DataFrame:
    """The rows of a range of symbols."""
    first, end = symbols
    inside = rows["symbol"].notna()
    if first is not None:
        inside &= rows["symbol"] >= first
    if end is not None:
        inside &= rows["symbol"] < end
    return rows[inside]


def _write_groups(groups: Iterator[pa.Table], path: Path) -> None:
    """Write one table from its parts, a row group each."""
    head = next(groups)
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary, head.schema, coerce_timestamps="us", allow_truncated_timestamps=True
        ) as writer,
    ):
        for group in chain([head], groups):
            writer.write_table(group, row_group_size=len(group))


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
