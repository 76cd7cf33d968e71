"""Bars as the service takes them, out of frames and mappings."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pitwise.client.errors import ClientError

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("symbol", "date", "open", "high", "low", "close", "volume")
OPTIONAL = "adj_close"
"""Left out where it is None or NaN."""


def documents_of(bars: "pd.DataFrame | Iterable[Mapping[str, Any]]") -> list[dict[str, Any]]:
    """Bars as JSON objects, in their order; columns and keys that no bar has are left out.

    Args:
        bars: with symbol, date (a day, or its ISO text), open, high, low, close, volume and, where the
            vendor has one, adj_close.

    Raises:
        ClientError: a bar lacks a field, or has a date that is none.
    """
    rows = bars.to_dict("records") if hasattr(bars, "to_dict") else bars
    return [_document(row, i) for i, row in enumerate(rows)]


def _document(bar: Mapping[str, Any], i: int) -> dict[str, Any]:
    absent = [name for name in NEEDED if name not in bar]
    if absent:
        raise ClientError(f"bar {i} has no {', '.join(absent)}: a bar has {', '.join(NEEDED)}.")
    document = {name: _number(bar[name]) for name in NEEDED[2:]}
    adjusted = _number(bar.get(OPTIONAL))
    if adjusted is not None and adjusted == adjusted:
        document[OPTIONAL] = adjusted
    return {"symbol": bar["symbol"], "date": day_text(bar["date"], f"bar {i}"), **document}


def _number(value: Any) -> Any:
    """numpy's numbers as Python's, which JSON knows."""
    return value.item() if hasattr(value, "item") else value


def day_text(day: Any, where: str) -> str:
    """ISO 8601 of a date, a datetime's own day, or a text that is one.

    Args:
        where: the message of the error begins with it.

    Raises:
        ClientError: it is none.
    """
    if hasattr(day, "astype"):  # numpy's
        day = day.astype("datetime64[D]").item()
    if isinstance(day, datetime):
        day = day.date()
    try:
        text = day if isinstance(day, str) else day.isoformat()  # "NaT" of pandas' one
        return date.fromisoformat(text).isoformat()
    except (AttributeError, ValueError) as error:
        raise ClientError(f"{where}: {day!r} is no day; write it as 2013-03-04.") from error


def parts(bars: list[dict[str, Any]], most: int) -> Iterator[list[int]]:
    """Places of bars, at most `most` at a time, the oldest session first.

    A session stays whole where it fits: once most of its bars are there the service seals it, and what
    comes later is late.
    """
    part: list[int] = []
    by_session = sorted(range(len(bars)), key=lambda i: bars[i]["date"])
    for _, group in groupby(by_session, key=lambda i: bars[i]["date"]):
        session = list(group)
        if part and len(part) + len(session) > most:
            yield part
            part = []
        part += session
        while len(part) > most:
            yield part[:most]
            part = part[most:]
    if part:
        yield part
