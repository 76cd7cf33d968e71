"""What is new in a delivery: the statements that differ from what the same source said last.

A statement is all that one delivery says about one bar at one instant: a row, more rows where the source
contradicts itself, or that the bar is withdrawn. Exact duplicates in it count once.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pitwise.bars.action_news import ActionNews, in_shares_of_bars
from pitwise.bars.actions import actions_source
from pitwise.bars.calendar import session_close, session_day
from pitwise.bars.factors import ADJUSTED, SPLIT, AdjustedCloses, Splits, shown_on
from pitwise.bars.landing import Landing
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, NUMBERS
from pitwise.bars.seals import day_number

DAY = 86_400_000_000  # microseconds
SHIFT = 2**32
NO_INSTANT = np.iinfo(np.int64).min


class Statements:
    """Rows of statements, those of one together, in arrays that grow. Times are UTC microseconds."""

    TYPES = (
        {"key": "int64", "known": "int64", "order": "int32", "source": "int16"}
        | {"withdrawn": "bool", "settled": "bool"}
        | dict.fromkeys(NUMBERS, "float64")
    )

    def __init__(self) -> None:
        self.columns = {name: np.empty(0, kind) for name, kind in self.TYPES.items()}
        self.size = 0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name][: self.size]

    def append(self, **columns: np.ndarray | float) -> None:
        """Add rows; a value for all of them may stand for a column, but not for `key`."""
        size = self.size + len(columns["key"])  # type: ignore[arg-type]
        for name, column in self.columns.items():
            if len(column) < size:
                column.resize(max(size, len(column) + len(column) // 4), refcheck=False)
            column[self.size : size] = columns[name]
        self.size = size


@dataclass
class Source:
    """What a source said last."""

    code: int
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, "int64"))
    """(m,) of the bars that it ever said something about, ascending."""
    start: np.ndarray = field(default_factory=lambda: np.empty(0, "int64"))
    """(m,) first row of the last statement about each."""
    count: np.ndarray = field(default_factory=lambda: np.empty(0, "int64"))
    adjusted: AdjustedCloses = field(default_factory=AdjustedCloses)
    splits: Splits = field(default_factory=Splits)
    since: dict[int, int] = field(default_factory=dict)
    """Of split-adjusted prices: the day on which a symbol's first bar came, by the symbol's code."""

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) position of each key and (n,) whether it is there."""
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        return at, (self.keys[at] == keys) if len(self.keys) else np.zeros(len(keys), bool)

    def says(self, keys: np.ndarray, start: np.ndarray, count: np.ndarray) -> None:
        """Take the last statements about some bars; keys ascending, each once."""
        at, there = self.find(keys)
        self.start[at[there]], self.count[at[there]] = start[there], count[there]
        new = ~there
        if not new.any():
            return
        joined = np.concatenate([self.keys, keys[new]])
        order = np.argsort(joined, kind="stable")
        self.keys = joined[order]
        self.start = np.concatenate([self.start, start[new]])[order]
        self.count = np.concatenate([self.count, count[new]])[order]


class Deliveries:
    """The news of all landings, taken in the order in which they were received."""

    def __init__(self) -> None:
        self.statements = Statements()
        self.sources: dict[str, Source] = {}
        self.symbols: dict[str, int] = {}
        self.factors: list[tuple] = []
        """(symbol's code, day, kind, factor, source, known_at)"""
        self.unkeyed: list[pd.DataFrame] = []
        self.seals: dict[int, int] = {}
        """Instant of the first explicit seal of each day."""
        self.assumed: set[int] = set()
        """Days of histories that are assumed to have been known as they went."""
        self.actions = ActionNews()
        self._taken = 0

    def take(self, landing: Landing) -> None:
        source = self.sources.setdefault(landing.source, Source(len(self.sources)))
        received = microseconds(landing.received_at)
        for day in landing.seals:
            self.seals.setdefault(day_number(day), received)
        if landing.actions is not None:
            self._take_actions(landing, landing.actions)
        rows = self._keyed(landing, received)
        if landing.history == "assumed":
            self.assumed |= set((np.unique(rows["key"] % SHIFT) - SHIFT // 2).tolist())
        before = source.keys
        if len(rows["key"]):
            self._take_rows(landing, source, rows, received)
        if landing.covers and len(before):
            self._withdraw_absent(landing, source, before, rows["key"], received)
        self._taken += 1

    def _take_actions(self, landing: Landing, actions: pd.DataFrame) -> None:
        if landing.basis == "split_adjusted":
            bars = self.sources.get(landing.source.removesuffix(actions_source("")))
            if bars is not None:
                days = {
                    code: {day - SHIFT // 2: ratio for day, ratio in steps.items()}
                    for code, steps in bars.splits.symbols.items()
                }
                actions = in_shares_of_bars(actions, self.symbols, bars.since, days)
        else:
            since: dict[int, int] = {}
            for source in self.sources.values():
                since = source.since | since
            if since:
                actions = in_shares_of_bars(actions, self.symbols, since, None)
        self.actions.take(landing, actions)

    def _keyed(self, landing: Landing, received: int) -> dict[str, np.ndarray]:
        """A landing's columns by key and instant; rows without a symbol or a date are put aside."""
        given = landing.rows
        keyable = given[BAR_KEY].notna().all(axis=1).to_numpy()
        if not keyable.all():
            bare = given[~keyable].reindex(columns=COLUMNS)
            known = _instants(given[~keyable])
            self.unkeyed.append(
                bare.astype({"symbol": "string"}).assign(
                    source=landing.source, known=np.where(known == NO_INSTANT, received, known)
                )
            )
            given = given[keyable]
        codes = self._coded(given["symbol"])
        dates = given["date"].to_numpy("datetime64[us]").astype("int64")
        rows = {"key": codes * SHIFT + dates // DAY + SHIFT // 2, "instant": _instants(given)}
        rows["withdrawn"] = (
            given["withdrawn"].fillna(False).to_numpy(bool)
            if "withdrawn" in given
            else np.zeros(len(given), bool)
        )
        for name in (*NUMBERS, ADJUSTED_CLOSE):
            if name in given:
                rows[name] = given[name].to_numpy("float64")
            elif name in NUMBERS:
                rows[name] = np.full(len(given), np.nan)
        if rows["withdrawn"].any():
            rows |= {name: rows[name].copy() for name in NUMBERS}
        if (np.diff(rows["key"]) <= 0).any():
            order = np.lexsort((rows["instant"], rows["key"]))
            rows = {name: column[order] for name, column in rows.items()}
        return rows

    def _coded(self, symbols: pd.Series) -> np.ndarray:
        """(n,) code of each symbol."""
        held = symbols.astype("category")
        names = [str(name) for name in held.cat.categories]
        codes = np.array([self.symbols.setdefault(n, len(self.symbols)) for n in names], "int64")
        return codes[held.cat.codes.to_numpy()]

    def _take_rows(self, landing: Landing, source: Source, rows: dict, received: int) -> None:
        start = np.flatnonzero(_changes(rows["key"]) | _changes(rows["instant"]))
        count = np.diff(start, append=len(rows["key"]))
        key = rows["key"][start]
        first = _changes(key)
        at, there = source.find(key)
        there &= first
        said = source.start[at[there]]

        close = self._close(key % SHIFT - SHIFT // 2)
        known = np.full(len(key), received)
        if landing.history == "assumed":
            # What the source corrects, it corrects now; only what it says first is taken for known then.
            known = np.where(first & ~there, np.minimum(known, close), known)
        instant = rows["instant"][start]
        known = np.where(instant == NO_INSTANT, known, instant)
        # Who withdraws a bar says nothing else of it.
        withdrawn = np.maximum.reduceat(rows["withdrawn"], start)
        count = np.where(withdrawn, 1, count)
        for name in NUMBERS if withdrawn.any() else ():
            rows[name][start[withdrawn]] = np.nan

        alone = (count == 1) & ~withdrawn
        if landing.basis == "split_adjusted":
            self._share_basis(source, rows, start, key, alone, there, said, known, received)
        if ADJUSTED_CLOSE in rows:
            use = np.flatnonzero(alone & first & _last_of(key))
            self._note(
                source,
                ADJUSTED,
                source.adjusted.take(
                    key[use], rows[ADJUSTED_CLOSE][start[use]], rows["close"][start[use]]
                ),
                (key, known, there, received),
            )

        settled = (known >= close) | withdrawn
        held = self.statements
        same = np.zeros(len(key), bool)
        then = np.flatnonzero(there)
        same[then] = (
            same_numbers((rows, start[then], count[then]), (held.columns, said, source.count[at[there]]))
            & (withdrawn[then] == held["withdrawn"][said])
            & (held["settled"][said] | ~settled[then])
        )
        more = np.flatnonzero(~first)
        same[more] = (
            same_numbers((rows, start[more], count[more]), (rows, start[more - 1], count[more - 1]))
            & (withdrawn[more] == withdrawn[more - 1])
            & (settled[more - 1] | ~settled[more])
        )
        news = np.flatnonzero(~same | withdrawn)
        if not len(news):
            return
        if count[news].sum() == len(rows["key"]):
            repeated = slice(None)
        else:
            repeated = np.repeat(start[news], count[news]) + _within(count[news])
        begins = held.size + np.cumsum(count[news]) - count[news]
        held.append(
            key=rows["key"][repeated],
            known=np.repeat(known[news], count[news]),
            order=self._taken,
            source=source.code,
            withdrawn=np.repeat(withdrawn[news], count[news]),
            settled=np.repeat(settled[news], count[news]),
            **{name: rows[name][repeated] for name in NUMBERS},
        )
        last = _last_of(key[news])
        source.says(key[news][last], begins[last], count[news][last])

    def _share_basis(
        self,
        source: Source,
        rows: dict,
        start: np.ndarray,
        key: np.ndarray,
        alone: np.ndarray,
        there: np.ndarray,
        said: np.ndarray,
        known: np.ndarray,
        received: int,
    ) -> None:
        """Put a delivery on the share basis that each session was first delivered on."""
        day = day_number(session_day(pd.Timestamp(received, unit="us", tz="UTC")))
        for code in np.unique(key // SHIFT).tolist():
            source.since.setdefault(code, day)
        held = self.statements
        then = np.flatnonzero(there)
        compared = (
            alone[then] & ~held["withdrawn"][said] & (source.count[source.find(key[then])[0]] == 1)
        )
        then, said = then[compared], said[compared]
        steps = source.splits.take(
            key,
            key[then],
            {n: rows[n][start[then]] for n in NUMBERS},
            {n: held[n][said] for n in NUMBERS},
        )
        self._note(source, SPLIT, steps, (key, known, there, received))
        factor = source.splits.to_come(rows["key"])
        moved = factor != 1.0
        if not moved.any():
            return
        for name in NUMBERS:
            back = 1 / factor[moved] if name == "volume" else factor[moved]
            rows[name] = rows[name].copy()
            rows[name][moved] *= back
        # What comes back to what was said, to the rounding of the numbers, is what was said.
        near = moved[start[then]]
        now, before = start[then][near], said[near]
        stays = shown_on(
            {n: rows[n][now] for n in NUMBERS}, {n: held[n][before] for n in NUMBERS}, factor[now]
        )
        for name in NUMBERS:
            rows[name][now[stays]] = held[name][before[stays]]

    def _note(self, source: Source, kind: str, steps: list[tuple[int, float]], known_by: tuple) -> None:
        """Keep factors, each known as the bar of its session is, or now if that was there before."""
        key, known, there, received = known_by
        if not steps:
            return
        keys = np.array([k for k, _ in steps], "int64")
        at = np.minimum(np.searchsorted(key, keys), len(key) - 1)
        instants = np.where((key[at] == keys) & ~there[at], known[at], received)
        self.factors += [
            (k // SHIFT, k % SHIFT - SHIFT // 2, kind, factor, source.code, instant)
            for (k, factor), instant in zip(steps, instants.tolist(), strict=True)
        ]

    def _withdraw_absent(
        self, landing: Landing, source: Source, before: np.ndarray, delivered: np.ndarray, received: int
    ) -> None:
        inside = np.zeros(len(before) + 1, "int32")
        for symbol, days in landing.covers.items():
            if symbol in self.symbols:
                first, last = map(day_number, days)
                base = self.symbols[symbol] * SHIFT + SHIFT // 2
                low, high = np.searchsorted(before, [base + first, base + last + 1])
                inside[low] += 1
                inside[high] -= 1
        held = before[np.cumsum(inside[:-1]) > 0]
        at = np.searchsorted(delivered, held)
        at[at == len(delivered)] = 0
        absent = held[delivered[at] != held] if len(delivered) else held
        now, _ = source.find(absent)
        absent = absent[~self.statements["withdrawn"][source.start[now]]]
        begins = self.statements.size + np.arange(len(absent))
        self.statements.append(
            key=absent,
            known=received,
            order=self._taken,
            source=source.code,
            withdrawn=True,
            settled=True,
            **dict.fromkeys(NUMBERS, np.nan),
        )
        source.says(absent, begins, np.ones(len(absent), "int64"))

    def _close(self, days: np.ndarray) -> np.ndarray:
        """Close of each day's session; the end of time where it is none."""
        lowest = days.min()
        held = np.zeros(days.max() - lowest + 1, bool)
        held[days - lowest] = True
        unique = np.flatnonzero(held) + lowest
        table = np.zeros(len(held), "int64")
        closes = session_close(pd.Series(unique.astype("datetime64[D]").astype("datetime64[us]")))
        filled = closes.fillna(pd.Timestamp.max.tz_localize("UTC")).dt.tz_convert(None)
        table[unique - lowest] = filled.to_numpy("datetime64[us]").astype("int64")
        return table[days - lowest]


def same_numbers(one: tuple, other: tuple) -> np.ndarray:
    """Whether statements have the same rows, whatever their order; (n,) bool.

    Args:
        one, other: (columns, (n,) first row, (n,) how many rows).
    """
    (a, start_a, count_a), (b, start_b, count_b) = one, other
    same = np.ones(len(start_a), bool)
    for name in NUMBERS:
        x, y = a[name][start_a], b[name][start_b]
        same &= (x == y) | (np.isnan(x) & np.isnan(y))
    for i in np.flatnonzero((count_a > 1) | (count_b > 1)):
        same[i] = _rows(a, start_a[i], count_a[i]) == _rows(b, start_b[i], count_b[i])
    return same


def _rows(columns: dict, start: int, count: int) -> set[bytes]:
    rows = np.column_stack([columns[name][start : start + count] for name in NUMBERS]) + 0.0
    rows[np.isnan(rows)] = np.nan
    return {row.tobytes() for row in rows}


def microseconds(instant: pd.Timestamp) -> int:
    return int(
        instant.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]").astype(int)
    )


def _instants(rows: pd.DataFrame) -> np.ndarray:
    """Each row's own instant, `NO_INSTANT` where it has none."""
    if "known_at" not in rows:
        return np.full(len(rows), NO_INSTANT)
    known = pd.to_datetime(rows["known_at"], utc=True).dt.tz_localize(None)
    return known.to_numpy("datetime64[us]").astype("int64")  # NaT is the smallest integer


def _changes(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], values[1:] != values[:-1]])


def _last_of(keys: np.ndarray) -> np.ndarray:
    return np.concatenate([keys[1:] != keys[:-1], [True]])


def _within(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... inside each group."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
