"""Bars by hand for the report pages, and a page read as a browser would."""

import base64
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_close
from pitwise.cleaning.events import event_table
from pitwise.reports import data_quality

PARAMS = data_quality.QualityParams(
    event_pictures=4, adjusted_pictures=2, contamination=0.001, trees=100, sample=256, seed=7
)
EVIL = "<script>alert('&$x$')</script>"
RAW = ["symbol", "date", "open", "high", "low", "close", "volume"]
NO_QUARANTINE = pd.DataFrame(columns=[*RAW, "reason"])
NO_EVENTS = event_table(
    symbol=pd.Series(dtype="string"),
    date=pd.Series(dtype="datetime64[us]"),
    kind=pd.Series(dtype="string"),
)


def hand_made(closes: dict[str, dict[str, float]], volume: float = 1000.0) -> pd.DataFrame:
    """Clean bars with these closes by symbol and date."""
    rows = [(s, d, c) for s, days in closes.items() for d, c in days.items()]
    bars = pd.DataFrame(rows, columns=["symbol", "date", "close"])
    bars = bars.assign(
        symbol=bars["symbol"].astype("string"),
        date=pd.to_datetime(bars["date"]).astype("datetime64[us]"),
        open=bars["close"],
        high=bars["close"] * 1.01,
        low=bars["close"] * 0.99,
        volume=volume,
        price_factor=1.0,
        share_factor=1.0,
        segment=np.int32(0),
    )
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def cleaned(bars: pd.DataFrame, quarantine: pd.DataFrame) -> dict:
    return {
        "rows_in": len(bars) + len(quarantine),
        "rows_clean": len(bars),
        "rows_quarantined": len(quarantine),
        "symbols": int(bars["symbol"].nunique()),
        "sessions": int(bars["date"].nunique()),
        "first_session": f"{bars['date'].min():%Y-%m-%d}",
        "last_session": f"{bars['date'].max():%Y-%m-%d}",
    }


def event(symbol, date, kind="jump", price_ratio=1.5, sessions=1, **columns) -> pd.DataFrame:
    """One event, told at the close of its session; what is not given of it is not known."""
    given = {"price_ratio": price_ratio, "sessions": sessions, "told_by": "prices"} | columns
    day = pd.Timestamp(date)
    given.setdefault("first_known", session_close(pd.Series([day]))[0])
    return event_table(symbol=[symbol], date=[day], kind=[kind], **{k: [v] for k, v in given.items()})


def quality_page(bars, quarantine=NO_QUARANTINE, events=NO_EVENTS, params=PARAMS):
    """The page of these clean bars, its document, the flags and the forest.

    Args:
        bars: as traded, with their factors.
    """
    raw = pd.concat([bars[RAW], quarantine[RAW]], ignore_index=True) if len(quarantine) else bars[RAW]
    return data_quality.quality(raw, bars, quarantine, events, cleaned(bars, quarantine), params)


class Reader(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, document: str):
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "xlink:href")]

    def handle_data(self, data):
        self.words += data + "\n"

    def pictures(self) -> list[bytes]:
        return [base64.b64decode(s.partition(",")[2]) for s in self.loads if s.startswith("data:")]
