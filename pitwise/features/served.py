"""Windows as they were served: made of what was known when their session was new.

A correction that came later is in the windows that end after it and in none that ended before. Rows as
they are known now cannot show both. So beside them stand, for the windows that were served otherwise,
the versions of that time: runs of consecutive rows, whose windows overlap like those of any other rows.
A window is gathered from the one table or from the other, by one rule.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_close
from pitwise.features.daily import FACTORS
from pitwise.features.history import CREATED, KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.windows import WindowRows, window_ends

SERVED = [*KEYS, CREATED, *NAMES, *FACTORS]
BEGINS = "begins"
"""Column of the rows as served: the first of a run of rows that stood one after the other."""
ENDS = "ends_window"
VERSION, COMPLETE = "version", "complete"
NOW = np.iinfo("int64").max
"""Instant after every other, in microseconds: a session that is not sealed shows what is known now."""


def as_served(
    history: pd.DataFrame, seals: pd.DataFrame, length: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """Which windows were served, and the rows of those that were not served as they are known now.

    Args:
        history: as `served_versions` takes it, without `complete`, and the features, `price_factor`,
            `share_factor`.
        seals, length: see `served_versions`.

    Returns:
        (n,) bool, see `served_versions`, and the rows as served: `SERVED`, `begins`, `ends_window`.
    """
    complete = history[NAMES].notna().to_numpy().all(axis=1)
    ends, runs = served_versions(history.assign(**{COMPLETE: complete}), seals, length)
    rows = history.iloc[runs.pop(VERSION)][SERVED].reset_index(drop=True)
    return ends, pd.concat([rows, runs], axis=1)


def served_versions(
    history: pd.DataFrame, seals: pd.DataFrame, length: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """Which windows were served, and the versions in those that were not served as they are known now.

    The window of a symbol's session is made of the versions known when the session was sealed, or when
    the symbol's row of it was first known, if that was later.

    Args:
        history: versions of some symbols or all, sorted by symbol, event_timestamp and
            created_timestamp: `KEYS`, `CREATED`, `close`, `complete` (whether no feature is missing).
        seals: `date` (of the session), `sealed_at` (UTC); sessions without one are still open.
        length: sessions in a window.

    Returns:
        (n,) bool, for each row of `known(history)` whether a window ended there when it was served,
        and the versions as served: `version` (position in the history), `begins`, `ends_window` (the
        window that ends here is the one of this symbol and session), run after run, in the order of
        symbol and session.
    """
    versions = _Versions(history)
    current = versions.current
    served_at = versions.served_at(seals)[versions.key[current]]
    symbols = versions.symbol[current]
    complete = versions.complete[current]
    ends = np.zeros(len(current), dtype=bool)
    ends[window_ends(symbols, np.where(complete, 0.0, np.nan)[:, None], length)] = True

    doubtful = _doubtful(versions, served_at, length)
    runs, begins, ending = [], [], []
    by_symbol = np.split(doubtful, np.flatnonzero(np.diff(symbols[doubtful])) + 1)
    for of_symbol in by_symbol if len(doubtful) else []:
        whole, windows = versions.windows(current[of_symbol], served_at[of_symbol], length)
        ends[of_symbol] = whole
        at = of_symbol[whole]
        from_now = np.maximum(at[:, None] + np.arange(1 - length, 1), 0)
        windows = windows[(windows != current[from_now]).any(axis=1)]
        goes_on = np.zeros(len(windows), dtype=bool)
        goes_on[1:] = (windows[1:, :-1] == windows[:-1, 1:]).all(axis=1)
        new = np.broadcast_to(~goes_on[:, None], windows.shape).copy()
        new[:, -1] = True
        is_last = np.broadcast_to(np.arange(length) == length - 1, windows.shape)
        is_first = ~goes_on[:, None] & (np.arange(length) == 0)
        runs.append(windows[new])
        begins.append(is_first[new])
        ending.append(is_last[new])
    columns = {VERSION: _joined(runs, int), BEGINS: _joined(begins, bool), ENDS: _joined(ending, bool)}
    return ends, pd.DataFrame(columns)


class ServedWindows:
    """The one place that the windows of a training set are gathered from.

    Args:
        rows: as stage `dataset` leaves them: `symbol`, `event_timestamp`, the features, `price_factor`,
            `share_factor`, `ends_window`.
        served: the rows as served, see `as_served`; none where all windows are those of `rows`.
        features: the columns, in the order of the windows.
    """

    def __init__(self, rows: pd.DataFrame, served: pd.DataFrame, features: Sequence[str]):
        self._ends = rows[ENDS].to_numpy()
        self.at = np.arange(len(rows))
        """(n,) where in `self.rows` the window that ends at each row does."""
        self._begins = ~rows["symbol"].duplicated().to_numpy()
        if len(served):
            self.at[positions(rows, served)] = len(rows) + np.flatnonzero(served[ENDS])
            self._begins = np.append(self._begins, served[BEGINS])
            columns = [*features, *FACTORS]
            rows = pd.concat([rows[columns], served[columns]], ignore_index=True)
        self.rows = WindowRows(rows, features)
        """The rows, and after them those that were served otherwise."""

    def ends(self, length: int) -> np.ndarray:
        """Positions in the rows at which a window of that length ends.

        A window longer than the set's own is known as it was served for the set's own length, and may
        show what is known now of the sessions before.
        """
        runs = self._begins.cumsum()
        whole = np.zeros(len(runs), dtype=bool)
        whole[window_ends(runs, self.rows.base, length)] = True
        return np.flatnonzero(self._ends & whole[self.at])

    def gather(self, ends: np.ndarray, length: int) -> np.ndarray:
        """The windows ending at `ends`; (len(ends), length, n_features) float32, oldest first."""
        return self.rows.gather(self.at[ends], length)


def positions(rows: pd.DataFrame, served: pd.DataFrame) -> np.ndarray:
    """Where in the rows the sessions stand whose windows were served otherwise, in their order."""
    wanted = served.loc[served[ENDS], KEYS]
    some = np.flatnonzero(rows["symbol"].isin(wanted["symbol"].unique()))
    there = pd.MultiIndex.from_frame(rows[KEYS].iloc[some])
    return some[there.get_indexer(pd.MultiIndex.from_frame(wanted))]


def last_sessions(rows: pd.DataFrame, served: pd.DataFrame, ends: np.ndarray) -> pd.DataFrame:
    """The rows at `ends` with the features that the windows ending there had in their last session."""
    seen = rows.iloc[ends].copy()
    if len(served):
        of_row = pd.Series(np.flatnonzero(served[ENDS]), positions(rows, served))
        there = of_row.reindex(ends).to_numpy()
        other = np.flatnonzero(~np.isnan(there))
        columns = [name for name in (*NAMES, *FACTORS) if name in rows]
        values = seen[columns].to_numpy()
        values[other] = served[columns].to_numpy()[there[other].astype(int)]
        seen[columns] = values
    return seen


class _Versions:
    """A history as arrays, one value a version; times in microseconds."""

    def __init__(self, history: pd.DataFrame):
        self.symbol = pd.factorize(history["symbol"])[0]
        sessions = _microseconds(history["event_timestamp"])
        first = np.ones(len(history), dtype=bool)
        first[1:] = (np.diff(self.symbol) != 0) | (np.diff(sessions) != 0)
        self.key = first.cumsum() - 1
        self.created = _microseconds(history[CREATED])
        self.stands = history["close"].notna().to_numpy()
        self.complete = history[COMPLETE].to_numpy()
        self.newest = np.append(first[1:], True)[: len(first)]
        self.current = np.flatnonzero(self.newest & self.stands)
        self._first = np.flatnonzero(first)
        self._sessions = history["event_timestamp"].iloc[self._first]

    def served_at(self, seals: pd.DataFrame) -> np.ndarray:
        """(n_keys,) the instant whose knowledge the window of each symbol and session shows."""
        sealed = pd.Series(_microseconds(seals["sealed_at"]), session_close(seals["date"]))
        at = self._sessions.map(sealed).to_numpy("float64")  # which has a bit to spare for each of them
        result = np.full(len(at), NOW)
        result[~np.isnan(at)] = at[~np.isnan(at)]
        return np.maximum(result, self.created[self._first])

    def windows(
        self, ends: np.ndarray, served_at: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The windows of one symbol that end in the sessions of these versions, as then known.

        Returns:
            (m,) bool, which of them were whole, and the versions of those, (n, length) positions.
        """
        start, stop = np.searchsorted(self.symbol, self.symbol[ends[0]] + np.arange(2))
        came = start + np.argsort(self.created[start:stop], kind="stable")
        known_by = np.searchsorted(self.created[came], served_at, side="right")
        first_key = self.key[start]
        known = np.full(self.key[stop - 1] - first_key + 1, -1)
        """By session: the newest version so far, -1 where none stands."""
        whole = np.zeros(len(ends), dtype=bool)
        windows = np.empty((len(ends), length), int)
        done = 0
        for i in np.argsort(served_at, kind="stable"):
            news = came[done : known_by[i]]
            # Of several versions of one session the last counts: numpy assigns them in their order.
            known[self.key[news] - first_key] = np.where(self.stands[news], news, -1)
            done = known_by[i]
            last = self.key[ends[i]] - first_key
            window = known[max(0, last + 1 - length) : last + 1]
            window = window[window >= 0]
            if len(window) < length <= last:
                window = known[: last + 1]
                window = window[window >= 0][-length:]
            if known[last] >= 0 and len(window) == length and self.complete[window].all():
                whole[i] = True
                windows[i] = window
        return whole, windows[whole]


def _doubtful(versions: _Versions, served_at: np.ndarray, length: int) -> np.ndarray:
    """Positions of the current rows whose window may have been served otherwise.

    All rows of a window that were known when it was served, in the versions of now, make the window of
    now, unless one stood between them that has been withdrawn.
    """
    current, symbols = versions.current, versions.symbol[versions.current]
    created = versions.created[current]
    doubt = created > served_at
    falls = (served_at[1:] < served_at[:-1]) & (symbols[1:] == symbols[:-1])
    if doubt.any() or falls.any():
        for back in range(1, min(length, len(current))):
            same = symbols[back:] == symbols[:-back]
            doubt[back:] |= same & (created[:-back] > served_at[back:])
    for gone in np.flatnonzero(versions.newest & ~versions.stands):
        after = slice(*(np.searchsorted(current, gone) + np.array([0, length])))
        doubt[after] |= symbols[after] == versions.symbol[gone]
    return np.flatnonzero(doubt)


def _microseconds(instants: pd.Series) -> np.ndarray:
    return instants.to_numpy("datetime64[us]").astype("int64")


def _joined(parts: Collection[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts])
