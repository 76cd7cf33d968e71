"""What the market did in each session, as it was when the session was complete.

Verdicts on a symbol's bars compare them with the others'. The others' bars may be corrected later; the
cross-section of a session is not, so that no verdict on one symbol waits for another's.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.bars.calendar import session_close, session_date, session_number
from pitwise.bars.schema import COLUMNS, NUMBERS
from pitwise.bars.versions import KNOWN, BarVersions, newest
from pitwise.cleaning.absences import AbsenceParams, lost_sessions
from pitwise.cleaning.copies import Copies, copies, session_copies
from pitwise.cleaning.equal_bars import equal_bars
from pitwise.cleaning.groups import by_symbol, those
from pitwise.cleaning.neighbours import Market, Neighbours, market_of
from pitwise.cleaning.row_checks import JUDGED_AT, reasons
from pitwise.cleaning.untraded import untraded
from pitwise.stage import Params
from pitwise.workspace import Workspace, read_parquet, write_parquet


class CopyParams(Params):
    stale_bars: int = Field(ge=1)
    absurd_volume: float = Field(gt=1)


REFUSED = {
    "row": "int64",
    "reason": "object",
    "later": "bool",
    "copy_of": "datetime64[us]",
    "confidence": "float64",
}
ABSENT = {
    "symbol": "string",
    **dict.fromkeys(["date", "copy_of"], "datetime64[us]"),
    **dict.fromkeys([*NUMBERS, "confidence"], "float64"),
}


class CrossSection(NamedTuple):
    market: Market
    """How far and how wide the market moved."""
    symbols: np.ndarray
    """(m,) how many symbols have a bar, by number of the session."""
    copies: Copies
    """Between which sessions symbols have equal bars."""
    absent: pd.DataFrame
    """Bars of an assumed history that carry a later session's prices, and so were not known at any
    instant: the columns of bars, `copy_of` and `confidence`."""

    def refused(self, bars: pd.DataFrame, params: CopyParams) -> pd.DataFrame:
        """The bars that were not traded in their session.

        Args:
            bars: of complete sessions, passed by the row checks, by symbol and date.

        Returns:
            (k,) `row`, `reason`, `later` (bool: it carries a later session's prices), `copy_of`,
            `confidence`.
        """
        dates = np.flatnonzero(bars["date"].isin(self.absent["date"]))
        rows = bars[COLUMNS].iloc[dates].astype({"symbol": "string"}).assign(row=dates)
        absent = rows.merge(self.absent, on=COLUMNS).assign(reason="displaced", later=True)
        left = np.ones(len(bars), bool)
        left[absent["row"]] = False
        kept = np.flatnonzero(left)
        again = copies(equal_bars(those(bars, left)), self.copies, np.zeros(len(kept), bool))
        again = again.assign(row=kept[again["row"].to_numpy(int)], later=False)
        left[again["row"]] = False
        kept = np.flatnonzero(left)
        reason = untraded(those(bars, left), params.stale_bars, params.absurd_volume)
        odd = pd.DataFrame({"row": kept, "reason": reason})[reason != ""]
        odd = odd.assign(later=False, copy_of=pd.NaT, confidence=np.nan)
        found = [table[list(REFUSED)].astype(REFUSED) for table in (absent, again, odd)]
        return pd.concat(found, ignore_index=True)

    def extended(self, bars: pd.DataFrame) -> "CrossSection":
        """With the sessions after its last one.

        Args:
            bars: as of `cross_section`, the last ones of all symbols: as many as a verdict looks back
                to.
        """
        last = len(self.symbols) - 1
        seen = _seen(bars)
        symbols = np.append(self.symbols, np.bincount(seen.number)[last + 1 :])
        fresh = session_copies(seen.equal).sessions
        fresh = fresh[fresh["copied"] > last]
        return CrossSection(
            market_of(seen.number, seen.log_return, seen.turnover, self.market, seen.wick, seen.gap),
            symbols,
            Copies.of_sessions(pd.concat([self.copies.sessions, fresh], ignore_index=True)),
            self.absent,
        )

    def lost(self, params: AbsenceParams) -> np.ndarray:
        """By number of a session, how many before it the source lost."""
        return lost_sessions(self.symbols, params)


def tape(versions: BarVersions) -> pd.DataFrame:
    """The bars of each session as they were known when it was complete, with `judged_at`."""
    bars = versions.bars
    sealed = versions.seals.set_index("date")["sealed_at"].reindex(bars["date"]).set_axis(bars.index)
    there = (bars[KNOWN] <= sealed).to_numpy()
    bars = those(bars.assign(**{JUDGED_AT: sealed}), there)
    holds = newest(bars) & ~bars["withdrawn"].to_numpy()
    return those(bars[[*COLUMNS, KNOWN, JUDGED_AT]], holds).reset_index(drop=True)


class _Seen(NamedTuple):
    """What the cross-section is told from; (n,) each, of bars that passed the row checks."""

    number: np.ndarray
    log_return: np.ndarray
    turnover: np.ndarray
    wick: np.ndarray
    gap: np.ndarray
    assumed: list[np.ndarray]
    """(g,) bool of each group of symbols, see `copies`."""
    equal: list[pd.DataFrame]
    """Of each group."""
    bars: list[pd.DataFrame]
    """The bars in `equal` once each; the index is their `row`."""


def _seen(bars: pd.DataFrame) -> _Seen:
    # Filled group by group: the groups' own arrays, put together at the end, are twice the memory.
    number = np.empty(len(bars), "int32")
    log_return, turnover, wick, gap = (np.empty(len(bars)) for _ in range(4))
    assumed, equal, their_bars = [], [], []
    start = end = 0
    for rows in by_symbol(bars):
        passed = (reasons(rows) == "").to_numpy() & rows[JUDGED_AT].notna().to_numpy()
        rows = those(rows, passed).reset_index(drop=True)
        n = Neighbours(rows)
        start, end = end, end + len(rows)
        number[start:end], log_return[start:end] = n.session, n.log_return
        turnover[start:end], wick[start:end], gap[start:end] = n.turnover, n.wick, n.gap
        known = rows[KNOWN if KNOWN in rows else JUDGED_AT]
        assumed.append((known == session_close(rows["date"])).to_numpy())
        equal.append(equal_bars(rows))
        their_bars.append(rows.loc[equal[-1]["row"].unique(), COLUMNS])
    return _Seen(
        number[:end], log_return[:end], turnover[:end], wick[:end], gap[:end], assumed, equal, their_bars
    )


def cross_section(bars: pd.DataFrame) -> CrossSection:
    """The cross-section of each session.

    Args:
        bars: as they were known when their sessions were complete, with `judged_at`.
    """
    seen = _seen(bars)
    sessions = session_copies(seen.equal)
    absent = []
    for equal, assumed, their_bars in zip(seen.equal, seen.assumed, seen.bars, strict=True):
        found = copies(equal, sessions, assumed)
        found = found[found["reason"] == "displaced"].set_index("row")
        absent.append(their_bars.loc[found.index].join(found[["copy_of", "confidence"]]))
    return CrossSection(
        market_of(seen.number, seen.log_return, seen.turnover, wick=seen.wick, gap=seen.gap),
        np.bincount(seen.number),
        sessions,
        pd.concat(absent, ignore_index=True).astype(ABSENT),
    )


def write_cross_section(workspace: Workspace, market: CrossSection) -> None:
    number = np.flatnonzero(market.symbols)
    counts = pd.DataFrame({"date": session_date(number), "symbols": market.symbols[number]})
    write_parquet(counts.merge(market.market.table(), on="date", how="left"), workspace.market)
    write_parquet(market.copies.sessions, workspace.session_copies)
    write_parquet(market.absent, workspace.absent_bars)


def read_cross_section(workspace: Workspace) -> CrossSection:
    """The cross-section that stage `clean` has written; DataError where it has not run."""
    table = read_parquet(workspace.market)
    number = session_number(table["date"])
    symbols = np.zeros(int(number.max(initial=-1)) + 1, "int64")
    symbols[number] = table["symbols"]
    return CrossSection(
        Market.of_table(table.dropna(subset="reach")),
        symbols,
        Copies.of_sessions(read_parquet(workspace.session_copies)),
        read_parquet(workspace.absent_bars),
    )
