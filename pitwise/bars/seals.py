"""When each session was complete: sealed, so that what needs the whole market may be computed."""

from datetime import date

import numpy as np
import pandas as pd

from pitwise.bars.calendar import is_session, session_close

END = np.iinfo(np.int64).max


def day_number(day: date | pd.Timestamp) -> int:
    """Days since 1970."""
    return (pd.Timestamp(day) - pd.Timestamp(0)).days


def sealed(
    symbol: np.ndarray,
    day: np.ndarray,
    known: np.ndarray,
    withdrawn: np.ndarray,
    explicit: dict[int, int],
    assumed: set[int],
    coverage: float,
) -> pd.DataFrame:
    """The sealed sessions.

    A session is sealed as one of its bars becomes known, at the earliest instant at which those that are
    known since its close cover a share of the symbols that have a known bar in the newest session that
    is sealed by then; or by an explicit seal; or with a later session. It is not compared with a session
    that is open still: bars that are caught up with symbol by symbol would seal them all.
    In an assumed history it is, for there the one before is as complete as it ever was.

    Args:
        symbol: (n,) code of each bar version's symbol.
        day: (n,) days since 1970.
        known: (n,) instants in microseconds; of one bar ascending.
        withdrawn: (n,) bool.
        explicit: instant of a person's seal, by day.
        assumed: days of histories that are assumed to have been known as they went.
        coverage: the share, 0 to 1.

    Returns:
        (m,) `date` and `sealed_at` of each sealed session, by date.
    """
    order = np.argsort(_small(day), kind="stable")
    days = day[order].astype("int64")
    starts = np.flatnonzero(np.append(True, days[1:] != days[:-1])[: len(days)])
    days = days[starts]
    dates = pd.Series(days.astype("datetime64[D]").astype("datetime64[us]"))
    open_days = is_session(dates)
    bounds = np.append(starts, len(order))
    sessions: list[Session] = []
    sealed_at: dict[int, int] = {}
    closes = (
        session_close(dates[open_days]).dt.tz_convert(None).to_numpy("datetime64[us]").astype("int64")
    )
    for at, close in zip(np.flatnonzero(open_days), closes.tolist(), strict=True):
        rows = order[bounds[at] : bounds[at + 1]]
        rows = rows[known[rows] >= close]  # a bar of a session that is still open is no bar
        if not len(rows):
            continue
        session = Session(symbol[rows], known[rows], withdrawn[rows], close)
        day_of = int(days[at])
        covered = _covered(session, sessions, day_of in assumed, coverage)
        session.sealed_at = min(covered, max(explicit.get(day_of, END), close))
        sealed_at[day_of] = session.sealed_at
        sessions.append(session)
    closed = {int(d): int(c) for d, c in zip(days[open_days], closes, strict=True)}
    for d, instant in explicit.items():
        if d in closed:
            sealed_at[d] = min(sealed_at.get(d, END), max(instant, closed[d]))
    every = sorted(closed)
    instants = np.array([sealed_at.get(d, END) for d in every], "int64")
    instants = np.minimum.accumulate(instants[::-1])[::-1]
    is_sealed = instants < END
    return pd.DataFrame(
        {
            "date": np.array(every, "int64")[is_sealed].astype("datetime64[D]").astype("datetime64[us]"),
            "sealed_at": pd.Series(instants[is_sealed].astype("datetime64[us]")).dt.tz_localize("UTC"),
        }
    )


def _small(day: np.ndarray) -> np.ndarray:
    """Days in the same order, of two bytes each where the market is not too old: they sort faster."""
    lowest, highest = (day.min(), day.max()) if len(day) else (0, 0)
    return (day - lowest).astype("uint16") if highest - lowest < 2**16 else day


class Session:
    """The bar versions of one session, each known at its close or later."""

    def __init__(self, symbol: np.ndarray, known: np.ndarray, withdrawn: np.ndarray, close: int):
        self.symbol, self.known, self.withdrawn, self.close = symbol, known, withdrawn, close
        self.sealed_at = END
        self.settled = bool((known == close).all() and not withdrawn.any())
        if self.settled:  # like nearly all of an assumed history: which symbols there are says it all
            self.symbol = symbol if (symbol[1:] > symbol[:-1]).all() else np.unique(symbol)
            self.known, self.withdrawn = known[:1], withdrawn[:1]

    def symbols(self, instant: int) -> np.ndarray:
        """Codes of the symbols with a known bar at an instant, ascending."""
        if instant < self.close:
            return np.empty(0, self.symbol.dtype)
        if self.settled:
            return self.symbol
        there = np.flatnonzero(self.known <= instant)
        order = there[np.lexsort((self.known[there], self.symbol[there]))]
        codes = self.symbol[order]
        last = np.append(codes[1:] != codes[:-1], True) if len(codes) else np.empty(0, bool)
        return codes[last & ~self.withdrawn[order]]


def _covered(session: Session, earlier: list[Session], assumed: bool, coverage: float) -> int:
    """The earliest instant at which a bar of a session becomes known and the session is covered."""
    for instant in np.unique(session.known).tolist():
        here = session.symbols(instant)
        if not len(here):
            continue
        to_compare = (s for s in reversed(earlier) if assumed or s.sealed_at <= instant)
        before = next((s for s in to_compare if len(s.symbols(instant))), None)
        if before is None:
            return instant
        expected = before.symbols(instant)
        if len(np.intersect1d(here, expected, assume_unique=True)) >= coverage * len(expected):
            return instant
    return END
