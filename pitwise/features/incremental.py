"""The market's last bars as they stand live, through the checks and formulas of the batch path.

A bar of a session that is not sealed yet bears upon its own symbol alone: it passes the checks of a
row, and its features follow from the symbol's bars before it. When the session is sealed, its
cross-section is fixed, the last bars of its symbols are cleaned once, by the batch path's own `clean`,
and what comes out differently is computed anew. A bar of a sealed session that comes late, is corrected
or withdrawn costs its own symbol alone. What is older than any check reaches back stays as it was.

Clean bars hold the prices as they were traded, and their factors count up from a symbol's first
session. So no split and no dividend changes anything before it, and the factors of the last bars go on
from those that the batch path has found.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import (
    next_session,
    session_close,
    session_date,
    session_days,
    session_number,
)
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, NUMBERS, in_order
from pitwise.bars.seals import day_number, sealed
from pitwise.bars.versions import BarVersions, known_actions, known_bars
from pitwise.cleaning import copies
from pitwise.cleaning.absences import new_companies, segments
from pitwise.cleaning.adjustment import steps, with_factors
from pitwise.cleaning.clean import APART, Cleaned, CleanParams, cleaned_or_nothing
from pitwise.cleaning.cross_section import CrossSection, tape
from pitwise.cleaning.equal_bars import ORDINARY
from pitwise.cleaning.neighbours import FEW_BARS, NOISE_BARS, Neighbours
from pitwise.cleaning.row_checks import reasons
from pitwise.features.daily import FACTORS
from pitwise.features.history import CREATED, KEYS
from pitwise.features.indicators import NAMES, TAIL
from pitwise.features.recent import recent_features
from pitwise.features.symbol_rows import SymbolRows
from pitwise.features.versions import ROUNDING
from pitwise.features.windows import WindowRows, packed, window_ends

LOOK_BACK = copies.LOOK_BACK + 5
"""Bars before a bar that decide on it: it may be a copy of one of so many, the rest is to spare."""
FEWER_BACK = NOISE_BARS + 2 * FEW_BARS
"""Bars before a bar that decide on it where none of those `LOOK_BACK` can be a copy, and all have
volume."""
DESCRIBED = ORDINARY + 5
"""Bars before each of two alike ones that tell whether it is chance."""
LOOK_AHEAD = 15
"""Bars after a bar that may still decide on it: five settle a move, the rest is to spare."""
VALUES = [*NAMES, *FACTORS, "segment"]
"""What a version of a feature row holds."""
CLEAN_VALUES = [*NUMBERS, *FACTORS, "segment"]
"""What a clean bar holds."""
CAME = ["symbol", "date", "known_at", "withdrawn"]
LIVE = "live"
"""The source of live bars."""


@dataclass(frozen=True)
class Outcome:
    """What became of one live bar."""

    symbol: str
    date: str
    """ISO 8601."""
    outcome: str
    """new | late | repeated | corrected | withdrawn | quarantined | failed | refused"""
    reason: str = ""
    """Of quarantined and refused: the name of the check, unknown_symbol, too_old, too_new or
    no_such_bar. Of failed: the error, by its name and what it says."""
    provisional: bool = False
    """Of a session that is not sealed: the checks that look at the whole market are still to come."""


@dataclass(frozen=True)
class Versions:
    """Rows of Feast's views that a change has made: what goes offline, and the newest of it online."""

    daily: pd.DataFrame
    windows: pd.DataFrame
    online_daily: pd.DataFrame
    online_windows: pd.DataFrame


@dataclass(frozen=True)
class State:
    """What the bars known so far have come to; sorted by symbol and date each."""

    bars: pd.DataFrame
    """Clean bars."""
    daily: pd.DataFrame
    """Their features as Feast's offline store has them, with `created_timestamp`."""
    market: CrossSection | None = None
    """The cross-section of each session; None with the verdicts switched off."""
    suspects: Mapping[str, str] = field(default_factory=dict)
    """Symbols with a bar whose verdict is provisional, and the kind of event it seems to be."""


class Tails(NamedTuple):
    """Rows that take the place of the last ones of some symbols."""

    codes: np.ndarray
    """(n,) int, of the symbols; ascending."""
    first: np.ndarray
    """(n,) int, how many of the rows held stay."""
    rows: pd.DataFrame
    """What follows them, sorted by symbol and time; it may be nothing."""


class Changes(NamedTuple):
    """What `LiveMarket.recompute` has found; `LiveMarket.accept` makes it the market's state."""

    names: frozenset[str]
    """The symbols whose bars were looked at."""
    changed: list[str]
    """Those of them whose clean bars differ."""
    bars: Tails
    """Their clean bars."""
    daily: Tails
    """The features of the changed ones."""
    versions: Versions
    missing: dict[str, int]
    """Of these, as `LiveMarket.missing_sessions`."""
    aside: dict[tuple[str, pd.Timestamp], str]
    """The reason of each bar set aside, where bars were judged anew."""
    suspects: dict[str, str]
    """As in `State`, after the change."""


class LiveMarket:
    """The last bars of every symbol, raw and clean, and their features.

    Args:
        versions: of all bars, as the batch path has them.
        state: what the batch path, and live bars before, have made of them.
        window: sessions of a model's window.
        correction_sessions: how many sessions before its symbol's newest one a live bar may lie.
        seal_coverage: what share of the symbols of the session before completes a session.
    """

    def __init__(
        self,
        versions: BarVersions,
        state: State,
        params: CleanParams,
        window: int,
        correction_sessions: int,
        seal_coverage: float,
    ):
        self.params, self.window = params, window
        self.correction_sessions, self.seal_coverage = correction_sessions, seal_coverage
        self._factors, self._actions = versions.factors, known_actions(versions)
        self._market = state.market
        self.suspects = dict(state.suspects)
        """Symbols with a bar whose verdict is provisional, and the kind of event it seems to be."""
        self.symbols = frozenset(versions.bars["symbol"].dropna())
        # Those that have features and no bar any more are held too.
        named = (frame["symbol"].unique() for frame in (state.bars, state.daily))
        names = sorted(self.symbols.union(*named))
        held = window + correction_sessions + LOOK_AHEAD
        # More raw ones, for the bars of a symbol that is often halted lie further back.
        keep = 2 * held + LOOK_BACK
        recent = _recent(versions.bars, keep)
        self._versions = SymbolRows(recent, names, "date", keep)
        raw = known_bars(versions._replace(bars=recent))
        self.columns = [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in raw else [])]
        self._raw = SymbolRows(raw[[*self.columns, "known_at"]], names, "date", keep)

        bars = _last(state.bars, TAIL + held)
        self._bars = SymbolRows(bars, names, "date", TAIL + held)
        since = session_close(_last(bars, held).groupby("symbol")["date"].min())
        since = state.daily["symbol"].map(since)
        daily = state.daily[since.isna() | (state.daily["event_timestamp"] >= since)]
        self._daily = SymbolRows(daily, names, "event_timestamp", held)
        self.missing_sessions = missing_sessions(daily, window)
        """Of each symbol with a recent whole window: how many sessions it leaves out."""

        over = versions.seals["sealed_at"] <= pd.Timestamp.now("UTC")
        self._seals = versions.seals[over]
        self.sealed: pd.Timestamp = self._seals["date"].max()
        """The newest sealed session; every session before it is sealed too."""
        self._clean_days: Counter[pd.Timestamp] = Counter()
        """How many clean bars the sealed session and each one after it has."""
        self._count_days(self._bars.all, self._bars.before(self._bars.all, self._instant_of_seal), 1)
        self._least_expected: int | None = None
        """How many symbols the sealed session had at every instant since its seal, at least; None where
        it is to be counted again."""
        self._changed: set[str] = set()
        """Symbols whose raw bars may not be in the state yet."""
        self._open: pd.Timestamp | None = None
        """The oldest sealed session whose bars are to be judged again."""

    @property
    def newest(self) -> pd.Timestamp:
        """Close of the market's newest session, UTC."""
        return session_close(pd.Series([self._newest_session()])).iloc[0]

    @property
    def sealed_close(self) -> pd.Timestamp:
        """Close of the newest sealed session, UTC."""
        return session_close(pd.Series([self.sealed])).iloc[0]

    @property
    def is_behind(self) -> bool:
        """Whether bars were taken that no accepted change has yet."""
        return bool(self._changed) or self._open is not None

    @property
    def names(self) -> list[str]:
        """All symbols of which anything is held."""
        return self._bars.names.tolist()

    @property
    def behind(self) -> frozenset[str]:
        """The symbols of these bars."""
        return frozenset(self._changed)

    @property
    def _instant_of_seal(self) -> np.datetime64:
        return self.sealed.to_datetime64()

    def newest_bars(self, names: Collection[str], n: int) -> pd.DataFrame:
        """The last `n` clean bars of some symbols, sorted by symbol and date."""
        codes = self._bars.codes(list(names))
        bars = self._bars.frame(codes, np.maximum(self._bars.size(codes) - n, 0))
        return bars.astype({"symbol": "string"})

    def _newest_session(self) -> pd.Timestamp:
        """The last of the sessions that have clean bars and follow the sealed one without a break.

        So a row that its source has dated far ahead, or on a holiday, moves nothing.
        """
        newest = self.sealed
        while self._clean_days[following := next_session(newest)] > 0:
            newest = following
        return newest

    def _count_days(self, codes: np.ndarray, first: np.ndarray, by: int) -> None:
        """Count the sessions since the seal of these symbols' clean bars from a position on."""
        first = np.maximum(first, self._bars.before(codes, self._instant_of_seal))
        days, counts = np.unique(self._bars.values(codes, ["date"], first)[0], return_counts=True)
        for day, count in zip(days, counts.tolist(), strict=True):
            self._clean_days[pd.Timestamp(day)] += by * count

    def judge(self, bars: pd.DataFrame) -> tuple[list[Outcome], pd.DataFrame]:
        """What is to become of live bars, before anything is done with them.

        Args:
            bars: symbol, date, open, high, low, close, volume and, optionally, adj_close.

        Returns:
            an outcome for each, in their order, and the bars to take.
        """
        bars = bars.reset_index(drop=True)
        reason = reasons(bars[COLUMNS])
        named = bars["symbol"].notna() & (bars["symbol"] != "")
        reason[named & ~bars["symbol"].isin(self.symbols)] = "unknown_symbol"
        reason = self._beyond(bars, reason)
        outcomes = []
        for bar, why in zip(bars[COLUMNS].itertuples(index=False), reason, strict=True):
            if why == "duplicate":
                outcome, why = "repeated", ""
            elif why:
                outcome = "refused"
            else:
                outcome = self._kind(bar)
            date = "" if pd.isna(bar.date) else bar.date.date().isoformat()
            provisional = outcome in ("new", "corrected") and bar.date > self.sealed
            outcomes.append(Outcome(str(bar.symbol), date, outcome, why, provisional))
        taken = [o.outcome in ("new", "late", "corrected") for o in outcomes]
        return outcomes, bars[taken]

    def _beyond(self, bars: pd.DataFrame, reason: pd.Series) -> pd.Series:
        """The reasons, and those of bars too far from the market's or their symbol's newest session."""
        reason = reason.copy()
        market = self._newest_session()
        newest: dict[str, pd.Timestamp] = {}
        passed = bars.loc[reason == "", BAR_KEY].sort_values("date", kind="stable")
        for i, name, date in zip(passed.index, passed["symbol"], passed["date"], strict=True):
            if date > market and date > next_session(market):
                reason[i] = "too_new"
                continue
            if name not in newest:
                newest[name] = self._newest_of(name, market)
            if _sessions_between(date, newest[name]) > self.correction_sessions:
                reason[i] = "too_old"
                continue
            market, newest[name] = max(market, date), max(newest[name], date)
        return reason

    def _newest_of(self, name: str, market: pd.Timestamp) -> pd.Timestamp:
        """A symbol's newest session, as far as the market's newest one."""
        for code in self._bars.codes([name]):
            for held in (self._bars, self._raw):
                dates = held.column(code, "date")
                until = dates.searchsorted(market.to_datetime64(), side="right")
                for date in dates[:until][::-1]:
                    if _number(day := pd.Timestamp(date)) >= 0:
                        return day
        return pd.Timestamp(0)

    def _kind(self, bar: Any) -> str:
        """new | late | repeated | corrected, of a bar that passes."""
        values = tuple(bar)[2:]
        held = set(zip(*(self._of_session(self._raw, bar, name) for name in NUMBERS), strict=True))
        if not held:
            return "late" if bar.date <= self.sealed else "new"
        if held == {values}:
            return "repeated"
        # What a later load has put right is not undone by a feed that says the same once more.
        said = np.flatnonzero(self._of_session(self._versions, bar, "source") == LIVE)
        if len(said):
            last = tuple(self._of_session(self._versions, bar, name)[said[-1]] for name in NUMBERS)
            return "repeated" if last == values else "corrected"
        return "corrected"

    def withdrawal(self, symbol: str, date: pd.Timestamp) -> Outcome:
        """What is to become of the withdrawal of a bar: withdrawn, or refused."""
        reason = ""
        if symbol not in self.symbols:
            reason = "unknown_symbol"
        elif not len(self._of_session(self._raw, _Key(symbol, date), "close")):
            reason = "no_such_bar"
        elif (
            _sessions_between(date, self._newest_of(symbol, self._newest_session()))
            > self.correction_sessions
        ):
            reason = "too_old"
        return Outcome(symbol, f"{date:%Y-%m-%d}", "refused" if reason else "withdrawn", reason)

    def _of_session(self, held: SymbolRows, key: Any, column: str) -> np.ndarray:
        """A column of what is held of a symbol's session."""
        code = held.code(key.symbol)
        if code is None:
            return np.empty(0)
        dates = held.column(code, "date")
        first, end = (dates.searchsorted(key.date.to_datetime64(), side) for side in ("left", "right"))
        return held.column(code, column)[first:end]

    def take(self, versions: pd.DataFrame, factors: pd.DataFrame | None = None) -> None:
        """Add versions of bars, live ones or withdrawals; those that are there already change nothing.

        Args:
            versions: see `pitwise.bars.versions.BarVersions.bars`; of symbols that are held.
            factors: all that are known, where they have changed.
        """
        if factors is not None:
            self._factors = factors
        added = versions.assign(
            symbol=versions["symbol"].astype("string"), code=self._versions.codes_of(versions)
        )
        since = added.groupby("code")["date"].min()
        codes = since.index.to_numpy()
        first = self._versions.before(codes, since.to_numpy())
        later = self._versions.frame(codes, first).astype({"symbol": "string"})
        added = added[list(later.columns)]
        rows = pd.concat([later, added], ignore_index=True) if len(later) else added
        rows = rows.drop_duplicates(keep="first")
        rows = rows.sort_values([*BAR_KEY, "known_at"], kind="stable", ignore_index=True)
        self._replace_versions(codes, since.to_numpy(), rows, anew=factors is not None)
        judged = versions.loc[versions["date"] <= self.sealed, "date"]
        if len(judged):
            self._judge_from(judged.min())

    def _replace_versions(
        self, codes: np.ndarray, since: np.ndarray, rows: pd.DataFrame, anew: bool = False
    ) -> None:
        """Put `rows` in place of the versions of some symbols since a day each.

        Args:
            anew: the factors of their other bars have changed too.
        """
        first = self._versions.before(codes, since)
        whole = rows
        if anew:
            whole = self._versions.replaced(codes, first, rows)
            since = np.full(len(codes), np.datetime64(0, "us"))
        names = self._versions.names[codes].tolist()
        mine = self._factors
        if len(mine):
            mine = mine[mine["symbol"].isin(names)]
        raw = known_bars(BarVersions(whole, mine, pd.DataFrame({"date": [], "sealed_at": []})))
        if ADJUSTED_CLOSE in self.columns and ADJUSTED_CLOSE not in raw:
            raw[ADJUSTED_CLOSE] = raw["close"]
        # From here on nothing fails: of a symbol both are new, or both old.
        self._versions.replace(codes, first, rows)
        self._raw.replace(codes, self._raw.before(codes, since), raw[[*self.columns, "known_at"]])
        self._changed.update(names)
        if (since <= self._instant_of_seal).any():
            self._least_expected = None

    def forget(self, names: Collection[str], known_at: pd.Timestamp) -> None:
        """Take back what was taken of some symbols since an instant, and count them as done.

        What could not be computed of theirs blocks nobody else; their state stays what it was.
        """
        codes = self._versions.codes(list(names))
        held = self._versions.frame(codes)
        gone = held["known_at"] >= known_at
        touched = held[gone].groupby("symbol", observed=True)["date"].min()
        if len(touched):
            some = self._versions.codes(touched.index.tolist())
            since = touched.to_numpy()
            first = self._versions.before(some, since)
            rows = self._versions.frame(some, first)
            rows = rows[rows["known_at"] < known_at].reset_index(drop=True)
            self._replace_versions(some, since, rows.astype({"symbol": "string"}))
        self._done(names)

    def _done(self, names: Collection[str]) -> None:
        self._changed.difference_update(names)
        if not self._changed:
            self._open = None

    def take_again(self, versions: pd.DataFrame, factors: pd.DataFrame | None) -> int:
        """`take` what the batch path has not published yet, or nothing.

        Returns:
            how many versions it left out: of sessions further back than a live bar may lie, and of
            symbols not known here, the next run of the pipeline takes care.
        """
        if versions.empty:
            return 0
        market = self._newest_session()
        newest = {name: self._newest_of(name, market) for name in versions["symbol"].unique()}
        numbers = session_number(versions["symbol"].map(newest))
        near = numbers - session_number(versions["date"]) <= self.correction_sessions
        near = near & versions["symbol"].isin(self.symbols).to_numpy()
        if near.any():
            self.take(versions[near], factors)
        return len(versions) - int(near.sum())

    def has_bars(self, date: pd.Timestamp) -> bool:
        """Whether a session that is not sealed has bars, and so have those between."""
        return self.sealed < date <= self._newest_session()

    def _before(self, newest: pd.Timestamp, seals: pd.DataFrame) -> pd.DataFrame:
        """The last bars of all symbols up to a session, each as it was known when its own was sealed."""
        held = self._versions
        start = _sessions_before(newest, LOOK_BACK).to_datetime64()
        fresh = held.before(held.all, self._instant_of_seal, "right")
        first = _fewer(held, held.all, held.before(held.all, start), fresh)
        end = held.before(held.all, newest.to_datetime64(), "right")
        return tape(BarVersions(held.frame(held.all, first, end), self._factors, seals))

    def _judge_from(self, date: pd.Timestamp) -> None:
        self._open = date if self._open is None else min(self._open, date)

    def _may_seal(self) -> bool:
        """Whether so many symbols have a later bar that a session may be complete; in microseconds."""
        if self._least_expected is None:
            self._least_expected = self._expected_at_least()
        later = int((self._versions.last("date") > self._instant_of_seal).sum())
        return later > 0 and later >= self.seal_coverage * self._least_expected

    def _expected_at_least(self) -> int:
        """Symbols of the sealed session that were there at its seal, and of which nothing was
        withdrawn."""
        held, day = self._versions, self._instant_of_seal
        rows = held.frame(held.all, held.before(held.all, day), held.before(held.all, day, "right"))
        lost = (rows["withdrawn"] | (rows["known_at"] > self._sealed_at)).groupby(
            rows["symbol"], observed=True
        )
        return int((~lost.any()).sum())

    @property
    def _sealed_at(self) -> pd.Timestamp:
        return self._seals.loc[self._seals["date"] == self.sealed, "sealed_at"].iloc[0]

    def seal(self, explicit: pd.Timestamp | None = None) -> pd.Timestamp | None:
        """Seal the sessions that are complete. Where it fails, nothing is sealed.

        Args:
            explicit: a session that a person declares complete.

        Returns:
            the newest one sealed now, or None.
        """
        if explicit is None and not self._may_seal():
            return None
        held = self._versions
        came = held.frame(held.all, held.before(held.all, self._instant_of_seal))[CAME]
        if not (came["date"] > self.sealed).any():
            return None
        known = came["known_at"].dt.tz_convert(None).to_numpy("datetime64[us]").astype("int64")
        # All that has come by now is known when a person seals.
        by_hand = {} if explicit is None else {day_number(explicit): int(known.max())}
        since = self._sealed_at.tz_convert(None).to_datetime64().astype("datetime64[us]").astype("int64")
        known = _known_after(known, came["date"], self.sealed, since)
        seals = sealed(
            came["symbol"].cat.codes.to_numpy("int64"),
            came["date"].to_numpy("datetime64[D]").astype("int64"),
            known,
            came["withdrawn"].to_numpy(bool),
            {day_number(self.sealed): int(since)} | by_hand,
            set(),
            self.seal_coverage,
        )
        newest = seals.loc[seals["sealed_at"] <= pd.Timestamp.now("UTC"), "date"].max()
        if not newest > self.sealed:
            return None
        fresh = came[(came["date"] > self.sealed) & (came["date"] <= newest)]
        sealed_now = seals[(seals["date"] > self.sealed) & (seals["date"] <= newest)]
        seals = pd.concat([self._seals, sealed_now], ignore_index=True)
        if self._market is not None:
            self._market = self._market.extended(self._before(newest, seals))
        self._judge_from(fresh["date"].min())
        self._changed.update(fresh["symbol"].unique())
        self._seals, self.sealed, self._least_expected = seals, newest, None
        return newest

    def recompute(
        self, now: pd.Timestamp, in_doubt: bool = False, only: Collection[str] | None = None
    ) -> Changes:
        """What the bars taken have changed; the state itself stays as it is until `accept`.

        Args:
            now: when it is known, later than every version held.
            in_doubt: the features held may not be of the bars held, as after a kill between two pushes.
                All are computed anew, and the newest go online again.
            only: of these symbols alone.

        Raises:
            NotFiniteError: a feature is no number.
        """
        looked_at = self._changed if only is None else self._changed.intersection(only)
        codes = self._bars.codes(list(looked_at))
        aside: dict[tuple[str, pd.Timestamp], str] = {}
        suspects = self.suspects
        if self._open is None:
            bars = self._carried_on(codes)
        else:
            bars, aside, suspects = self._judged_again(codes)
        changed_from = self._changed_from(bars)
        if in_doubt:
            codes = self._bars.all if only is None else self._bars.codes(list(only))
            bars, changed_from = self._all_changed(bars, codes)
        daily, versions, missing = self._featured(bars, changed_from, now, in_doubt)
        names = looked_at if only is None or not in_doubt else only
        changed = self._daily.names[daily.codes].tolist()
        return Changes(frozenset(names), changed, bars, daily, versions, missing, aside, suspects)

    def accept(self, changes: Changes) -> None:
        """The changes are in the store: make them the state."""
        codes, first, rows = changes.bars
        self._count_days(codes, first, -1)
        self._bars.replace(codes, first, rows)
        self._count_days(codes, first, 1)
        codes, first, rows = changes.daily
        self._daily.replace(codes, first, rows)
        self.missing_sessions |= changes.missing
        self.suspects = changes.suspects
        self._done(changes.names)

    def _all_changed(self, bars: Tails, codes: np.ndarray) -> tuple[Tails, np.ndarray]:
        """The bars and, as in `_changed_from`, the first session held, of these symbols all."""
        first = self._bars.size(codes)
        mine = np.isin(codes, bars.codes)
        first[mine] = bars.first[np.isin(bars.codes, codes)]
        some = self._daily.size(codes) > 0
        begin = np.full(len(codes), _EVER)
        held = self._daily.frame(codes[some], 0, np.ones(some.sum(), int))
        begin[some] = session_days(held["event_timestamp"]).to_numpy("datetime64[us]")
        return Tails(codes, first, bars.rows), begin

    def _carried_on(self, codes: np.ndarray) -> Tails:
        """The clean bars of some symbols since the newest sealed session, taken anew.

        Each of these passes the checks of a row or is left out, and goes on from the last sealed bar.
        """
        after = self._bars.before(codes, self._instant_of_seal, "right")
        begun = codes[after > 0]
        last = self._bars.frame(begun, after[after > 0] - 1, after[after > 0])["date"].to_numpy()
        tail = self._raw.frame(begun, self._raw.before(begun, last))
        lasts = np.repeat(last, self._raw.size(begun) - self._raw.before(begun, last))
        dates = tail["date"].to_numpy()
        tail = tail[(dates == lasts) | (dates > self._instant_of_seal)].reset_index(drop=True)
        cut = np.full(len(codes), self._instant_of_seal + np.timedelta64(1, "D"))
        return self._spliced(codes, cut, np.maximum(after - 1, 0), self._row_checked(tail))

    def _row_checked(self, raw: pd.DataFrame) -> pd.DataFrame:
        """The clean bars of sessions that no bar is judged by others in: what `clean` makes of them.

        Args:
            raw: sorted by symbol and date.
        """
        bars = raw[(reasons(raw) == "").to_numpy()].reset_index(drop=True)
        actions = self._actions[self._actions["symbol"].isin(bars["symbol"].unique())]
        n = Neighbours(bars)
        taken, events = steps(bars, self.params.split_step, actions)
        breaks = np.zeros(len(bars), bool)
        if self._market is not None:
            breaks = new_companies(n, self.params.absences)
        breaks[events.loc[events["kind"].isin(APART), "row"].to_numpy(int)] = True
        return with_factors(bars, taken, n.run).assign(segment=segments(breaks, n.first))

    def _judged_again(
        self, codes: np.ndarray
    ) -> tuple[Tails, dict[tuple[str, pd.Timestamp], str], dict[str, str]]:
        """The clean bars of some symbols, the last ones cleaned anew; the reasons of those set aside;
        and the suspects."""
        assert self._open is not None
        recent = _sessions_before(self._open, LOOK_AHEAD).to_datetime64()
        # A symbol that was halted has the bars to be judged further back.
        cut = np.fmin(recent, _last_before(self._bars, codes, self._open.to_datetime64(), LOOK_AHEAD))
        numbers = session_number(pd.Series(cut))
        start = session_date(np.maximum(numbers - LOOK_BACK, 0)).to_numpy("datetime64[us]")
        begin = np.fmin(start, _last_before(self._raw, codes, cut, LOOK_BACK))
        first = _fewer(self._raw, codes, self._raw.before(codes, begin), self._raw.before(codes, cut))
        tail = self._raw.frame(codes, first)
        earlier = self._bars.before(codes, _dates_at(self._raw, codes, first))
        names = self._bars.names[codes].tolist()
        cleaned = self._clean(tail, dict(zip(names, earlier.tolist(), strict=True)))
        bars = self._spliced(codes, cut, earlier, cleaned.bars)
        quarantine, events = cleaned.quarantine, cleaned.events
        aside = zip(quarantine["symbol"], quarantine["date"], quarantine["reason"], strict=True)
        doubted = events[events["status"] == "provisional"]
        suspects = {k: v for k, v in self.suspects.items() if k not in set(names)}
        suspects |= dict(zip(doubted["symbol"], doubted["kind"], strict=True))
        return (
            bars,
            {(symbol, date): reason for symbol, date, reason in aside},
            suspects,
        )

    def _clean(self, raw: pd.DataFrame, earlier: dict[str, int]) -> Cleaned:
        """The bars, cleaned; it is no error if none is left."""
        dates = raw.loc[raw["date"] > self.sealed, "date"]
        open_sessions = list(dates.drop_duplicates())
        return cleaned_or_nothing(raw, self.params, earlier, open_sessions, self._market, self._actions)

    def _spliced(
        self, codes: np.ndarray, cut: np.ndarray, begin: np.ndarray, fresh: pd.DataFrame
    ) -> Tails:
        """The clean bars of some symbols from `cut` on: the fresh ones, going on from those held.

        Fresh factors begin at 1 and segments at 0 with the first fresh bar; they go on from the held
        ones of the last bar before `cut` that both have. A symbol without such a bar stays as it is
        held, unless all its held bars are fresh ones.

        Args:
            cut: (n,) a day for each symbol.
            begin: (n,) position among the bars held of the one that `fresh` may begin with.
            fresh: clean bars of these symbols, sorted by symbol and date.
        """
        held = self._bars
        first = held.before(codes, cut)
        begin = np.minimum(begin, np.maximum(first - 1, 0))
        older = held.frame(codes, begin, first)
        fresh = fresh.assign(symbol=held.symbols(held.codes_of(fresh)))[list(older.columns)]
        slot = np.searchsorted(codes, held.codes_of(fresh))
        theirs = _keys(slot, fresh["date"])
        mine = _keys(np.searchsorted(codes, held.codes_of(older)), older["date"])
        at = _found(theirs, mine)
        anchor = np.full(len(codes), -1)
        common = np.flatnonzero(at >= 0)
        anchor[slot[common]] = common  # the last one of each symbol
        # Without a new split or distribution the factors stand; so it is of nearly all on most days.
        plain = anchor >= 0
        follows = plain[slot] & (np.arange(len(fresh)) > anchor[slot])
        for column in FACTORS:
            factor = fresh[column].to_numpy()
            plain[slot[follows & (factor != factor[anchor[slot]])]] = False
        follows &= fresh["date"].to_numpy() >= cut[slot]
        plain &= np.bincount(slot[follows], minlength=len(codes)) > 0
        follows &= plain[slot]
        newer, its = fresh[follows], slot[follows]
        last = older.iloc[at[anchor[its]]]
        segment = newer["segment"].to_numpy() + (
            last["segment"].to_numpy() - fresh["segment"].to_numpy()[anchor[its]]
        )
        newer = newer.assign(
            **{column: last[column].to_numpy() for column in FACTORS}, segment=segment.astype("int32")
        )
        parts = [newer]
        for i in np.flatnonzero(~plain):
            older = held.frame(codes[i : i + 1], begin[i : i + 1])
            first[i], rows = _spliced_by_steps(older, fresh[slot == i], cut[i], first[i] - begin[i])
            first[i] += begin[i]
            parts.append(rows)
        rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        order = np.argsort(held.codes_of(rows), kind="stable")
        return Tails(codes, first, rows.iloc[order].reset_index(drop=True))

    def _changed_from(self, bars: Tails) -> np.ndarray:
        """Each symbol's first session whose clean bar differs from the one held, NaT where none does."""
        held = self._bars.frame(bars.codes, bars.first)
        slot, slot_held = (
            np.searchsorted(bars.codes, self._bars.codes_of(rows)) for rows in (bars.rows, held)
        )
        ours, theirs = _keys(slot, bars.rows["date"]), _keys(slot_held, held["date"])
        at = _found(ours, theirs)
        differs = at < 0
        values, were = (rows[CLEAN_VALUES].to_numpy("float64") for rows in (bars.rows, held))
        differs[~differs] = (values[~differs] != were[at[~differs]]).any(axis=1)
        gone = _found(theirs, ours) < 0
        since = np.full(len(bars.codes), _NEVER_DAY)
        np.minimum.at(since, slot[differs], bars.rows["date"].to_numpy("datetime64[us]")[differs])
        np.minimum.at(since, slot_held[gone], held["date"].to_numpy("datetime64[us]")[gone])
        since[since == _NEVER_DAY] = np.datetime64("NaT")
        return since

    def _featured(
        self, bars: Tails, changed_from: np.ndarray, now: pd.Timestamp, in_doubt: bool
    ) -> tuple[Tails, Versions, dict[str, int]]:
        """The features of the symbols with a session in `changed_from`, their versions since then, and
        their missing sessions.

        Args:
            in_doubt: the newest rows of all these symbols go online, not only of those that changed.
        """
        does = ~np.isnat(changed_from)
        codes, first, since = bars.codes[does], bars.first[does], changed_from[does]
        mine = does[np.searchsorted(bars.codes, self._bars.codes_of(bars.rows))]
        start = np.maximum(np.minimum(self._bars.before(codes, since), first) - TAIL, 0)
        clean = self._bars.replaced(codes, first, bars.rows[mine], start)
        slot = np.searchsorted(codes, self._bars.codes_of(clean))
        fresh = recent_features(clean, clean["date"].to_numpy("datetime64[us]") >= since[slot])

        held = self._daily.frame(codes)
        slot = np.searchsorted(codes, self._daily.codes_of(held))
        closes = session_close(pd.Series(since)).dt.tz_convert(None).to_numpy("datetime64[us]")
        closes = np.where(np.isnat(closes), _EVER, closes)
        instants = _instants(held["event_timestamp"])
        is_old = instants < closes[slot]
        # What lies before all that is held stays as it is.
        begin = np.full(len(codes), _EVER)
        begin[slot[::-1]] = instants[::-1]
        slot_fresh = np.searchsorted(codes, self._daily.codes_of(fresh))
        is_held = _instants(fresh["event_timestamp"]) >= begin[slot_fresh]
        fresh, slot_fresh = fresh[is_held].reset_index(drop=True), slot_fresh[is_held]
        rows, fresh = self._new_versions(
            held[~is_old], fresh, slot[~is_old], slot_fresh, now, rounded=in_doubt
        )
        tails = Tails(codes, np.bincount(slot[is_old], minlength=len(codes)), fresh)
        daily = self._daily.replaced(codes, tails.first, fresh)
        return tails, *self._pushed(codes, held, daily, rows, now, in_doubt)

    def _new_versions(
        self,
        held: pd.DataFrame,
        fresh: pd.DataFrame,
        slot_held: np.ndarray,
        slot: np.ndarray,
        now: pd.Timestamp,
        rounded: bool,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of `fresh` that differ from the held ones with a withdrawal of each that it lacks,
        and `fresh` with the instants since which its rows are known.

        Args:
            slot_held, slot: which symbol each row is of.
            rounded: features are as they are held where only rounding differs: the pipeline's begin
            before
                a tail.
        """
        theirs = _keys(slot_held, held["event_timestamp"])
        at = _found(_keys(slot, fresh["event_timestamp"]), theirs)
        both = at >= 0
        new, old = fresh[VALUES].to_numpy("float64"), held[VALUES].to_numpy("float64")[at[both]]
        if rounded:
            close = np.isclose(new[both], old, equal_nan=True, **ROUNDING)[:, : len(NAMES)].all(axis=1)
            new[np.flatnonzero(both)[close], : len(NAMES)] = old[close, : len(NAMES)]
            fresh = fresh.assign(**dict(zip(NAMES, new.T, strict=False)))
        same = np.zeros(len(fresh), bool)
        same[both] = ((new[both] == old) | (np.isnan(new[both]) & np.isnan(old))).all(axis=1)
        created = np.full(len(fresh), now.tz_convert(None).to_datetime64().astype("datetime64[us]"))
        created[same] = _instants(held[CREATED])[at[same]]
        fresh = fresh.assign(**{CREATED: pd.DatetimeIndex(created).tz_localize("UTC")})
        fresh = fresh[list(held.columns)]
        withdrawn = held[_found(theirs, _keys(slot, fresh["event_timestamp"])) < 0]
        withdrawn = withdrawn.assign(**dict.fromkeys(NAMES, np.nan), **{CREATED: now})
        rows = _joined([fresh[~same], withdrawn], fresh)
        rows = rows.astype({"symbol": "string", **held.dtypes.drop("symbol")})
        return rows.sort_values(KEYS, ignore_index=True), fresh

    def _pushed(
        self,
        codes: np.ndarray,
        held: pd.DataFrame,
        daily: pd.DataFrame,
        rows: pd.DataFrame,
        now: pd.Timestamp,
        in_doubt: bool,
    ) -> tuple[Versions, dict[str, int]]:
        """What goes to the stores, and how many sessions the newest windows leave out.

        Args:
            held: the features of these symbols, `daily` as they are now.
            rows: the versions that this makes.
        """
        names = self._daily.names
        first = np.full(len(codes), np.datetime64("NaT", "us"))
        slot = np.searchsorted(codes, self._daily.codes_of(rows))
        first[slot[::-1]] = _instants(rows["event_timestamp"])[::-1]
        of_daily, of_held = (np.searchsorted(codes, self._daily.codes_of(d)) for d in (daily, held))
        instants = _instants(daily["event_timestamp"])
        window_rows = WindowRows(daily, NAMES)
        ends = window_ends(of_daily, window_rows.base, self.window)
        changed = ends[instants[ends] >= first[of_daily[ends]]]
        before = window_ends(of_held, held[NAMES].to_numpy(), self.window)
        before = before[_instants(held["event_timestamp"])[before] >= first[of_held[before]]]
        were = _keys(of_held[before], held["event_timestamp"].iloc[before])
        are = _keys(of_daily[changed], daily["event_timestamp"].iloc[changed])
        gone = held[KEYS].iloc[before[_found(were, are) < 0]].assign(**{CREATED: now, "window": None})
        online = ~np.isnat(first) | in_doubt
        newest = ends[_lasts(of_daily[ends])]
        missing = _missing(daily, newest, self.window)
        newest = newest[online[of_daily[newest]]]

        def windows(at: np.ndarray) -> pd.DataFrame:
            values = packed(window_rows.gather(at, self.window))
            return keys(daily, at).assign(**{CREATED: now, "window": pd.Series(values, dtype=object)})

        def keys(of: pd.DataFrame, at: np.ndarray) -> pd.DataFrame:
            found = of[KEYS].iloc[at].reset_index(drop=True)
            return found.assign(symbol=names[self._daily.codes_of(found)].array)

        last = np.flatnonzero(_lasts(of_daily) & online[of_daily])
        gone = gone.astype({"symbol": "string"})
        all_windows = windows(changed)
        versions = Versions(
            rows,
            _joined([all_windows, gone], all_windows),
            # Known now, as the windows: the newest row that stands may be an older one again.
            pd.concat(
                [
                    keys(daily, last).assign(**{CREATED: now}),
                    daily[NAMES].iloc[last].reset_index(drop=True),
                ],
                axis=1,
            ),
            all_windows if np.array_equal(newest, changed) else windows(newest),
        )
        return versions, missing


_EVER = np.datetime64(0, "us")
_NEVER = day_number(pd.Timestamp("2262-01-01")) * 86_400_000_000
_NEVER_DAY = np.datetime64("2262-01-01", "us")


class _Key(NamedTuple):
    """Of a bar."""

    symbol: str
    date: pd.Timestamp


def missing_sessions(daily: pd.DataFrame, window: int) -> dict[str, int]:
    """How many sessions of the exchange each symbol's newest whole window leaves out.

    Args:
        daily: `symbol`, `event_timestamp` and the features, sorted by the first two.
    """
    ends = window_ends(daily["symbol"].to_numpy(object), daily[NAMES].to_numpy(), window)
    symbols = daily["symbol"].iloc[ends]
    return _missing(daily, ends[~symbols.duplicated(keep="last").to_numpy()], window)


def _missing(daily: pd.DataFrame, ends: np.ndarray, window: int) -> dict[str, int]:
    """As `missing_sessions`, of the windows that end at some rows."""
    last, first = (
        session_number(session_days(daily["event_timestamp"].iloc[at]))
        for at in (ends, ends - window + 1)
    )
    missing = last - first - (window - 1)
    return dict(zip(daily["symbol"].iloc[ends], missing.tolist(), strict=True))


def _spliced_by_steps(
    mine: pd.DataFrame, ours: pd.DataFrame, cut: np.datetime64, before: int
) -> tuple[int, pd.DataFrame]:
    """`LiveMarket._spliced` of one symbol, with splits and distributions.

    Args:
        mine: what is held, `ours` the fresh bars.
        before: how many of `mine` lie before `cut`.

    Returns:
        how many of `mine` stay, and the bars that follow them.
    """
    older = mine.iloc[:before]
    if older.empty:
        return 0, ours
    common = ours[ours["date"].isin(older["date"])]
    newer = ours[ours["date"] >= cut]
    if newer.empty:
        return before, newer
    if common.empty:
        return len(mine), ours.iloc[:0]
    anchor = older[older["date"] == common["date"].iloc[-1]].iloc[0]
    newer = ours[ours["date"] > anchor["date"]]
    factors = {
        column: _going_on(
            np.append(common[column].iloc[-1], newer[column]),
            anchor[column],
            newer["date"].map(mine.set_index("date")[column]).to_numpy(),
        )
        for column in FACTORS
    }
    segment = newer["segment"] + (anchor["segment"] - common["segment"].iloc[-1])
    newer = newer.assign(**factors, segment=segment.astype(mine["segment"].dtype))
    return before, newer[newer["date"] >= cut]


def _going_on(fresh: np.ndarray, start: float, held: np.ndarray) -> np.ndarray:
    """A cumulative factor from `start` on, by the steps of a fresh one.

    Args:
        fresh: (n + 1,) from the bar of `start` on.
        held: (n,) what is held, NaN where nothing is. It stands where only rounding differs.
    """
    if (fresh == fresh[0]).all():
        return np.full(len(held), start)
    factor = np.empty(len(fresh))
    factor[0] = start
    for i in range(1, len(fresh)):
        same = fresh[i] == fresh[i - 1]
        factor[i] = factor[i - 1] if same else factor[i - 1] * (fresh[i] / fresh[i - 1])
        if abs(factor[i] - held[i - 1]) <= 1e-12 * factor[i]:
            factor[i] = held[i - 1]
    return factor[1:]


def _known_after(known: np.ndarray, dates: pd.Series, sealed: pd.Timestamp, since: int) -> np.ndarray:
    """The instants at which bars bear upon the next seals, the newest one being given; (n,) int.

    The sealed session's bars do from its seal on. Those of a later one that were there before did not
    seal it, and are asked again with the next bar of their session.

    Args:
        known: (n,) microseconds, as `since`, the instant of the seal.
    """
    held = (dates == sealed).to_numpy()
    waiting = ~held & (known <= since)
    following = (
        pd.Series(np.where(known > since, known, _NEVER)).groupby(dates.to_numpy()).transform("min")
    )
    return np.where(waiting, following, np.where(held, np.maximum(known, since), known))


def _last(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The last `n` rows of each symbol, in their order."""
    return rows.groupby("symbol", sort=False).tail(n).reset_index(drop=True)


def _recent(versions: pd.DataFrame, n: int) -> pd.DataFrame:
    """All versions of each symbol's last `n` sessions; those without a symbol or a date are left out."""
    keyed = versions[versions["symbol"].notna() & versions["date"].notna()]
    since = _last(in_order(keyed[BAR_KEY].drop_duplicates()), n).groupby("symbol")["date"].min()
    return keyed[keyed["date"] >= keyed["symbol"].map(since)].reset_index(drop=True)


def _last_before(held: SymbolRows, codes: np.ndarray, days: np.ndarray, n: int) -> np.ndarray:
    """Of each symbol the date of its last row but `n` - 1 before a day, or of its first; NaT where there
    is none."""
    end = held.before(codes, days)
    some = end > 0
    dates = np.full(len(codes), np.datetime64("NaT", "us"))
    dates[some] = _dates_at(held, codes[some], np.maximum(end - n, 0)[some])
    return dates


def _dates_at(held: SymbolRows, codes: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The date of each symbol's row at a position."""
    return held.values(codes, ["date"], position, position + 1)[0]


def _fewer(held: SymbolRows, codes: np.ndarray, first: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The position of the first row that decides on those to be judged; (n,).

    Verdicts look back on `NOISE_BARS` and a few. Only whether a bar is a copy of an earlier one, and
    whether a stock without volume trades as a rule, is told from all `LOOK_BACK`: so where none of the
    fewer bars has high and low of one before them, and all have volume, these are enough.

    Args:
        first: of the rows that may decide.
        judged: of the rows to be judged.
    """
    fewer = np.maximum(first, judged - FEWER_BACK)
    high, low, volume, of = held.values(codes, ["high", "low", "volume"], first)
    counts = held.size(codes) - first
    position = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts + fewer - first, counts)
    near = position >= 0
    mixed = of.astype("uint64") << np.uint64(50)
    for each in (high, low):
        mixed = (mixed ^ (mixed >> np.uint64(29)) ^ each.view("uint64")) * np.uint64(0x9E3779B97F4A7C15)
    alike = pd.Series(mixed).duplicated().to_numpy(copy=True)
    # Of two alike bars the first, too, is judged by the bars before it.
    inside = position >= DESCRIBED
    alike[inside] &= ~pd.Series(mixed[inside]).duplicated().to_numpy()
    in_doubt = alike[near] | ~(volume[near] > 0)
    whole = np.bincount(of[near], in_doubt, minlength=len(held.names))[codes] > 0
    return np.where(whole, first, fewer)


def _keys(slot: np.ndarray, times: pd.Series) -> np.ndarray:
    """(n,) int, ascending with the symbol and the time of sorted rows."""
    return slot * 2**40 + _instants(times).astype("int64") // 1_000_000


def _found(wanted: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n,) the position of each among sorted keys, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _lasts(slot: np.ndarray) -> np.ndarray:
    """(n,) bool: the last row of each symbol."""
    return np.append(slot[1:] != slot[:-1], True)[: len(slot)]


def _instants(times: pd.Series) -> np.ndarray:
    """(n,) datetime64[us], UTC where the times have a zone."""
    values = times.dt.tz_convert(None) if times.dt.tz is not None else times
    return values.to_numpy("datetime64[us]")


def _joined(parts: list[pd.DataFrame], otherwise: pd.DataFrame) -> pd.DataFrame:
    """The parts that have rows as one table; the empty rest has the columns of `otherwise`."""
    full = [part for part in parts if len(part)]
    return pd.concat(full, ignore_index=True) if full else otherwise.iloc[:0].reset_index(drop=True)


@lru_cache(maxsize=4096)
def _number(date: pd.Timestamp) -> int:
    """`session_number` of one date; a session's bars all ask for the same few."""
    return int(session_number(pd.Series([date]))[0])


def _sessions_between(date: pd.Timestamp, newest: pd.Timestamp) -> int:
    """How many sessions `date` lies before `newest`; 0 or less where it does not."""
    return _number(max(date, newest)) - _number(date)


def _sessions_before(date: pd.Timestamp, n: int) -> pd.Timestamp:
    """The session that many before a session."""
    return session_date(np.array([max(_number(date) - n, 0)]))[0]
