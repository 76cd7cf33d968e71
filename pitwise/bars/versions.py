"""Bar versions: every value that a bar has had, and from when it was known.

They are a pure function of the landings. Prices stand as they were first delivered; how they compare
with those of other sessions stands beside them, as factors.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.actions import ACTION_KEY, no_actions
from pitwise.bars.landing import Landing
from pitwise.bars.news import DAY, SHIFT, Deliveries, same_numbers
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, NUMBERS
from pitwise.bars.seals import sealed
from pitwise.workspace import Workspace, read_parquet, write_parquet

KNOWN = "known_at"
FACTOR_KEY = ["symbol", "date", "kind"]
TEXT = {"symbol": "string", "source": "string"}


class BarVersions(NamedTuple):
    bars: pd.DataFrame
    """(n,) `symbol`, `date`, the numbers as delivered, `source`, `known_at` (UTC), `withdrawn`; sorted
    by symbol, date and known_at. Rows of one symbol, date and known_at are one version: more than one
    where a source contradicts itself. Rows without a symbol or a date stand at the end."""
    factors: pd.DataFrame
    """(m,) `symbol`, `date` (session from which it holds), `kind` (adjusted_close | split), `factor`,
    `source`, `known_at`; sorted by these. The factor is what the vendor's ratio of adjusted close to
    close is multiplied by there, relative to the session before: 2 for a split of two for one. The
    newest row of a symbol, session and kind holds, 1 where there is none. A 1 also stands at each
    symbol's first session with an adjusted close."""
    seals: pd.DataFrame
    """(k,) `date` and `sealed_at` (UTC) of each sealed session; sorted."""
    actions: pd.DataFrame = no_actions()
    """(a,) `symbol`, `date` (ex-date), `kind` (see `pitwise.bars.actions.KINDS`), `ratio` (new shares
    for old; of a spin-off the part of the price that is kept), `amount` (dollars a share), `announced`,
    `source`, `known_at` (UTC), `withdrawn`; sorted by symbol, date, kind and known_at."""


def bar_versions(landings: Iterable[Landing], seal_coverage: float) -> BarVersions:
    """Bar versions out of everything that was delivered.

    By source, a statement about a bar is news where it differs from what that source said last about it,
    or where the bar's session had not closed by then. News with the values that hold already makes no
    version. A bar that is absent where its source says that it delivers all is withdrawn.

    Args:
        landings: in the order in which they were received.
        seal_coverage: share of the symbols of the session before that seals a session, 0 to 1.
    """
    taken = taken_from(landings)
    rows = version_rows(taken)
    seals = sealed(
        rows["key"] // SHIFT,
        rows["key"] % SHIFT - SHIFT // 2,
        rows["known"],
        rows["withdrawn"],
        taken.seals,
        taken.assumed,
        seal_coverage,
    )
    bars = bars_of(rows, taken).astype(TEXT)
    if taken.unkeyed:
        bars = pd.concat([bars, unkeyed_bars(taken)], ignore_index=True)
    return BarVersions(bars, factors_of(taken), seals, taken.actions.versions())


def known_bars(
    versions: BarVersions, at: pd.Timestamp | None = None, symbols: Collection[str] | None = None
) -> pd.DataFrame:
    """The bars as they are known, or were known at an instant (UTC), of all symbols or of some.

    Returns:
        (n,) symbol, date, the numbers, `adj_close` where a source delivers one or has shown a split, and
        `known_at`; by symbol and date, withdrawn bars left out. `adj_close` is the close times the
        product of all factors up to its session: its steps are the vendor's, its level is not.
    """
    bars, factors = versions.bars, versions.factors
    adjusted = len(factors) if at is None else (factors[KNOWN] <= at).any()
    if symbols is not None:
        bars, factors = bars[bars["symbol"].isin(symbols)], factors[factors["symbol"].isin(symbols)]
    if at is not None:
        bars, factors = bars[bars[KNOWN] <= at], factors[factors[KNOWN] <= at]
    keyed = bars[BAR_KEY].notna().all(axis=1).to_numpy()
    holds = (newest(bars) | ~keyed) & ~bars["withdrawn"].to_numpy()
    bars = bars if holds.all() else bars[holds]
    result = bars[[*COLUMNS, KNOWN]].reset_index(drop=True)
    if adjusted:
        known = factors.drop_duplicates(FACTOR_KEY, keep="last")
        result.insert(
            result.columns.get_loc(KNOWN), ADJUSTED_CLOSE, result["close"] * adjustment(result, known)
        )
    return result


def known_actions(
    versions: BarVersions, at: pd.Timestamp | None = None, symbols: Collection[str] | None = None
) -> pd.DataFrame:
    """The corporate actions as they are or were known at an instant (UTC), of all symbols or of some.

    Returns:
        (n,) symbol, date, kind, ratio, amount, announced, source and `known_at`; by symbol, date and
        kind, withdrawn ones left out.
    """
    actions = versions.actions
    if symbols is not None:
        actions = actions[actions["symbol"].isin(symbols)]
    if at is not None:
        actions = actions[actions[KNOWN] <= at]
    actions = actions.drop_duplicates(ACTION_KEY, keep="last")
    return actions[~actions["withdrawn"]].drop(columns="withdrawn").reset_index(drop=True)


def newest(bars: pd.DataFrame) -> np.ndarray:
    """The rows of each bar's newest version; (n,) bool. Bars sorted by symbol, date and known_at."""
    if bars.empty:
        return np.zeros(0, bool)
    symbol = pd.factorize(bars["symbol"])[0]
    date = bars["date"].to_numpy("datetime64[us]").astype("int64")
    known = bars[KNOWN].dt.tz_convert(None).to_numpy("datetime64[us]").astype("int64")
    ends = np.append((symbol[1:] != symbol[:-1]) | (date[1:] != date[:-1]), True)
    last = np.flatnonzero(ends)
    counts = np.diff(last, prepend=-1)
    return known == np.repeat(known[last], counts)


def adjustment(bars: pd.DataFrame, factors: pd.DataFrame) -> np.ndarray:
    """Product of a symbol's factors up to each bar; (n,).

    Args:
        bars: by symbol and date.
        factors: those that hold, by symbol and date.
    """
    product = np.ones(len(bars))
    if bars.empty or factors.empty:
        return product
    steps = factors.assign(product=factors.groupby("symbol")["factor"].cumprod())
    code, _ = pd.factorize(pd.concat([bars["symbol"], steps["symbol"]], ignore_index=True))
    days = np.concatenate([f["date"].to_numpy("datetime64[D]").astype("int64") for f in (bars, steps)])
    key = code.astype("int64") * SHIFT + days + SHIFT // 2
    mine, theirs = key[: len(bars)], key[len(bars) :]
    order = np.argsort(theirs, kind="stable")
    at = np.searchsorted(theirs[order], mine, side="right") - 1
    found = (at >= 0) & (theirs[order][at] // SHIFT == mine // SHIFT)
    found &= bars[BAR_KEY].notna().all(axis=1).to_numpy()
    product[found] = steps["product"].to_numpy()[order][at[found]]
    return product


def unsealed_sessions(bars: pd.DataFrame, seals: pd.DataFrame) -> list[pd.Timestamp]:
    """The days with bars that are not sealed."""
    return pd.Index(bars["date"].dropna().unique()).difference(pd.Index(seals["date"])).tolist()


def read_versions(workspace: Workspace) -> BarVersions:
    """The bar versions of a workspace; DataError where stage `bars` has not run."""
    paths = workspace.bar_versions, workspace.bar_factors, workspace.seals, workspace.bar_actions
    return BarVersions(*map(read_parquet, paths))


def write_versions(workspace: Workspace, versions: BarVersions) -> None:
    paths = workspace.bar_versions, workspace.bar_factors, workspace.seals, workspace.bar_actions
    for table, path in zip(versions, paths, strict=True):
        write_parquet(table, path)


def taken_from(landings: Iterable[Landing]) -> Deliveries:
    """The news of landings, in the order in which they were received."""
    taken = Deliveries()
    for landing in landings:
        taken.take(landing)
    return taken


def version_rows(taken: Deliveries) -> dict[str, np.ndarray]:
    """The statements that make a version, by symbol, date and instant; columns of `Statements`."""
    rows: dict[str, np.ndarray] = {name: taken.statements[name] for name in taken.statements.columns}
    names = list(taken.symbols)
    rank = np.empty(len(names), "int64")
    rank[np.argsort(np.array(names, object), kind="stable")] = np.arange(len(names))
    key = rank[rows["key"] // SHIFT] * SHIFT + rows["key"] % SHIFT if len(names) else rows["key"]
    if (np.diff(key) < 0).any():
        order = np.argsort(key, kind="stable")
        key = key[order]
        rows = {name: column[order] for name, column in rows.items()}
    # Of one bar they stand in the order of the landings; those with more than one go by instant.
    begins = np.flatnonzero(_changed(key, rows["known"], rows["order"]))
    several = key[begins][1:] == key[begins][:-1]
    if not several.any() and not rows["withdrawn"].any():
        return rows
    often = np.isin(key, np.unique(key[begins][1:][several])) | rows["withdrawn"]
    some = np.flatnonzero(often)
    order = some[np.lexsort((rows["order"][some], rows["known"][some], key[some]))]
    for name in rows:
        column = rows[name].copy()
        column[some] = rows[name][order]
        rows[name] = column
    start = some[np.flatnonzero(_changed(key[some], rows["known"][some], rows["order"][some]))]
    count = np.diff(np.searchsorted(some, start), append=len(some))
    # What was said last at one instant is what was known from it on.
    ends = np.append((key[start][1:] != key[start][:-1]) | (np.diff(rows["known"][start]) != 0), True)
    keep = np.ones(len(key), bool)
    _drop(keep, start[~ends], count[~ends])
    start, count = start[ends], count[ends]
    follows = np.concatenate([[False], key[start][1:] == key[start][:-1]])
    at = np.flatnonzero(follows)
    one, before = start[at], start[at - 1]
    same = (
        same_numbers((rows, one, count[at]), (rows, before, count[at - 1]))
        & (rows["withdrawn"][one] == rows["withdrawn"][before])
        & (rows["settled"][before] | ~rows["settled"][one])
    )
    _drop(keep, one[same], count[at][same])
    _drop(keep, *(v[~follows & rows["withdrawn"][start]] for v in (start, count)))
    return {name: column[keep] for name, column in rows.items()}


def _drop(keep: np.ndarray, start: np.ndarray, count: np.ndarray) -> None:
    for first, n in zip(start.tolist(), count.tolist(), strict=True):
        keep[first : first + n] = False


def _changed(*columns: np.ndarray) -> np.ndarray:
    changed = np.zeros(len(columns[0]), bool)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return changed


def bars_of(rows: dict[str, np.ndarray], taken: Deliveries) -> pd.DataFrame:
    """The table of `BarVersions.bars`, its texts as categories, without the unkeyed ones.

    Args:
        rows: of `version_rows`.
    """
    days = rows["key"] % SHIFT - SHIFT // 2
    return pd.DataFrame(
        {
            "symbol": pd.Categorical.from_codes(rows["key"] // SHIFT, list(taken.symbols)),
            "date": (days * DAY).astype("datetime64[us]"),
            **{name: rows[name] for name in NUMBERS},
            "source": pd.Categorical.from_codes(rows["source"], list(taken.sources)),
            KNOWN: _utc(rows["known"]),
            "withdrawn": rows["withdrawn"],
        },
        copy=False,
    )


def unkeyed_bars(taken: Deliveries) -> pd.DataFrame:
    """The rows without a symbol or a date, of which there is one at least, as of `BarVersions.bars`."""
    bare = pd.concat(taken.unkeyed).drop_duplicates(COLUMNS, ignore_index=True)
    bare = bare.assign(
        date=bare["date"].astype("datetime64[us]"),
        withdrawn=False,
        **{KNOWN: _utc(bare["known"].to_numpy("int64"))},
        **{name: bare[name].astype("float64") for name in NUMBERS},
    )
    return bare[[*COLUMNS, "source", KNOWN, "withdrawn"]].astype(TEXT)


def factors_of(taken: Deliveries) -> pd.DataFrame:
    """The table of `BarVersions.factors`."""
    names, sources = list(taken.symbols), list(taken.sources)
    codes, days, kinds, factors, said_by, known = (
        zip(*taken.factors, strict=True) if taken.factors else [()] * 6
    )
    table = pd.DataFrame(
        {
            "symbol": _named(names, np.array(codes, "int64")),
            "date": np.array(days, "int64").astype("datetime64[D]").astype("datetime64[us]"),
            "kind": pd.array(kinds, dtype="string"),
            "factor": np.array(factors, "float64"),
            "source": _named(sources, np.array(said_by, "int64")),
            KNOWN: _utc(np.array(known, "int64")),
        }
    )
    return table.sort_values([*FACTOR_KEY, KNOWN], kind="stable", ignore_index=True)


def _named(names: list[str], codes: np.ndarray) -> pd.api.extensions.ExtensionArray:
    return pd.array(np.array(names, object)[codes] if len(codes) else [], dtype="string")


def _utc(instants: np.ndarray) -> pd.Series:
    return pd.Series(instants.astype("datetime64[us]")).dt.tz_localize("UTC")
