"""What a later load changed, and what was known when, found the slow way."""

from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import groupby

import pandas as pd
from support.deliveries import known_instants

from pitwise.bars.landing import Landing
from pitwise.bars.schema import COLUMNS
from pitwise.features.history import CREATED, KEYS

WITHDRAWN: frozenset[tuple] = frozenset()
"""The statement that there is no such bar."""


def difference(old: pd.DataFrame, new: pd.DataFrame) -> dict[tuple, str]:
    """What changed, bar by bar, in the sessions that the old table reached for the symbol."""
    columns = [c for c in new if c not in (*KEYS, CREATED)]
    before, after = (
        {row[:2]: repr(row[2:]) for row in f[[*KEYS, *columns]].itertuples(index=False, name=None)}
        for f in (old, new)
    )
    reached = old.groupby("symbol")["event_timestamp"].max().to_dict()
    answer = {}
    for key in before.keys() | after.keys():
        if before.get(key) == after.get(key):
            continue
        if key not in before:
            if key[0] in reached and key[1] <= reached[key[0]]:
                answer[key] = "late"
        else:
            answer[key] = "changed" if key in after else "withdrawn"
    return answer


def _value(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _row(row: tuple) -> tuple:
    """A row that has no key, as it came: symbol, date, open, high, low, close, volume."""
    symbol, day, *numbers = row
    return (
        None if pd.isna(symbol) else symbol,
        None if pd.isna(day) else day,
        *map(_value, numbers),
    )


def _keyed(row: tuple) -> bool:
    return not (pd.isna(row[0]) or pd.isna(row[1]))


def _rows(table: pd.DataFrame) -> list[tuple]:
    return list(table[COLUMNS].itertuples(index=False, name=None))


def happenings(landings: list[Landing]) -> list[tuple]:
    """What was said about one bar, or what a file covered, in the order of time.

    Returns:
        (instant, number of the landing, source, key, the distinct rows) for a bar; the key is None for a
        row without one. For the cover of a symbol (instant, number, source, (symbol, first, last), the
        days that are there).
    """
    found = []
    for number, landing in enumerate(landings):
        said: dict[tuple, set[tuple]] = defaultdict(set)
        there: dict[str, set] = defaultdict(set)
        taken = landing.rows.get("withdrawn", pd.Series(False, landing.rows.index)).fillna(False)
        for row, instant, gone in zip(_rows(landing.rows), known_instants(landing), taken, strict=True):
            if not _keyed(row):
                found.append((instant, number, landing.source, None, frozenset([_row(row)])))
                continue
            there[row[0]].add(row[1])
            said[instant, row[:2]] |= set() if gone else {tuple(map(_value, row[2:]))}
        for (instant, key), rows in said.items():
            found.append((instant, number, landing.source, key, frozenset(rows)))
        for symbol, (first, last) in landing.covers.items():
            cover = (symbol, first, last)
            found.append((landing.received_at, number, landing.source, cover, there[symbol]))
    return sorted(found, key=lambda each: each[:2])


def replayed(told: list[tuple]) -> Iterator[tuple[pd.Timestamp, dict[tuple, frozenset[tuple]]]]:
    """After each instant, what each bar is known to be: its key to the distinct rows said about it.

    Told happening by happening, as the definition has it: what a source says is news only where it is
    not what it said last; a bar it leaves out of what it covers is withdrawn, if it had said it before.

    Args:
        told: of `happenings`.
    """
    said: dict[str, dict[tuple, frozenset[tuple]]] = defaultdict(dict)
    now: dict[tuple, frozenset[tuple]] = {}
    for instant, together in groupby(told, key=lambda each: each[0]):
        for _, _, source, key, rows in together:
            if key is None:
                now["", rows] = rows
            elif len(key) == 3:
                symbol, first, last = key
                for held, what in said[source].items():
                    inside = held[0] == symbol and first <= held[1].date() <= last
                    if inside and what != WITHDRAWN and held[1] not in rows:
                        said[source][held] = now[held] = WITHDRAWN
            elif said[source].get(key) != rows:
                said[source][key] = now[key] = rows
        yield instant, {key: rows for key, rows in now.items() if rows != WITHDRAWN}


def bars_known(told: list[tuple], at: pd.Timestamp) -> dict[tuple, frozenset[tuple]]:
    """What each bar is known to be at an instant, see `replayed`."""
    before = [each for each in told if each[0] <= at]
    return deque((state for _, state in replayed(before)), maxlen=1).pop() if before else {}


def bars_told(bars: pd.DataFrame) -> dict[tuple, frozenset[tuple]]:
    """A table of raw bars in the terms of `bars_known`."""
    told: dict[tuple, set[tuple]] = defaultdict(set)
    for row in _rows(bars):
        if _keyed(row):
            told[row[:2]].add(tuple(map(_value, row[2:])))
        else:
            told["", frozenset([_row(row)])].add(_row(row))
    return {key: frozenset(rows) for key, rows in told.items()}
