"""Random deliveries of a faulty market, session by session, with all that a source does to its past."""

from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal

from pitwise.bars.calendar import is_session, session_close
from pitwise.bars.landing import Landing
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, NUMBERS, PRICES
from pitwise.bars.versions import BarVersions, bar_versions
from pitwise.simulation.faults import KINDS
from pitwise.simulation.market import SyntheticParams, synthetic_market

MINUTE, DAY = pd.Timedelta(minutes=1), pd.Timedelta(days=1)
AWAY = 25
"""Sessions without a bar before a ticker comes back as another company."""
NEVER = 10_000
MODES = ["traded", "adjusted", "split_adjusted"]
"""Of a source, see `Source`."""
COVERAGE = 0.8
"""Share of the symbols that seals a session."""


def spans(rows: pd.DataFrame) -> dict[str, tuple[date, date]]:
    """The first and last day of each symbol's keyable rows: what a whole file covers."""
    days = rows.dropna(subset=BAR_KEY).groupby("symbol")["date"]
    return {
        s: (a.date(), b.date()) for s, a, b in zip(days.min().index, days.min(), days.max(), strict=True)
    }


def delivery(rows: pd.DataFrame, received_at: pd.Timestamp, **changes) -> Landing:
    """A landing of a file that covers its own rows, of traded prices, observed as it came."""
    given = {
        "source": "csv",
        "basis": "traded",
        "history": "observed",
        "covers": spans(rows),
        "seals": (),
    }
    return Landing(rows=rows.reset_index(drop=True), received_at=received_at, **{**given, **changes})


@dataclass
class Shown:
    """One row of a source, and between which of its sessions it shows it so."""

    symbol: str | None
    date: pd.Timestamp
    values: tuple[float, ...]
    """open, high, low, close, volume"""
    since: int
    until: int = NEVER


@dataclass
class Source:
    """A vendor's file as it stood after each session.

    Args:
        mode: traded (prices alone) | adjusted (with an adjusted close) | split_adjusted (and on the
            newest share basis).
    """

    rng: np.random.Generator
    mode: str
    symbols: int = 8
    sessions: int = 115
    days: np.ndarray = field(init=False)
    rows: list[Shown] = field(init=False, default_factory=list)
    actions: list[tuple[str, int, int, float, float]] = field(init=False, default_factory=list)
    """symbol, first session on the new basis, session from which it is known, price step, share step"""

    def __post_init__(self) -> None:
        settings = {"start": "2014-01-02", "sessions": self.sessions, "signal": 0.0}
        faults = dict.fromkeys(KINDS, 1) | {"symbol_reused": 0, "bad_print": 2, "split": 2}
        seed = int(self.rng.integers(2**31))
        made = SyntheticParams(symbols=self.symbols, seed=seed, faults=faults, **settings)
        calendar = pd.date_range("2014-01-02", periods=2 * self.sessions, unit="us").to_series()
        self.days = calendar[is_session(calendar)].to_numpy()[: self.sessions]
        bars = self._reused(synthetic_market(made).bars)
        sessions = np.searchsorted(self.days, bars["date"], side="right") - 1
        values = zip(*(bars[c] for c in NUMBERS), strict=True)
        self.rows = [
            Shown(symbol, day, tuple(map(float, value)), int(s))
            for symbol, day, s, value in zip(bars["symbol"], bars["date"], sessions, values, strict=True)
        ]
        self._revise()
        if self.mode != "traded":
            self._act()

    def _reused(self, bars: pd.DataFrame) -> pd.DataFrame:
        """A ticker goes away for a while and comes back as another company."""
        symbol = self.rng.choice(bars["symbol"].unique())
        away = int(self.rng.integers(10, self.sessions - AWAY - 20))
        its = bars["symbol"] == symbol
        first, back = self.days[away], self.days[away + AWAY]
        bars.loc[its & (bars["date"] >= back), PRICES] *= 2.75
        return bars[~(its & (bars["date"] >= first) & (bars["date"] < back))].reset_index(drop=True)

    def _revise(self) -> None:
        """Bars that come late, are corrected, withdrawn and brought back; rows nobody can place."""
        rng, again = self.rng, []
        for row in rng.permutation(np.array(self.rows, dtype=object)):
            if rng.random() > 0.12:
                continue
            later = row.since + int(rng.integers(1, 25))
            match rng.integers(5):
                case 0:
                    row.since = later
                case 1 | 2:
                    row.until = later
                    again.append(replace(row, values=self._other(row.values), since=later, until=NEVER))
                case 3:
                    row.until = later
                case 4:
                    row.until = later
                    back = later + int(rng.integers(1, 12))
                    again.append(replace(row, since=back, until=NEVER))
        for row in rng.choice(np.array(self.rows, dtype=object), 3, replace=False):
            ahead = int(rng.integers(1, 9))  # a bar under the date of a session yet to come
            if row.since + ahead < self.sessions:
                day = pd.Timestamp(self.days[row.since + ahead])
                again.append(replace(row, date=day, until=row.since + int(rng.integers(1, 6))))
        row = self.rows[int(rng.integers(len(self.rows)))]
        again += [replace(row, symbol=None, until=NEVER), replace(row, date=pd.NaT, until=NEVER)]
        self.rows += again

    def _other(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Another price of the close (and of the range with it), or another volume."""
        *prices, volume = values
        if self.rng.random() < 0.3:
            return (*prices, volume + 100.0)
        times = float(np.exp(self.rng.normal(0, 0.01)))
        return (*(round(p * times, 2) for p in prices), volume)

    def _act(self) -> None:
        """Dividends and 2:1 splits, some of them late in the vendor's books."""
        names = sorted({row.symbol for row in self.rows if row.symbol})
        for symbol in names:
            for _ in range(int(self.rng.integers(0, 4))):
                at = int(self.rng.integers(5, self.sessions - 2))
                late = int(self.rng.choice([0, 0, 0, 2, 5]))
                split = self.mode == "split_adjusted" and self.rng.random() < 0.4
                step = 2.0 if split else 1 + round(float(self.rng.uniform(0.004, 0.03)), 4)
                self.actions.append((symbol, at, at + late, step, 2.0 if split else 1.0))
                if split:  # what is traded halves, and its volume doubles
                    day = pd.Timestamp(self.days[at])
                    for row in self.rows:
                        if row.symbol == symbol and row.date >= day:
                            *prices, volume = row.values
                            row.values = (*(p / 2 for p in prices), volume * 2)

    def traded(self, s: int) -> pd.DataFrame:
        """The rows shown after session `s`, as traded; dated up to then, but for those misdated."""
        seen = [(r.symbol, r.date, *r.values) for r in self.rows if r.since <= s < r.until]
        rows = pd.DataFrame(seen, columns=COLUMNS).astype({"symbol": "string", "date": "datetime64[us]"})
        return rows.sort_values(BAR_KEY, kind="stable", ignore_index=True)

    def view(self, s: int) -> pd.DataFrame:
        """The file after session `s` in the source's own basis."""
        rows = self.traded(s)
        if self.mode == "traded":
            return rows
        price, share = np.ones(len(rows)), np.ones(len(rows))
        for symbol, at, known, step, shares in self.actions:
            if known > s:
                continue
            before = ((rows["symbol"] == symbol) & (rows["date"] < self.days[at])).to_numpy(
                bool, na_value=False
            )
            price[before] /= step
            share[before] /= shares
        rows[ADJUSTED_CLOSE] = (rows["close"] * price).round(6)
        if self.mode == "split_adjusted":
            rows[PRICES] = rows[PRICES].mul(share, axis=0)
            rows["volume"] /= share
        return rows


def deliveries(seed: int, mode: str = "traded", first: int = 55, **sizes) -> list[Landing]:
    """What a market's source and its people delivered, by `received_at`.

    The first is the whole file after `first` sessions. Then, an evening a session: the whole file, the
    session alone, the last sessions, or nothing; some tickers failed; live bars between, corrected live
    now and then and drained some evenings later; old files again; bars withdrawn and sessions sealed by
    a person.
    """
    rng = np.random.default_rng([seed, 11])
    source = Source(rng, mode, **sizes)
    basis = "split_adjusted" if mode == "split_adjusted" else "traded"
    closes = session_close(pd.Series(source.days))
    landed = [
        delivery(source.view(first - 1), closes[first - 1] + 90 * MINUTE, basis=basis, history="assumed")
    ]
    journal: list[pd.DataFrame] = []
    for s in range(first, source.sessions):
        now = closes[s]
        if rng.random() < 0.5:
            now += int(rng.integers(1, 20)) * MINUTE
            journal.append(_posted(source, s, now, rng))
        now += int(rng.integers(20, 60)) * MINUTE
        if journal and rng.random() < 0.3:
            landed.append(_drained(journal, now))
            journal = []
        now += int(rng.integers(1, 60)) * MINUTE
        file = _file(source, s, rng)
        if len(file):
            landed.append(delivery(file, now, basis=basis))
        now += int(rng.integers(1, 60)) * MINUTE
        if rng.random() < 0.06:
            landed.append(_by_hand(source, s, now, rng))
    if journal:
        landed.append(_drained(journal, now + 300 * MINUTE))
    return landed


def _file(source: Source, s: int, rng: np.random.Generator) -> pd.DataFrame:
    """What the source hands out this evening; nothing in one of ten."""
    kind = rng.choice(["whole", "session", "recent", "old", "nothing"], p=[0.3, 0.32, 0.2, 0.08, 0.1])
    rows = source.view(s - int(rng.integers(1, 20)) if kind == "old" else s)
    if kind == "session":
        rows = rows[rows["date"] >= source.days[s]]
    elif kind == "recent":
        rows = rows[rows["date"] >= source.days[s - int(rng.integers(1, 12))]]
    elif kind == "nothing":
        return rows.iloc[:0]
    failed = rng.choice(rows["symbol"].dropna().unique(), int(rng.integers(0, 3))) if len(rows) else []
    return rows[~rows["symbol"].isin(failed)]


def _posted(source: Source, s: int, now: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Live bars of this session and corrections of older ones, each known from its own instant."""
    rows = source.traded(s).dropna(subset=BAR_KEY)
    new = rows[(rows["date"] == source.days[s]) & (rng.random(len(rows)) < 0.7)]
    older = rows[(rows["date"] < source.days[s]) & (rows["date"] >= source.days[s - 9])]
    older = older[rng.random(len(older)) < 0.04].copy()
    older["close"] = older[["open", "low"]].mean(axis=1)
    rows = pd.concat([new, older], ignore_index=True)
    rows["known_at"] = pd.Series(now, rows.index, dtype="datetime64[us, UTC]")
    rows["known_at"] += pd.to_timedelta(rng.integers(0, 15, len(rows)), unit="min")
    return rows


def _drained(journal: list[pd.DataFrame], now: pd.Timestamp) -> Landing:
    return delivery(pd.concat(journal, ignore_index=True), now, source="live", covers={})


def _by_hand(source: Source, s: int, now: pd.Timestamp, rng: np.random.Generator) -> Landing:
    """A person withdraws two bars, or says that the session is complete."""
    if rng.random() < 0.3:
        nothing = source.traded(s).iloc[:0]
        return delivery(
            nothing, now, source="seal", covers={}, seals=(pd.Timestamp(source.days[s]).date(),)
        )
    rows = source.traded(s).dropna(subset=BAR_KEY)
    rows = rows[rows["date"] >= source.days[s - 20]].sample(2, random_state=rng)
    rows = rows.assign(withdrawn=True, **dict.fromkeys(NUMBERS, np.nan))
    return delivery(rows, now, source="withdrawal", covers={})


def known_instants(landing: Landing) -> pd.Series:
    """The instant from which each row of a landing was known, by the definition."""
    rows = landing.rows
    received = pd.Series(landing.received_at, rows.index, dtype="datetime64[us, UTC]")
    if landing.history == "assumed":
        closes = session_close(rows["date"].where(rows["symbol"].notna()))
        return closes.where(closes < received, received)
    return rows["known_at"].fillna(received) if "known_at" in rows else received


def existing_at(landings: list[Landing], at: pd.Timestamp) -> list[Landing]:
    """Only what there was at an instant: what came later is gone, and rows that were known later."""
    there = []
    for landing in landings:
        if landing.received_at <= at:
            there.append(landing)
            continue
        rows = landing.rows[known_instants(landing) <= at]
        if len(rows):
            covers = spans(rows) if landing.covers else {}
            there.append(
                replace(
                    landing, rows=rows.reset_index(drop=True), received_at=at, covers=covers, seals=()
                )
            )
    return there


def instants(landings: list[Landing], seed: int, count: int) -> list[pd.Timestamp]:
    """Some at which something was received, some between, one before the first delivery."""
    rng = np.random.default_rng(seed)
    received = [landing.received_at for landing in landings]
    some = [received[i] for i in np.sort(rng.choice(len(received), count - 2, replace=False))]
    between = received[len(received) // 2] + pd.Timedelta(7, "min")
    return [received[0] - pd.Timedelta(9, "D"), *some, between]


def versions_of(landings: list[Landing]) -> BarVersions:
    return bar_versions(landings, COVERAGE)


def exactly(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert_frame_equal(got.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True)
