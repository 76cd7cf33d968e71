"""What stands beside a forecast because of its symbol's newest bars: unusual, and suspect."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_close
from pitwise.quality_flags import FOREST, Forest, load, newest_two
from pitwise.workspace import Workspace, read_parquet

NEWEST = 10
"""A symbol's last bars, of which a verdict may still be provisional."""
BAR = ["symbol", "date", "high", "low", "close", "volume", "price_factor", "share_factor", "segment"]
"""Columns of a clean bar that its flag takes."""
SUSPECT = ["symbol", "date", "kind", "confidence", "first_known"]
"""Columns of a provisional verdict that a person sees."""


def named(kind: str) -> str:
    """A kind of event in a sentence: `a bad print`."""
    return f"a {kind.replace('_', ' ')}"


class Marks(NamedTuple):
    """What is known of symbols' newest bars."""

    unusual: Mapping[str, tuple[np.datetime64, bool]]
    """Symbol to its newest bar's close (UTC) and whether the isolation forest flags it."""
    suspects: Mapping[str, str]
    """Symbol to the kind of a provisional verdict on one of its newest bars."""

    def unusual_at(self, symbols: Sequence[str], as_of: np.ndarray) -> list[bool | None]:
        """Whether each symbol's bar of a session is flagged; None where that is not known.

        Args:
            as_of: (n,) datetime64, UTC: the sessions' closes.
        """
        found = map(self.unusual.get, symbols)
        return [
            mark[1] if mark and mark[0] == close else None
            for mark, close in zip(found, as_of, strict=True)
        ]

    def suspected(self, symbols: Sequence[str]) -> list[str | None]:
        """The kind of the provisional verdict on each symbol's newest bars; None where there is none."""
        return [self.suspects.get(symbol) for symbol in symbols]


def unusual_of(bars: pd.DataFrame, forest: Forest | None) -> dict[str, tuple[np.datetime64, bool]]:
    """`Marks.unusual` of clean bars; empty where there is no forest.

    Args:
        bars: as traded, each symbol's in order of date; its last two are enough.
    """
    if forest is None or bars.empty:
        return {}
    newest = forest.flags(newest_two(bars)).groupby("symbol").tail(1)
    newest = newest[newest["flagged"].notna()]
    closes = session_close(newest["date"]).dt.tz_convert(None).to_numpy("datetime64[us]")
    return {
        symbol: (close, flagged)
        for symbol, close, flagged in zip(
            newest["symbol"], closes, newest["flagged"].astype(bool).tolist(), strict=True
        )
    }


def suspects_of(events: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """The provisional verdicts on each symbol's newest bars; of a symbol the newest one.

    Args:
        events: as stage `clean` leaves them; those of before there was a `status` are settled.
        bars: symbol and date of clean bars, each symbol's in order of date.

    Returns:
        symbol, date, kind, confidence (0 to 1) and first_known (UTC).
    """
    if "status" not in events:
        return events.iloc[:0].reindex(columns=SUSPECT)
    since = bars.groupby("symbol").tail(NEWEST).groupby("symbol")["date"].min()
    events = events[(events["status"] == "provisional").fillna(False).astype(bool)]
    newest = events[events["date"] >= events["symbol"].map(since)]
    newest = newest.sort_values(["symbol", "date"]).drop_duplicates("symbol", keep="last")
    return newest[SUSPECT].reset_index(drop=True)


def stored_suspects(workspace: Workspace, bars: pd.DataFrame) -> pd.DataFrame:
    """`suspects_of` by the events of a workspace; none where it has no file of them."""
    if not workspace.events.exists():
        return pd.DataFrame(columns=SUSPECT)
    return suspects_of(read_parquet(workspace.events), bars)


def stored_marks(workspace: Workspace) -> Marks:
    """The marks by the files of a workspace: what its pipeline last knew."""
    if not workspace.clean_bars.exists():
        return Marks({}, {})
    bars = read_parquet(workspace.clean_bars, BAR)
    found = stored_suspects(workspace, bars)
    suspects = dict(zip(found["symbol"], found["kind"], strict=True))
    return Marks(unusual_of(bars, load(workspace.root / FOREST.path)), suspects)
