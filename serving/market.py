"""The market's last bars as they stand live, through the checks and formulas of the batch path.

A new bar can change more than its own session: a split rescales the past, a market's fall decides
whether a stock's fall is its own, and a bad print is seen only when the price is back. So the last bars
of *all* symbols are cleaned anew at each change, and what comes out differently is computed anew. What
is older than any check looks back stays as it was.
"""

from dataclasses import dataclass

import pandas as pd

from feature_repo.bars import ADJUSTED_CLOSE, COLUMNS, NUMBERS, PRICES
from feature_repo.clean import CleanParams, clean, reasons
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES, TAIL
from feature_repo.revisions import CREATED, KEYS, known, merge
from feature_repo.sessions import EXCHANGE_ZONE, session_close, session_number
from feature_repo.windows import gather, packed, window_ends

LOOK_BACK = 80
"""Bars before a bar that decide on it: 60 tell a day's noise, the rest is to spare."""
LONGEST = 21
"""Bars of the longest indicator that forgets; the others never quite do, see `indicators.TAIL`."""
ROW = ["symbol", "date"]


@dataclass(frozen=True)
class Outcome:
    """What became of one live bar."""

    symbol: str
    date: str
    """ISO 8601."""
    outcome: str
    """new | late | repeated | corrected | quarantined | refused"""
    reason: str = ""
    """Of the last two: the name of the check, unknown_symbol or too_old."""


@dataclass(frozen=True)
class Versions:
    """Rows of Feast's views that a change has made: what goes offline, and the newest of it online."""

    daily: pd.DataFrame
    windows: pd.DataFrame
    online_daily: pd.DataFrame
    online_windows: pd.DataFrame


@dataclass(frozen=True)
class State:
    """What is known of each symbol's last sessions; sorted by symbol and date each."""

    bars: pd.DataFrame
    """Clean bars, `segment` and `price_factor` among them, and the steps that later splits move them by.

    The steps stand apart so that a step back, of a split that was none, leaves every bit as it was: ADX
    tells ties.
    """
    daily: pd.DataFrame
    """Their features as Feast's offline store has them, with `created_timestamp` and `segment`."""


class LiveMarket:
    """The last bars of every symbol, raw and clean, and their features.

    Args:
        raw: bars as their source gave them.
        state: what the batch path, and live bars before, have made of them.
        window: sessions of a model's window.
        correction_sessions: how many sessions back a live bar may lie.
    """

    def __init__(
        self, raw: pd.DataFrame, state: State, params: CleanParams, window: int, correction_sessions: int
    ):
        self.params = params
        self.window = window
        self.correction_sessions = correction_sessions
        self.reach = window + LONGEST + correction_sessions
        """Bars of a symbol that a live bar can bear upon."""
        self.columns = [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in raw else [])]
        self._judged = self.reach + LOOK_BACK
        # Twice as many, for the bars of a symbol that is often halted lie further back than the others'.
        self.raw = _last(raw[self.columns].sort_values(ROW), 2 * self._judged)
        self.state = State(
            _last(state.bars, TAIL + self.reach).assign(price_step=1.0, volume_step=1.0),
            _last(state.daily, self.reach + self.window),
        )
        self.symbols = frozenset(raw["symbol"].dropna())

    @property
    def newest(self) -> pd.Timestamp:
        """Close of the newest session of any symbol, UTC."""
        return self.state.daily["event_timestamp"].max()

    def judge(self, bars: pd.DataFrame) -> tuple[list[Outcome], pd.DataFrame]:
        """What is to become of live bars, before anything is done with them.

        Args:
            bars: symbol, date, open, high, low, close, volume and, if the source has it, adj_close,
                which is filled in where it is missing.

        Returns:
            an outcome for each, in their order, and the bars to take.
        """
        bars = self._with_adjusted_close(bars)
        held = self.raw.merge(bars[ROW], on=ROW)
        held = held.drop_duplicates(ROW, keep="last").set_index(ROW)[self.columns[2:]]
        newest = self.raw.groupby("symbol")["date"].max()
        reason = reasons(bars)
        named = bars["symbol"].notna() & (bars["symbol"] != "")
        reason[named & ~bars["symbol"].isin(self.symbols)] = "unknown_symbol"
        sessions = session_number(bars["date"])
        last = session_number(pd.Series([self.raw["date"].max()]))[0]
        reason[(reason == "") & (sessions < last - self.correction_sessions)] = "too_old"

        outcomes = []
        for bar, why in zip(bars.itertuples(index=False), reason, strict=True):
            key = (bar.symbol, bar.date)
            if why == "duplicate":
                outcome, why = "repeated", ""
            elif why:
                outcome = "refused"
            elif key in held.index:
                same = tuple(held.loc[key]) == tuple(bar)[2:]
                outcome = "repeated" if same else "corrected"
            else:
                outcome = "new" if bar.date > newest[bar.symbol] else "late"
            date = "" if pd.isna(bar.date) else f"{bar.date:%Y-%m-%d}"
            outcomes.append(Outcome(str(bar.symbol), date, outcome, why))
        taken = [o.outcome in ("new", "late", "corrected") for o in outcomes]
        return outcomes, bars[taken]

    def _with_adjusted_close(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Where it is not given, the bar's own held adjustment, or that of the symbol's last bar."""
        bars = bars.reindex(columns=self.columns).reset_index(drop=True)
        if ADJUSTED_CLOSE in bars:
            last = self.raw.drop_duplicates("symbol", keep="last").set_index("symbol")
            factor = bars["symbol"].map(last[ADJUSTED_CLOSE] / last["close"])
            known = self.raw.drop_duplicates(ROW, keep="last")[[*ROW, "close", ADJUSTED_CLOSE]]
            held = bars[ROW].merge(known, on=ROW, how="left")
            factor = (held[ADJUSTED_CLOSE] / held["close"]).fillna(factor)
            usual = held[ADJUSTED_CLOSE].where(bars["close"] == held["close"], bars["close"] * factor)
            bars[ADJUSTED_CLOSE] = bars[ADJUSTED_CLOSE].astype("float64").fillna(usual)
        return bars

    def take(self, bars: pd.DataFrame) -> None:
        """Put raw bars in the place of those of the same symbol and session, or add them."""
        raw = pd.concat([self.raw, bars.astype(self.raw.dtypes)]).drop_duplicates(ROW, keep="last")
        self.raw = _last(raw.sort_values(ROW), 2 * self._judged)

    def recompute(
        self, touched: set[str], now: pd.Timestamp
    ) -> tuple[State, Versions, dict[tuple[str, pd.Timestamp], str]]:
        """What the bars taken have changed; the state itself stays as it is until the caller sets it.

        Args:
            touched: symbols whose raw bars may have changed.

        Returns:
            the new state, the rows that changed, and the reason of each recent bar set aside.
        """
        fresh, quarantine = self._cleaned(touched)
        bars, changed_from = self._spliced(fresh)
        changed_from = pd.concat([changed_from, self._orphans(bars)]).groupby(level=0).min()
        now = max(now, self.state.daily[CREATED].max() + pd.Timedelta(1, "us"))
        daily, versions = self._featured(bars, changed_from, now)
        aside = zip(quarantine["symbol"], quarantine["date"], quarantine["reason"], strict=True)
        reasons_of = {(symbol, date): reason for symbol, date, reason in aside}
        return State(bars, daily), versions, reasons_of

    def _cleaned(self, touched: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The last bars of all symbols, cleaned, and those set aside."""
        recent = _last(self.raw[self.raw["symbol"].isin(touched)], self._judged)
        start = recent["date"].min()
        tail = self.raw[self.raw["date"] >= start]
        earlier = self.state.bars.loc[self.state.bars["date"] < start, "symbol"].value_counts().to_dict()
        fresh, quarantine, _ = clean(tail, self.params, earlier)
        # A symbol that left the market mid-way has too few bars here to be judged again.
        size = fresh.groupby("symbol")["date"].transform("size")
        begins = fresh["symbol"].map(self.state.bars.groupby("symbol")["date"].min())
        judged = (
            (size >= self.reach + LOOK_BACK // 4 * 3) | ~(begins < start) | fresh["symbol"].isin(touched)
        )
        fresh = fresh[judged]
        reaches = fresh.groupby("symbol").cumcount(ascending=False) < self.reach
        return fresh[reaches | ~fresh["symbol"].isin(self.state.bars["symbol"])], quarantine

    def _spliced(self, fresh: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
        """The clean bars with the fresh ones in them, and each symbol's first session that differs."""
        held = self.state.bars
        cut = fresh.groupby("symbol")["date"].min()
        cut_of_held = held["symbol"].map(cut)
        recent = _stepped(held[held["date"] >= cut_of_held])
        pairs = fresh.merge(recent, on=ROW, how="outer", suffixes=("", "_held"), indicator="side")
        anchor = pairs[pairs["side"] == "both"].drop_duplicates("symbol").set_index("symbol")
        # Segments count on from the older bars.
        offset = anchor["segment_held"] - anchor["segment"]
        segment = pairs["segment"] + pairs["symbol"].map(offset).fillna(0)
        differs = (pairs["side"] != "both") | (segment != pairs["segment_held"])
        for name in (*NUMBERS, "price_factor"):
            differs |= pairs[name] != pairs[f"{name}_held"]
        changed_from = pairs[differs].groupby("symbol")["date"].min()

        price_step = anchor["price_factor"] / anchor["price_factor_held"]
        volume_step = (anchor["volume"] / anchor["volume_held"]).where(
            anchor["volume_held"] > 0, 1 / price_step
        )
        changed = held["symbol"].isin(changed_from.index)
        older = held[changed & (held["date"] < cut_of_held)]
        steps = {"price_step": price_step, "volume_step": volume_step}
        older = older.assign(
            **{
                name: _near_one(older[name] * older["symbol"].map(step).fillna(1.0))
                for name, step in steps.items()
            }
        )
        newer = fresh[fresh["symbol"].isin(changed_from.index)]
        newer = newer.assign(
            segment=(newer["segment"] + newer["symbol"].map(offset).fillna(0)).astype("int32"),
            price_step=1.0,
            volume_step=1.0,
        )
        bars = pd.concat([held[~changed], older, newer])
        return _last(bars.sort_values(ROW, ignore_index=True), TAIL + self.reach), changed_from

    def _orphans(self, bars: pd.DataFrame) -> pd.Series:
        """The first session of each symbol with features and no bar: the pipeline has set it aside."""
        recent = _last(self.state.daily[KEYS], self.reach)
        bars = _last(bars[ROW], self.reach + self.window)
        found = bars[["symbol"]].assign(event_timestamp=session_close(bars["date"]))
        sides = recent.merge(found, on=KEYS, how="left", indicator="side")
        alone = sides[sides["side"] == "left_only"]
        sessions = (
            alone["event_timestamp"].dt.tz_convert(EXCHANGE_ZONE).dt.normalize().dt.tz_localize(None)
        )
        return sessions.groupby(alone["symbol"]).min()

    def _featured(
        self, bars: pd.DataFrame, changed_from: pd.Series, now: pd.Timestamp
    ) -> tuple[pd.DataFrame, Versions]:
        """The features, and their versions since `changed_from`, of the symbols it names."""
        held = self.state.daily
        begin = pd.Series(session_close(changed_from.reset_index(drop=True)).array, changed_from.index)
        touched = held["symbol"].isin(begin.index)
        is_old = ~touched | (held["event_timestamp"] < held["symbol"].map(begin))
        fresh = daily_features(_stepped(bars[bars["symbol"].isin(begin.index)]))
        fresh = fresh[fresh["event_timestamp"] >= fresh["symbol"].map(begin)]
        was = held[~is_old]
        versions = merge(was, fresh, now)
        versions = versions[versions[CREATED] == now].reset_index(drop=True)
        daily = pd.concat(
            [held[is_old], known(pd.concat([was, versions]).sort_values([*KEYS, CREATED]))]
        )
        daily = _last(daily.sort_values(KEYS, ignore_index=True), self.reach + self.window)

        mine = daily[daily["symbol"].isin(begin.index)]
        windows = self._windows(mine)
        newest = windows.drop_duplicates("symbol", keep="last")
        changed = windows[windows["event_timestamp"] >= windows["symbol"].map(begin)]
        before = self._windows(held[touched], with_values=False)
        before = before[before["event_timestamp"] >= before["symbol"].map(begin)]
        gone = before.merge(changed[KEYS], on=KEYS, how="left", indicator="side")
        gone = gone.loc[gone["side"] == "left_only", KEYS].assign(window=None)
        features = [*KEYS, CREATED, *NAMES]
        return daily, Versions(
            versions,
            pd.concat([changed, gone], ignore_index=True).assign(**{CREATED: now})[
                [*KEYS, CREATED, "window"]
            ],
            mine.drop_duplicates("symbol", keep="last")[features].reset_index(drop=True),
            newest.assign(**{CREATED: now})[[*KEYS, CREATED, "window"]].reset_index(drop=True),
        )

    def _windows(self, daily: pd.DataFrame, with_values: bool = True) -> pd.DataFrame:
        """The whole windows in these rows: symbol, event_timestamp and, if asked for, window."""
        rows = daily[NAMES].to_numpy("float32")
        ends = window_ends(daily["symbol"].to_numpy(object), rows, self.window)
        found = daily[KEYS].iloc[ends].reset_index(drop=True)
        return found.assign(window=packed(gather(rows, ends, self.window))) if with_values else found


def _last(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The last `n` rows of each symbol, in their order."""
    return rows.groupby("symbol", sort=False).tail(n).reset_index(drop=True)


def _stepped(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars on the share basis of their symbol's last one."""
    return bars.assign(
        **{name: bars[name] * bars["price_step"] for name in (*PRICES, "price_factor")},
        volume=bars["volume"] * bars["volume_step"],
    ).drop(columns=["price_step", "volume_step"])


def _near_one(steps: pd.Series) -> pd.Series:
    """Exactly 1 where only rounding is left of steps that undo each other."""
    return steps.mask((steps - 1).abs() < 1e-9, 1.0)
