"""What the market did in each session, as it was when the session was complete.

Verdicts on a symbol's bars compare them with the others'. The others' bars may be corrected later; the
cross-section of a session is not, so that no verdict on one symbol waits for another's.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

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
        parts = [seen(rows) for rows in by_symbol(bars)]
        fresh = session_copies(part.equal for part in parts).sessions
        fresh = fresh[fresh["copied"] > last]
        told = _joined(parts)
        new = told["session"] > last
        return CrossSection(
            market_of(**{name: values[new] for name, values in told.items()}, earlier=self.market),
            np.append(self.symbols, np.bincount(told["session"])[last + 1 :]),
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


class Seen(NamedTuple):
    """What the cross-section is told from, of the bars of some symbols that passed the row checks."""

    bars: dict[str, np.ndarray]
    """(n,) each: what `market_of` takes."""
    assumed: np.ndarray
    """(n,) bool, see `copies`."""
    equal: pd.DataFrame
    """See `equal_bars`; its `row` is that of these bars."""
    values: pd.DataFrame
    """`COLUMNS` of the bars in `equal` once each; the index is their `row`."""


def seen(rows: pd.DataFrame) -> Seen:
    """What some symbols add to the cross-section.

    Args:
        rows: as of `by_symbol`, with `judged_at`.
    """
    passed = (reasons(rows) == "").to_numpy() & rows[JUDGED_AT].notna().to_numpy()
    rows = those(rows, passed).reset_index(drop=True)
    n = Neighbours(rows)
    known = rows[KNOWN if KNOWN in rows else JUDGED_AT]
    equal = equal_bars(rows)
    return Seen(
        {
            "session": n.session.astype("int32"),
            "log_return": n.log_return,
            "turnover": n.turnover,
            "wick": n.wick,
            "gap": n.gap,
        },
        (known == session_close(rows["date"])).to_numpy(),
        equal,
        rows.loc[equal["row"].unique(), COLUMNS].astype({"symbol": "string"}),
    )


def _joined(parts: list[Seen]) -> dict[str, Any]:
    """The bars of all parts. Each gives its own away: both together would be twice the memory."""
    names = list(parts[0].bars)
    return {name: np.concatenate([part.bars.pop(name) for part in parts]) for name in names}


def cross_section(bars: pd.DataFrame) -> CrossSection:
    """The cross-section of each session.

    Args:
        bars: as they were known when their sessions were complete, with `judged_at`.
    """
    return cross_section_of(map(seen, by_symbol(bars)))


def cross_section_of(told: Iterable[Seen]) -> CrossSection:
    """The cross-section of each session, from what symbols after others add to it, in their order."""
    parts = list(told)
    sessions = session_copies(part.equal for part in parts)
    absent = []
    for part in parts:
        found = copies(part.equal, sessions, part.assumed)
        found = found[found["reason"] == "displaced"].set_index("row")
        absent.append(part.values.loc[found.index].join(found[["copy_of", "confidence"]]))
    bars = _joined(parts)
    return CrossSection(
        market_of(**bars),
        np.bincount(bars["session"]),
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
