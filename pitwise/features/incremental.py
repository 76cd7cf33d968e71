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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import (
    is_session,
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
from pitwise.cleaning.clean import Cleaned, CleanParams, cleaned_or_nothing
from pitwise.cleaning.cross_section import CrossSection, tape
from pitwise.cleaning.row_checks import reasons
from pitwise.features.daily import FACTORS, daily_features
from pitwise.features.history import CREATED, KEYS
from pitwise.features.indicators import NAMES, TAIL
from pitwise.features.versions import ROUNDING
from pitwise.features.windows import WindowRows, packed, window_ends

LOOK_BACK = copies.LOOK_BACK + 5
"""Bars before a bar that decide on it: it may be a copy of one of so many, the rest is to spare."""
LOOK_AHEAD = 15
"""Bars after a bar that may still decide on it: five settle a move, the rest is to spare."""
VALUES = [*NAMES, *FACTORS, "segment"]
"""What a version of a feature row holds."""
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
    """new | late | repeated | corrected | withdrawn | quarantined | refused"""
    reason: str = ""
    """Of the last two: the name of the check, unknown_symbol, too_old, too_new or no_such_bar."""
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


class Changes(NamedTuple):
    """What `LiveMarket.recompute` has found; `LiveMarket.accept` makes it the market's state."""

    bars: dict[str, pd.DataFrame]
    """All held clean bars of each symbol whose bars may differ."""
    daily: dict[str, pd.DataFrame]
    """All held feature rows of each symbol that has a new version."""
    versions: Versions
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
        held = window + correction_sessions + LOOK_AHEAD
        # More raw ones, for the bars of a symbol that is often halted lie further back.
        recent = _recent(versions.bars, 2 * held + LOOK_BACK)
        self._versions = _by_symbol(recent)
        self._factors, self._actions = versions.factors, known_actions(versions)
        self._market = state.market
        self.suspects = dict(state.suspects)
        """Symbols with a bar whose verdict is provisional, and the kind of event it seems to be."""
        raw = known_bars(versions._replace(bars=recent))
        self.columns = [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in raw else [])]
        self._raw = _by_symbol(raw[[*self.columns, "known_at"]])
        self.symbols = frozenset(versions.bars["symbol"].dropna())

        bars = _last(state.bars, TAIL + held)
        self._bars, self._no_bars = _by_symbol(bars), bars.iloc[:0]
        since = session_close(_last(bars, held).groupby("symbol")["date"].min())
        since = state.daily["symbol"].map(since)
        daily = state.daily[since.isna() | (state.daily["event_timestamp"] >= since)]
        self._daily, self._no_daily = _by_symbol(daily), daily.iloc[:0]
        self.missing_sessions = missing_sessions(daily, window)
        """Of each symbol with a recent whole window: how many sessions it leaves out."""

        over = versions.seals["sealed_at"] <= pd.Timestamp.now("UTC")
        self._seals = versions.seals[over]
        self.sealed: pd.Timestamp = self._seals["date"].max()
        """The newest sealed session; every session before it is sealed too."""
        came = recent.loc[recent["date"] >= self.sealed, CAME]
        self._came = dict.fromkeys(self._versions, came.iloc[:0]) | _by_symbol(came)
        """Each symbol's versions of bars of the sealed session and of those after it."""
        self._clean_days: Counter[pd.Timestamp] = Counter()
        """How many clean bars the sealed session and each one after it has."""
        for rows in self._bars.values():
            self._clean_days.update(self._recent_days(rows))
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

    def _newest_session(self) -> pd.Timestamp:
        """The last of the sessions that have clean bars and follow the sealed one without a break.

        So a row that its source has dated far ahead, or on a holiday, moves nothing.
        """
        newest = self.sealed
        while self._clean_days[following := next_session(newest)] > 0:
            newest = following
        return newest

    def _recent_days(self, bars: pd.DataFrame) -> list[pd.Timestamp]:
        return bars["date"].iloc[bars["date"].searchsorted(self.sealed) :].tolist()

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
            date = "" if pd.isna(bar.date) else f"{bar.date:%Y-%m-%d}"
            provisional = outcome in ("new", "corrected") and bar.date > self.sealed
            outcomes.append(Outcome(str(bar.symbol), date, outcome, why, provisional))
        taken = [o.outcome in ("new", "late", "corrected") for o in outcomes]
        return outcomes, bars[taken]

    def _beyond(self, bars: pd.DataFrame, reason: pd.Series) -> pd.Series:
        """The reasons, and those of bars too far from the market's or their symbol's newest session."""
        reason = reason.copy()
        market = self._newest_session()
        newest: dict[str, pd.Timestamp] = {}
        for i in bars.index[reason == ""][np.argsort(bars.loc[reason == "", "date"], kind="stable")]:
            name, date = bars.at[i, "symbol"], bars.at[i, "date"]
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
        for rows in (self._bars.get(name), self._raw.get(name)):
            if rows is not None:
                until = rows["date"].searchsorted(market, side="right")
                for date in rows["date"].iloc[:until][::-1]:
                    if session_number(pd.Series([date]))[0] >= 0:
                        return date
        return pd.Timestamp(0)

    def _newest_of_all(self, names: Collection[str], market: pd.Timestamp) -> dict[str, pd.Timestamp]:
        """As `_newest_of`, where their last bars are of sessions as a rule."""
        held = {name: self._bars[name] for name in names if name in self._bars}
        days = {name: rows["date"].iat[-1] for name, rows in held.items() if len(rows)}
        last = pd.Series(days, dtype="datetime64[us]")
        plain = last[(last <= market) & is_session(last)]
        rest = {name: self._newest_of(name, market) for name in names if name not in plain.index}
        return plain.to_dict() | rest

    def _kind(self, bar: Any) -> str:
        """new | late | repeated | corrected, of a bar that passes."""
        values = tuple(bar)[2:]
        held = self._of_session(self._raw, bar.symbol, bar.date)[NUMBERS].drop_duplicates()
        if held.empty:
            return "late" if bar.date <= self.sealed else "new"
        if len(held) == 1 and tuple(held.iloc[0]) == values:
            return "repeated"
        # What a later load has put right is not undone by a feed that says the same once more.
        said = self._of_session(self._versions, bar.symbol, bar.date)
        said = said[said["source"] == LIVE]
        again = len(said) and tuple(said.iloc[-1][NUMBERS]) == values
        return "repeated" if again else "corrected"

    def withdrawal(self, symbol: str, date: pd.Timestamp) -> Outcome:
        """What is to become of the withdrawal of a bar: withdrawn, or refused."""
        reason = ""
        if symbol not in self.symbols:
            reason = "unknown_symbol"
        elif self._of_session(self._raw, symbol, date).empty:
            reason = "no_such_bar"
        elif (
            _sessions_between(date, self._newest_of(symbol, self._newest_session()))
            > self.correction_sessions
        ):
            reason = "too_old"
        return Outcome(symbol, f"{date:%Y-%m-%d}", "refused" if reason else "withdrawn", reason)

    def _of_session(
        self, frames: Mapping[str, pd.DataFrame], symbol: str, date: pd.Timestamp
    ) -> pd.DataFrame:
        rows = frames.get(symbol)
        return pd.DataFrame(columns=[*COLUMNS, "source"]) if rows is None else rows[rows["date"] == date]

    def take(self, versions: pd.DataFrame, factors: pd.DataFrame | None = None) -> None:
        """Add versions of bars, live ones or withdrawals; those that are there already change nothing.

        Args:
            versions: see `pitwise.bars.versions.BarVersions.bars`.
            factors: all that are known, where they have changed.
        """
        if factors is not None:
            self._factors = factors
        names = versions["symbol"].unique().tolist()
        held = [self._versions[name] for name in names if name in self._versions]
        if held:
            versions = versions.astype(held[0].dtypes)
        rows = pd.concat([*held, versions]).drop_duplicates(keep="first")
        rows = rows.sort_values([*BAR_KEY, "known_at"], kind="stable", ignore_index=True)
        mine = self._factors[self._factors["symbol"].isin(names)]
        raw = known_bars(BarVersions(rows, mine, pd.DataFrame({"date": [], "sealed_at": []})))
        if ADJUSTED_CLOSE in self.columns and ADJUSTED_CLOSE not in raw:
            raw[ADJUSTED_CLOSE] = raw["close"]
        raw = raw[[*self.columns, "known_at"]]
        self._versions |= _by_symbol(rows)
        self._raw |= dict.fromkeys(names, raw.iloc[:0]) | _by_symbol(raw)
        came = rows.loc[rows["date"] >= self.sealed, CAME]
        self._came |= dict.fromkeys(names, came.iloc[:0]) | _by_symbol(came)
        self._changed.update(names)
        judged = versions.loc[versions["date"] <= self.sealed, "date"]
        if len(judged):
            self._judge_from(judged.min())

    def take_again(self, versions: pd.DataFrame, factors: pd.DataFrame | None) -> int:
        """`take` what the batch path has not published yet, or nothing.

        Returns:
            how many versions it left out: of sessions further back than a live bar may lie, and of
            symbols not known here, the next run of the pipeline takes care.
        """
        if versions.empty:
            return 0
        market = self._newest_session()
        newest = self._newest_of_all(versions["symbol"].unique(), market)
        numbers = session_number(versions["symbol"].map(newest))
        near = numbers - session_number(versions["date"]) <= self.correction_sessions
        near = near & versions["symbol"].isin(self.symbols).to_numpy()
        self.take(versions[near], factors)
        return len(versions) - int(near.sum())

    def has_bars(self, date: pd.Timestamp) -> bool:
        """Whether a session that is not sealed has bars, and so have those between."""
        return self.sealed < date <= self._newest_session()

    def _before(self, newest: pd.Timestamp) -> pd.DataFrame:
        """The last bars of all symbols up to a session, each as it was known when its own was sealed."""
        start = _sessions_before(newest, LOOK_BACK)
        tails = [_between(rows, start, newest) for rows in self._versions.values()]
        versions = pd.concat([rows for rows in tails if len(rows)], ignore_index=True)
        return tape(BarVersions(versions, self._factors, self._seals))

    def _judge_from(self, date: pd.Timestamp) -> None:
        self._open = date if self._open is None else min(self._open, date)

    def seal(self, explicit: pd.Timestamp | None = None) -> pd.Timestamp | None:
        """Seal the sessions that are complete.

        Args:
            explicit: a session that a person declares complete.

        Returns:
            the newest one sealed now, or None.
        """
        came = pd.concat(self._came.values(), keys=range(len(self._came)))
        if not (came["date"] > self.sealed).any():
            return None
        known = came["known_at"].dt.tz_convert(None).to_numpy("datetime64[us]").astype("int64")
        # All that has come by now is known when a person seals.
        by_hand = {} if explicit is None else {day_number(explicit): int(known.max())}
        since = self._seals.loc[self._seals["date"] == self.sealed, "sealed_at"]
        since = since.dt.tz_convert(None).to_numpy("datetime64[us]").astype("int64")[0]
        known = _known_after(known, came["date"], self.sealed, since)
        seals = sealed(
            came.index.get_level_values(0).to_numpy(),
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
        self._judge_from(fresh["date"].min())
        names = list(self._came)
        self._changed.update(names[i] for i in set(fresh.index.get_level_values(0)))
        sealed_now = seals[(seals["date"] > self.sealed) & (seals["date"] <= newest)]
        self._seals = pd.concat([self._seals, sealed_now], ignore_index=True)
        if self._market is not None:
            self._market = self._market.extended(self._before(newest))
        self.sealed = newest
        self._came = {name: rows[rows["date"] >= newest] for name, rows in self._came.items()}
        return newest

    def recompute(self, now: pd.Timestamp, in_doubt: bool = False) -> Changes:
        """What the bars taken have changed; the state itself stays as it is until `accept`.

        Args:
            now: when it is known, later than every version held.
            in_doubt: the features held may not be of the bars held, as after a kill between two pushes.
                All are computed anew, and the newest go online again.
        """
        aside: dict[tuple[str, pd.Timestamp], str] = {}
        suspects = self.suspects
        if self._open is None:
            bars = self._carried_on(self._changed)
        else:
            bars, aside, suspects = self._judged_again()
        fresh = bars
        changed_from = self._changed_from(bars)
        if in_doubt:
            fresh = self._bars | bars
            begin = {name: rows["event_timestamp"].iloc[0] for name, rows in self._daily.items()}
            changed_from = {name: begin.get(name, _EVER) for name in fresh.keys() | begin.keys()}
        daily, versions = self._featured(fresh, changed_from, now, in_doubt)
        return Changes(bars, daily, versions, aside, suspects)

    def accept(self, changes: Changes) -> None:
        """The changes are in the store: make them the state."""
        for name, rows in changes.bars.items():
            self._clean_days.subtract(self._recent_days(self._bars.get(name, self._no_bars)))
            self._clean_days.update(self._recent_days(rows))
        self._bars |= changes.bars
        self._daily |= changes.daily
        if changes.daily:
            rows = pd.concat(changes.daily.values(), ignore_index=True)
            self.missing_sessions |= missing_sessions(rows, self.window)
        self.suspects = changes.suspects
        self._changed, self._open = set(), None

    def _carried_on(self, names: Collection[str]) -> dict[str, pd.DataFrame]:
        """The clean bars of some symbols, those of sessions that are not sealed taken anew.

        Each of these passes the checks of a row or is left out, and goes on from the last sealed bar.
        """
        bars = {name: self._bars.get(name, self._no_bars) for name in names}
        bars = {name: rows[rows["date"] <= self.sealed] for name, rows in bars.items()}
        parts = []
        for name, rows in bars.items():
            if len(rows):
                raw = self._raw[name]
                parts.append(raw[(raw["date"] == rows["date"].iloc[-1]) | (raw["date"] > self.sealed)])
        if not parts:
            return bars
        tail = pd.concat(parts, ignore_index=True)
        fresh = self._clean(tail, dict.fromkeys(names, self.params.min_history)).bars
        return bars | _spliced(bars, fresh, self.sealed + pd.Timedelta(days=1))

    def _judged_again(
        self,
    ) -> tuple[dict[str, pd.DataFrame], dict[tuple[str, pd.Timestamp], str], dict[str, str]]:
        """The clean bars of the symbols that changed, the last ones cleaned anew; the reasons of those
        set aside; and the suspects."""
        assert self._open is not None
        recent = _sessions_before(self._open, LOOK_AHEAD)
        tails, earlier = [], {}
        cuts: dict[pd.Timestamp, dict[str, pd.DataFrame]] = {}
        for name in self._changed:
            raw = self._raw[name]
            held = self._bars.get(name, self._no_bars)
            # A symbol that was halted has the bars to be judged further back.
            cut = min([recent, *_last_before(held, self._open, LOOK_AHEAD)])
            cuts.setdefault(cut, {})[name] = held
            start = _sessions_before(cut, LOOK_BACK)
            begin = min([start, *_last_before(raw, cut, LOOK_BACK)])
            tails.append(raw[raw["date"] >= begin])
            earlier[name] = int((held["date"] < begin).sum())
        cleaned = self._clean(pd.concat(tails, ignore_index=True), earlier)
        bars: dict[str, pd.DataFrame] = {}
        for cut, of_symbols in cuts.items():
            bars |= _spliced(of_symbols, cleaned.bars, cut)
        quarantine, events = cleaned.quarantine, cleaned.events
        aside = zip(quarantine["symbol"], quarantine["date"], quarantine["reason"], strict=True)
        doubted = events[events["status"] == "provisional"]
        suspects = {k: v for k, v in self.suspects.items() if k not in self._changed}
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

    def _changed_from(self, bars: Mapping[str, pd.DataFrame]) -> dict[str, pd.Timestamp]:
        """Close of each symbol's first session whose clean bar differs from the one held."""
        if not bars:
            return {}
        ours = pd.concat(bars.values(), ignore_index=True)
        held = [self._bars[name] for name in bars if name in self._bars]
        held = pd.concat(held, ignore_index=True) if held else self._no_bars
        pairs = ours.merge(held, on=BAR_KEY, how="outer", suffixes=("", "_held"), indicator="side")
        differs = pairs["side"] != "both"
        for name in (*NUMBERS, *FACTORS, "segment"):
            differs |= pairs[name] != pairs[f"{name}_held"]
        return session_close(pairs[differs].groupby("symbol")["date"].min()).to_dict()

    def _featured(
        self,
        bars: Mapping[str, pd.DataFrame],
        changed_from: Mapping[str, pd.Timestamp],
        now: pd.Timestamp,
        in_doubt: bool,
    ) -> tuple[dict[str, pd.DataFrame], Versions]:
        """The features of the symbols that `changed_from` names, and their versions since then.

        Args:
            in_doubt: the newest rows of all these symbols go online, not only of those that changed.
        """
        names = sorted(changed_from)
        since = pd.Series(changed_from, dtype=self._no_daily["event_timestamp"].dtype)
        held = _joined([self._daily.get(name, self._no_daily) for name in names], self._no_daily)
        begin = held.groupby("symbol")["event_timestamp"].min()
        clean_bars = _joined([bars[name] for name in names if name in bars], self._no_bars)
        fresh = daily_features(clean_bars)
        begin = fresh["symbol"].map(begin)
        fresh = fresh[begin.isna() | (fresh["event_timestamp"] >= begin)]
        fresh = fresh[fresh["event_timestamp"] >= fresh["symbol"].map(since)]
        is_old = (held["event_timestamp"] < held["symbol"].map(since)).to_numpy(bool)
        rows = _versions_of(held[~is_old], fresh, now, _as_held if in_doubt else None)
        standing = rows[rows["close"].notna()]
        again = pd.MultiIndex.from_frame(held[KEYS]).isin(pd.MultiIndex.from_frame(rows[KEYS]))
        daily = pd.concat([held[~again], standing]) if len(standing) else held[~again]
        daily = daily.sort_values(KEYS, ignore_index=True)

        first = rows.groupby("symbol")["event_timestamp"].min()
        window_rows = WindowRows(daily, NAMES)
        ends = self._window_ends(daily, window_rows)
        changed = ends[ends["event_timestamp"] >= ends["symbol"].map(first)]
        before = self._window_ends(held, WindowRows(held, NAMES))
        before = before[before["event_timestamp"] >= before["symbol"].map(first)]
        gone = before.merge(changed, on=KEYS, how="left", indicator="side")
        gone = gone.loc[gone["side"] == "left_only", KEYS].assign(**{CREATED: now, "window": None})
        online = set(names) if in_doubt else set(first.index)
        newest = ends[ends["symbol"].isin(online)].drop_duplicates("symbol", keep="last")
        newest_daily = daily[daily["symbol"].isin(online)].drop_duplicates("symbol", keep="last")

        def windows(of: pd.DataFrame) -> pd.DataFrame:
            values = packed(window_rows.gather(of.index.to_numpy(), self.window))
            return of.assign(**{CREATED: now, "window": values}).reset_index(drop=True)

        versions = Versions(
            rows,
            _joined([windows(changed), gone], windows(changed)),
            newest_daily[[*KEYS, CREATED, *NAMES]].reset_index(drop=True),
            windows(newest),
        )
        mine = _by_symbol(daily)
        return {name: mine.get(name, self._no_daily) for name in names}, versions

    def _window_ends(self, daily: pd.DataFrame, rows: WindowRows) -> pd.DataFrame:
        """Symbol and event_timestamp of the rows that end a whole window."""
        symbols = daily["symbol"].to_numpy(object)
        return daily[KEYS].iloc[window_ends(symbols, rows.base, self.window)]


_EVER = pd.Timestamp(0, tz="UTC")
_NEVER = day_number(pd.Timestamp("2262-01-01")) * 86_400_000_000


def missing_sessions(daily: pd.DataFrame, window: int) -> dict[str, int]:
    """How many sessions of the exchange each symbol's newest whole window leaves out.

    Args:
        daily: `symbol`, `event_timestamp` and the features, sorted by the first two.
    """
    ends = window_ends(daily["symbol"].to_numpy(object), daily[NAMES].to_numpy(), window)
    symbols = daily["symbol"].iloc[ends]
    last = ends[~symbols.duplicated(keep="last").to_numpy()]
    numbers = session_number(session_days(daily["event_timestamp"]))
    missing = numbers[last] - numbers[last - window + 1] - (window - 1)
    return dict(zip(daily["symbol"].iloc[last], missing.tolist(), strict=True))


def _spliced(
    held: Mapping[str, pd.DataFrame], fresh: pd.DataFrame, cut: pd.Timestamp
) -> dict[str, pd.DataFrame]:
    """The clean bars held before `cut`, and the fresh ones from then on.

    Fresh factors begin at 1 and segments at 0 with the first fresh bar; they go on from the held ones of
    the last bar before `cut` that both have. A symbol without such a bar stays as it is held, unless all
    its held bars are fresh ones.
    """
    spliced = _plainly_spliced(held, fresh, cut)
    rest = {name: mine for name, mine in held.items() if name not in spliced}
    fresh_of = _by_symbol(fresh[fresh["symbol"].isin(rest)])
    for name, mine in rest.items():
        ours = fresh_of.get(name, fresh.iloc[:0])
        older = mine[mine["date"] < cut]
        if older.empty:
            spliced[name] = ours
            continue
        common = ours[ours["date"].isin(older["date"])]
        newer = ours[ours["date"] >= cut]
        if newer.empty:
            spliced[name] = older
        elif common.empty:
            spliced[name] = mine
        else:
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
            spliced[name] = pd.concat([older, newer[newer["date"] >= cut]], ignore_index=True)
    return spliced


def _plainly_spliced(
    held: Mapping[str, pd.DataFrame], fresh: pd.DataFrame, cut: pd.Timestamp
) -> dict[str, pd.DataFrame]:
    """`_spliced` of the symbols without a new split or distribution, which on most days are all."""
    if not held:
        return {}
    older = pd.concat(held.values(), ignore_index=True)
    dtype = older["segment"].dtype
    older = older[older["date"] < cut]
    fresh = fresh[fresh["symbol"].isin(held)]
    both = pd.concat([older["symbol"], fresh["symbol"]])
    code, names = pd.factorize(both)
    days = pd.concat([older["date"], fresh["date"]]).to_numpy("datetime64[D]").astype("int64")
    key = code * 1_000_000 + days
    n = len(older)
    mine, theirs = key[:n], key[n:]
    code_of = code[n:]
    common = np.flatnonzero(np.isin(theirs, mine))
    anchor = np.full(len(names), -1)
    anchor[code_of[common]] = common  # the last one of each symbol
    plain = anchor >= 0
    follows = plain[code_of] & (np.arange(len(fresh)) > anchor[code_of])
    for column in FACTORS:
        factor = fresh[column].to_numpy()
        steps = follows & (factor != factor[anchor[code_of]])
        plain[code_of[steps]] = False
    follows &= (fresh["date"] >= cut).to_numpy()
    plain &= np.bincount(code_of[follows], minlength=len(names)) > 0
    follows &= plain[code_of]

    order = np.argsort(mine)
    before = np.zeros(len(names), "int64")
    before[plain] = order[np.searchsorted(mine[order], theirs[anchor[plain]])]
    at = code_of[follows]
    newer = fresh[follows]
    newer = newer.assign(**{column: older[column].to_numpy()[before[at]] for column in FACTORS})
    segment = fresh["segment"].to_numpy()
    since = older["segment"].to_numpy()[before[at]] - segment[anchor[at]]
    newer["segment"] = (segment[follows] + since).astype(dtype)
    whole = pd.concat([older[plain[code[:n]]], newer[older.columns]])
    return _by_symbol(whole.sort_values(BAR_KEY, kind="stable", ignore_index=True))


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


def _versions_of(
    held: pd.DataFrame, fresh: pd.DataFrame, now: pd.Timestamp, rounded=None
) -> pd.DataFrame:
    """The rows of `fresh` that differ from the held ones, and a withdrawal of each that it lacks."""
    if rounded:
        fresh = rounded(fresh, held)
    pairs = pd.merge(
        held[KEYS].assign(old=np.arange(len(held))),
        fresh[KEYS].assign(new=np.arange(len(fresh))),
        on=KEYS,
        how="outer",
    )
    both = pairs.dropna().astype({"old": int, "new": int})
    old = held[VALUES].to_numpy("float64")[both["old"]]
    new = fresh[VALUES].to_numpy("float64")[both["new"]]
    same = ((old == new) | (np.isnan(old) & np.isnan(new))).all(axis=1)
    withdrawn = held.iloc[pairs.loc[pairs["new"].isna(), "old"].astype(int)].copy()
    withdrawn[NAMES] = np.nan
    parts = [fresh.drop(index=fresh.index[both["new"][same]]), withdrawn]
    rows = _joined([part.assign(**{CREATED: now}) for part in parts], held)
    rows = rows[held.columns].astype(held.dtypes)
    return rows.sort_values(KEYS, ignore_index=True)


def _as_held(fresh: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Features, and as they are held where only rounding differs: the pipeline's begin before a tail."""
    values = fresh[NAMES].to_numpy()
    were = fresh[KEYS].merge(held, on=KEYS, how="left")[NAMES].to_numpy()
    same = np.isclose(values, were, equal_nan=True, **ROUNDING).all(axis=1)
    values = np.where(same[:, None], were, values)
    return fresh.assign(**dict(zip(NAMES, values.T, strict=True)))


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


def _between(rows: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
    """The rows from one day to another, both included; sorted by date."""
    start = rows["date"].searchsorted(first)
    return rows.iloc[start : rows["date"].searchsorted(last, side="right")]


def _last_before(rows: pd.DataFrame, date: pd.Timestamp, n: int) -> pd.Series:
    """The date of the last row but `n` - 1 before a day, or of the first; none where there is none."""
    end = rows["date"].searchsorted(date)
    return rows["date"].iloc[max(end - n, 0) : end].iloc[:1]


def _by_symbol(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each symbol's rows, in their order; they are not to be written to."""
    codes, names = pd.factorize(rows["symbol"], sort=True)
    if (codes < 0).any() or (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        rows, codes = rows.iloc[order], codes[order]
    edges = np.searchsorted(codes, np.arange(len(names) + 1))
    parts = {}
    for name, start, end in zip(names, edges[:-1], edges[1:], strict=True):
        # A groupby with a copy of each part takes several times as long.
        part = rows.iloc[start:end]
        part.index = pd.RangeIndex(end - start)
        parts[name] = part
    return parts


def _joined(parts: list[pd.DataFrame], otherwise: pd.DataFrame) -> pd.DataFrame:
    """The parts that have rows as one table; the empty rest has the columns of `otherwise`."""
    full = [part for part in parts if len(part)]
    return pd.concat(full, ignore_index=True) if full else otherwise.iloc[:0].reset_index(drop=True)


def _sessions_between(date: pd.Timestamp, newest: pd.Timestamp) -> int:
    """How many sessions `date` lies before `newest`; 0 or less where it does not."""
    earlier, later = session_number(pd.Series([date, max(date, newest)]))
    return int(later - earlier)


def _sessions_before(date: pd.Timestamp, n: int) -> pd.Timestamp:
    """The session that many before a session."""
    number = session_number(pd.Series([date]))[0]
    return session_date(np.array([max(number - n, 0)]))[0]
