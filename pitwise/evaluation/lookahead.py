"""Does a feature or a signal look ahead? It is run on all bars, and on bars that end earlier.

A value that a function gives for a session must be the same whatever came after the session's close. So
whoever looks ahead shows it where the future is taken away: the value changes, or is no longer there.
Source: the test that freqtrade's users know as lookahead-analysis.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import is_session, session_close
from pitwise.bars.schema import NUMBERS
from pitwise.bars.sources.calendar_files import EVENT_KEY
from pitwise.errors import DataError, one_line
from pitwise.evaluation import metrics
from pitwise.features.calendar_events import at_sessions, last_events
from pitwise.features.indicators import compute

Signal = Callable[..., Any]
"""A function of bars, or of bars and a table."""
BARS = ["symbol", "timestamp", *NUMBERS]
KEY = ["symbol", "timestamp"]
STRONG = 2.0
"""|t| of a rank IC from which on being in a table goes with returns; by chance, one table in 20."""
NEWCOMER = "~NEWCOMER"
"""A symbol that no market has; it sorts behind all others."""
SAYS = {
    "determinism": "two runs on the same bars differ, so nothing else can be told; seed what it draws",
    "value": "the value changes with bars after the session",
    "presence": "whether there is a value changes with bars after the session",
    "symbols": "the value changes with a symbol that is listed after the session",
    "known_at": "the value changes with rows of the table that were not known yet",
    "coverage": "being in the table at any time, which nobody knew, goes with the returns before",
    "backfilled": "symbols whose second event had come before the first was known: filled in afterwards",
    "known_late": "no row of the table was known in any session of the bars",
    "known_at_once": "all rows have one known_at: when the list was made, not when each was known",
}
"""What each check found."""


class Finding(NamedTuple):
    """What looks ahead, with one example of it."""

    check: str
    """One of `SAYS`."""
    column: str
    rows: int
    """How many are affected, of all cuts; 0 where it is not of single rows."""
    symbol: str | None = None
    session: str | None = None
    cut: str | None = None
    """The last session that was there, `YYYY-MM-DD` as the session."""
    now: float | None = None
    """The value with all bars; None for none. Of `coverage`, the t statistic of all rows; of
    `backfilled` the symbols that all rows cover."""
    then: float | None = None
    """The value with the bars up to the cut. Of `coverage`, the t statistic of the rows known by each
    session; of `backfilled` the symbols that these cover."""


class Answer(NamedTuple):
    """What the checks found."""

    columns: list[str]
    cuts: list[str]
    findings: list[Finding]


def indicators(bars: pd.DataFrame) -> pd.DataFrame:
    """The built-in features of bars, as a signal that passes."""
    return compute(bars).drop(columns=NUMBERS).set_axis(bars.index)


def calendar_events(bars: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """What stage `dataset` makes of a calendar, of all its kinds as one, as a signal that passes."""
    last = last_events(table.assign(kind="event")).drop(columns="kind")
    spine = bars[["symbol"]].astype(object).assign(event_timestamp=session_close(bars["timestamp"]))
    spine = spine.reset_index().sort_values("event_timestamp", kind="stable")
    last = last.astype({"event_timestamp": spine["event_timestamp"].dtype})
    last = last.sort_values("event_timestamp", kind="stable")
    found = pd.merge_asof(spine, last, on="event_timestamp", by="symbol").set_index("index").sort_index()
    return at_sessions(found, found["event_timestamp"])


def load_signal(target: str, folder: Path) -> Signal:
    """A function by `module:function` or `file.py:function`.

    Args:
        folder: where modules and relative files are looked for first.

    Raises:
        DataError: there is no such file, module or function, or importing it fails.
    """
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise DataError(f"{target}: name it as module:function or as file.py:function.")
    try:
        if where.endswith(".py"):
            path = folder / Path(where).expanduser()
            if not path.is_file():
                raise DataError(f"{path}: there is no such file.")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(folder))
            try:
                module = importlib.import_module(where)
            finally:
                sys.path.remove(str(folder))
    except DataError:
        raise
    except Exception as error:  # whatever a person's module does while it is imported
        raise DataError(
            f"{target}: cannot be imported ({type(error).__name__}: {one_line(error)})."
        ) from error
    signal = getattr(module, name, None)
    if not callable(signal):
        raise DataError(f"{target}: {where} has no function '{name}'.")
    return signal


def as_bars(rows: pd.DataFrame) -> pd.DataFrame:
    """Bars as a signal gets them: `BARS`, by symbol and session, one row each.

    Args:
        rows: `symbol`, `date` and the numbers; rows without a symbol, a
            session of the exchange or a close are left out.

    Raises:
        DataError: no bar is left.
    """
    bars = rows.rename(columns={"date": "timestamp"})[BARS].dropna(subset=[*KEY, "close"])
    bars = bars[is_session(bars["timestamp"])].drop_duplicates(KEY, keep="last")
    bars = bars.sort_values(KEY, ignore_index=True)
    if bars.empty:
        raise DataError("there is no bar with a symbol, a close, and a session of the exchange.")
    return bars


def lookahead(
    signal: Signal,
    bars: pd.DataFrame,
    table: pd.DataFrame | None = None,
    cuts: int = 12,
    tolerance: float = 1e-6,
    seed: int = 7,
) -> Answer:
    """Look for what a signal knows too early.

    Args:
        signal: a function of the bars, and of the table if there is one. It returns a Series or a
            DataFrame of numbers, indexed as the bars or by (symbol, timestamp); rows may be missing.
        bars: see `as_bars`.
        table: events with `known_at`, see `pitwise.bars.sources.calendar_files.csv_events`.
        cuts: sessions after which the future is taken away, drawn from the last two thirds.
        tolerance: change that is rounding, relative to the value and to the column's usual size.

    Raises:
        DataError: too few sessions, the signal fails, or what it returns cannot be aligned.
    """
    chosen = _cuts(bars, table, cuts, seed)
    days = [f"{cut:%Y-%m-%d}" for cut in chosen]

    def run(some: pd.DataFrame, events: pd.DataFrame | None = None) -> pd.DataFrame:
        return _aligned(signal, some, events)

    now = run(bars, table)
    again = run(bars, table)
    columns = [str(name) for name in now]
    found = _differences("determinism", now, again, bars, bars["timestamp"].max(), tolerance=0.0)
    if found or list(again) != list(now):
        return Answer(columns, days, found or [Finding("determinism", ", ".join(columns), 0)])
    for cut in chosen:
        past = bars[bars["timestamp"] <= cut]
        events, known = None, now
        if table is not None:
            close = session_close(pd.Series([cut])).iloc[0]
            events = table[table["known_at"] <= close].reset_index(drop=True)
            known = run(bars, events)
            found += _differences("known_at", now, known, past, cut, tolerance)
        found += _differences("value", known, run(past, events), past, cut, tolerance)
    middle = chosen[len(chosen) // 2]
    past = bars[bars["timestamp"] <= middle]
    found += _differences(
        "symbols", now, run(_with_newcomer(bars, middle), table), past, middle, tolerance
    )
    if table is not None:
        found += _of_the_table(bars, table, chosen)
    return Answer(columns, days, list(_summed(found)))


def _cuts(bars: pd.DataFrame, table: pd.DataFrame | None, count: int, seed: int) -> list[pd.Timestamp]:
    """Sessions to cut after; where a table has rows that came late, some just before they came."""
    sessions = np.sort(bars["timestamp"].unique())
    later = sessions[len(sessions) // 3 : -1]
    if len(later) < 2:
        raise DataError(f"{len(sessions)} sessions are too few to take some away; bring 10 or more.")
    rng = np.random.default_rng(seed)
    chosen = set(rng.permutation(later)[:count])
    if table is not None:
        closes = session_close(pd.Series(later)).to_numpy()
        at = np.searchsorted(later, table["date"].to_numpy("datetime64[us]"))
        inside = np.flatnonzero(at < len(later))
        came_late = closes[at[inside]] < table["known_at"].iloc[inside].to_numpy()
        chosen |= set(rng.permutation(np.unique(later[at[inside[came_late]]]))[:count])
    return [pd.Timestamp(cut) for cut in sorted(chosen)]


def _with_newcomer(bars: pd.DataFrame, cut: pd.Timestamp) -> pd.DataFrame:
    """The bars and those of a symbol that is listed after the cut, dearer and larger than all others."""
    later = bars[bars["timestamp"] > cut]
    longest = later["symbol"].value_counts().index[0]
    newcomer = later[later["symbol"] == longest].assign(symbol=NEWCOMER)
    newcomer[NUMBERS] *= 1000.0
    return pd.concat([bars, newcomer.astype(bars.dtypes)], ignore_index=True)


def _aligned(signal: Signal, bars: pd.DataFrame, table: pd.DataFrame | None) -> pd.DataFrame:
    """What a signal says, a row a bar, on the index of the bars; float64, NaN where nothing is said."""
    until = f"{bars['timestamp'].max():%Y-%m-%d}"
    if bars["symbol"].iloc[-1] == NEWCOMER:
        until += f" and {NEWCOMER}, a symbol that is listed late"
    given = bars.reset_index(drop=True)
    arguments = [given.copy()] if table is None else [given.copy(), table.copy()]
    try:
        said = signal(*arguments)
    except Exception as error:  # a person's own code
        raise DataError(
            f"the function fails on the bars up to {until} ({type(error).__name__}: {one_line(error)})."
        ) from error
    if isinstance(said, pd.Series):
        said = said.to_frame(said.name if said.name is not None else "value")
    if not isinstance(said, pd.DataFrame):
        raise DataError(
            f"the function returns {type(said).__name__}; it needs to be a Series or a DataFrame."
        )
    if said.index.nlevels == len(KEY) and pd.api.types.is_integer_dtype(said.index.levels[1].dtype):
        said = said.droplevel(0)  # groupby().rolling() puts the symbol before the row
    if said.index.nlevels == len(KEY):
        said = said.set_axis(said.index.set_names(KEY), axis=0)
        wanted = pd.MultiIndex.from_frame(given[KEY])
        known = said.index.isin(wanted)
    else:
        wanted, known = given.index, said.index.isin(given.index)
    if not known.all() or said.index.has_duplicates:
        raise DataError(
            "what the function returns cannot be aligned: its index has to be that of the bars, or "
            f"(symbol, timestamp), each once. It has {len(said):,} rows, {int((~known).sum()):,} "
            "of them unknown."
        )
    try:
        values = said.reindex(wanted).astype("float64")
    except (TypeError, ValueError) as error:
        raise DataError(f"the function returns what is no number ({one_line(error)}).") from error
    return values.drop(columns=[name for name in KEY if name in values]).set_axis(bars.index)


def _differences(
    check: str,
    now: pd.DataFrame,
    then: pd.DataFrame,
    past: pd.DataFrame,
    cut: pd.Timestamp,
    tolerance: float,
) -> list[Finding]:
    """The columns whose values of the past differ, the newest difference as the example of each."""
    found = []
    for column in dict.fromkeys([*now, *then]):
        none = pd.Series(np.nan, past.index)
        has = now[column].loc[past.index] if column in now else none
        had = then[column].reindex(past.index) if column in then else none
        a, b = has.to_numpy("float64"), had.to_numpy("float64")
        usual = float(np.nanmedian(np.abs(a))) if np.isfinite(a).any() else 0.0
        appeared = np.isnan(a) != np.isnan(b)
        moved = ~np.isclose(a, b, rtol=tolerance, atol=tolerance * usual, equal_nan=True) & ~appeared
        for name, where in ((check, moved), ("presence" if check == "value" else check, appeared)):
            rows = np.flatnonzero(where)
            if len(rows):
                row = rows[np.argmax(past["timestamp"].to_numpy()[rows])]
                found.append(
                    Finding(
                        name,
                        str(column),
                        len(rows),
                        str(past["symbol"].iloc[row]),
                        f"{past['timestamp'].iloc[row]:%Y-%m-%d}",
                        f"{cut:%Y-%m-%d}",
                        _number(a[row]),
                        _number(b[row]),
                    )
                )
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _summed(findings: list[Finding]) -> Iterator[Finding]:
    """One finding a check and column: the first cut's example, the rows of all cuts."""
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        by_kind.setdefault((one.check, one.column), []).append(one)
    for same in by_kind.values():
        yield same[0]._replace(rows=sum(one.rows for one in same))


def _of_the_table(bars: pd.DataFrame, table: pd.DataFrame, cuts: list[pd.Timestamp]) -> list[Finding]:
    """What a table knows too early by itself, whatever a signal makes of it."""
    found = []
    last = session_close(bars["timestamp"].iloc[[bars["timestamp"].argmax()]]).iloc[0]
    if table["known_at"].min() > last:
        found.append(Finding("known_late", "known_at", len(table)))
    if len(table) > 1 and table["known_at"].nunique() == 1:
        found.append(Finding("known_at_once", "known_at", len(table)))
    coverage = coverage_rank_ic(bars, table)
    if coverage.t is not None and abs(coverage.t) >= STRONG:
        # A list of survivors whose rows have honest instants is as strong as known then.
        then = coverage_rank_ic(bars, table, as_known=True).t
        found.append(Finding("coverage", "in the table", coverage.rows, now=coverage.t, then=then))
    for cut in cuts:
        found += _backfilled(bars, table, cut)
    return found


def _backfilled(bars: pd.DataFrame, table: pd.DataFrame, cut: pd.Timestamp) -> list[Finding]:
    """Symbols of a session that the table covers by rows of before it, none of which was known then.

    Whoever follows a company knows its first event before the second one comes.
    """
    close = session_close(pd.Series([cut])).iloc[0]
    listed = bars.loc[bars["timestamp"] == cut, "symbol"]
    past = table[(table["date"] <= cut) & table["symbol"].isin(listed)]
    events = past.drop_duplicates(EVENT_KEY).groupby("symbol").size()
    known = set(past.loc[past["known_at"] <= close, "symbol"])
    late = sorted(symbol for symbol in events.index[events > 1] if symbol not in known)
    if not late:
        return []
    day = f"{cut:%Y-%m-%d}"
    rows = int(past["symbol"].isin(late).sum())
    return [Finding("backfilled", "in the table", rows, late[0], day, day, len(events), len(known))]


class Coverage(NamedTuple):
    rank_ic: float | None
    t: float | None
    rows: int
    """Of sessions in which symbols of both kinds have a return."""


def coverage_rank_ic(bars: pd.DataFrame, table: pd.DataFrame, as_known: bool = False) -> Coverage:
    """Rank IC of `symbol is in the table at any time` with the next session's log return.

    Args:
        bars: see `as_bars`.
        table: `symbol`, and `known_at` where the next is so.
        as_known: of `a row of the symbol is known at the session's close` instead.
    """
    later = bars.groupby("symbol")["close"].shift(-1)
    returns = np.log(later / bars["close"]).to_numpy("float64")
    there = bars["symbol"].isin(table["symbol"]).to_numpy(float)
    if as_known:
        since = bars["symbol"].astype(object).map(table.groupby("symbol")["known_at"].min())
        there = (since <= session_close(bars["timestamp"])).to_numpy(float)
    known = np.isfinite(returns)
    sessions = pd.factorize(bars["timestamp"].to_numpy()[known], sort=True)[0]
    ic = metrics.rank_ic(there[known], returns[known], sessions)
    mean, t = metrics.mean_and_t(ic)
    return Coverage(mean, t, int(np.isfinite(ic)[sessions].sum()) if len(sessions) else 0)
