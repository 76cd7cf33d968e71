"""The market's last bars as they stand live, through the checks and formulas of the batch path.

A new bar can change more than its own session: a split rescales the past, a market's fall decides
whether a stock's fall is its own, and a bad print is seen only when the price is back. So the last bars
of *all* symbols are cleaned anew at each change, and what comes out differently is computed anew. What
is older than any check reaches back stays as it was.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_close, session_number
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, NUMBERS, in_order
from pitwise.cleaning.adjustment import adjusted, on_share_basis, product_to_come
from pitwise.cleaning.clean import CleanParams, clean, reasons
from pitwise.cleaning.corporate_actions import RATIOS
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known, merge
from pitwise.features.indicators import NAMES, TAIL
from pitwise.features.windows import gather, packed, window_ends

LOOK_BACK = 80
"""Bars before a bar that decide on it: 60 tell a day's noise, the rest is to spare."""
LONGEST = 21
"""Bars of the longest indicator that forgets; the others never quite do, see `indicators.TAIL`."""
STEPS = np.array([old / new for new, old in RATIOS])
"""What a split multiplies prices by."""
EVER = pd.Timestamp(0, tz="UTC")


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
    """Clean bars as they were traded, with `segment` and `split`: what a split at the next bar
    multiplies prices by, or 1.

    They are put on one share basis when they are computed with, by the pipeline's own operations in its
    own order: a last bit that differs would decide ADX's ties differently.
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
        self.raw = _last(in_order(raw[self.columns]), 2 * self._judged)
        self._since = self._held_since(state)
        recent = _last(state.bars, TAIL + self.reach)
        self.state = State(self._traded(recent, raw), self._held(state.daily))
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
        held = self.raw.merge(bars[BAR_KEY], on=BAR_KEY)
        held = held.drop_duplicates(BAR_KEY, keep="last").set_index(BAR_KEY)[self.columns[2:]]
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
            known = self.raw.drop_duplicates(BAR_KEY, keep="last")[[*BAR_KEY, "close", ADJUSTED_CLOSE]]
            held = bars[BAR_KEY].merge(known, on=BAR_KEY, how="left")
            factor = (held[ADJUSTED_CLOSE] / held["close"]).fillna(factor)
            usual = held[ADJUSTED_CLOSE].where(bars["close"] == held["close"], bars["close"] * factor)
            bars[ADJUSTED_CLOSE] = bars[ADJUSTED_CLOSE].astype("float64").fillna(usual)
        return bars

    def take(self, bars: pd.DataFrame) -> None:
        """Put raw bars in the place of those of the same symbol and session, or add them."""
        raw = pd.concat([self.raw, bars.astype(self.raw.dtypes)]).drop_duplicates(BAR_KEY, keep="last")
        self.raw = _last(in_order(raw), 2 * self._judged)

    def recompute(
        self, touched: set[str], now: pd.Timestamp, in_doubt: bool = False
    ) -> tuple[State, Versions, dict[tuple[str, pd.Timestamp], str]]:
        """What the bars taken have changed; the state itself stays as it is until the caller sets it.

        Args:
            touched: symbols whose raw bars may have changed.
            in_doubt: the features held may not be of the bars held, as after a kill between two pushes.
                All are computed anew, and the newest go online again.

        Returns:
            the new state, the rows that changed, and the reason of each recent bar set aside.
        """
        fresh, quarantine = self._cleaned(touched)
        bars, changed_from = self._spliced(fresh)
        if in_doubt:
            everything = self.state.daily.groupby("symbol")["event_timestamp"].min()
            changed_from = pd.concat([changed_from, everything]).groupby(level=0).min()
        now = max(now, self.state.daily[CREATED].max() + pd.Timedelta(1, "us"))
        daily, versions = self._featured(bars, changed_from, now, in_doubt)
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
        recent = self._on_one_basis(held[held["date"] >= cut_of_held])
        pairs = fresh.merge(recent, on=BAR_KEY, how="outer", suffixes=("", "_held"), indicator="side")
        anchor = pairs[pairs["side"] == "both"].drop_duplicates("symbol").set_index("symbol")
        # Segments count on from the older bars.
        offset = anchor["segment_held"] - anchor["segment"]
        segment = pairs["segment"] + pairs["symbol"].map(offset).fillna(0)
        differs = (pairs["side"] != "both") | (segment != pairs["segment_held"])
        for name in (*NUMBERS, "price_factor"):
            differs |= pairs[name] != pairs[f"{name}_held"]
        changed_from = session_close(pairs[differs].groupby("symbol")["date"].min())

        # Another basis moves all the bars before it, however far back a window reaches.
        moved = anchor.index[
            (anchor["price_factor"] != anchor["price_factor_held"])
            | (anchor["volume"] != anchor["volume_held"])
        ]
        since = self._since.reindex(changed_from.index, fill_value=EVER)
        changed_from = changed_from.mask(changed_from.index.isin(moved), since)
        changed = held["symbol"].isin(changed_from.index)
        older = held[changed & (held["date"] < cut_of_held)]
        newer = self._traded(fresh[fresh["symbol"].isin(changed_from.index)], self.raw)
        newer["segment"] += newer["symbol"].map(offset).fillna(0).astype("int32")
        bars = pd.concat([held[~changed], older, newer])
        return _last(in_order(bars).reset_index(drop=True), TAIL + self.reach), changed_from

    def _traded(self, bars: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
        """Clean bars, sorted, as `State` holds them."""
        traded = bars[[*BAR_KEY, "segment", "price_factor"]].merge(
            raw[self.columns].drop_duplicates(BAR_KEY, keep="last"), on=BAR_KEY
        )
        by_vendor = adjusted(traded, self.params.split_step)["price_factor"]
        by_splits = traded["price_factor"] / by_vendor
        following = by_splits.groupby(traded["symbol"]).shift(-1)
        steps = np.log((by_splits / following).fillna(1.0).to_numpy())
        split = np.ones(len(steps))
        at = np.flatnonzero(np.abs(steps) > np.abs(np.log(STEPS)).min() / 2)
        split[at] = STEPS[np.abs(steps[at, None] - np.log(STEPS)).argmin(axis=1)]
        return traded.assign(split=split).drop(columns="price_factor")

    def _on_one_basis(self, traded: pd.DataFrame) -> pd.DataFrame:
        """Traded bars, sorted, on the share basis of their symbol's last one, as `clean` leaves them."""
        factor = product_to_come(traded["split"], traded["symbol"])
        return on_share_basis(adjusted(traded, self.params.split_step), factor)

    def _held_since(self, state: State) -> pd.Series:
        """The first session of each symbol whose features are held until the pipeline runs again.

        It does not move on with new bars: what looks like a split moves all the rows that are held, and
        when it turns out to be none, every one of them must come back.
        """
        last_bars = _last(state.bars[BAR_KEY], self.reach + self.window).groupby("symbol")["date"]
        since, until = session_close(last_bars.min()), session_close(last_bars.max())
        daily = state.daily[state.daily["event_timestamp"] <= state.daily["symbol"].map(until)]
        # The last whole window may lie further back, before a spin-off.
        ends = self._window_ends(daily.reset_index(drop=True))
        first = daily["event_timestamp"].array[ends.index - self.window + 1]
        begins = pd.Series(first, ends["symbol"]).groupby(level=0).max()
        since = pd.concat([since, begins]).groupby(level=0).min()
        return since.clip(lower=state.daily["event_timestamp"].min())

    def _held(self, daily: pd.DataFrame) -> pd.DataFrame:
        begin = daily["symbol"].map(self._since)
        return daily[begin.isna() | (daily["event_timestamp"] >= begin)].reset_index(drop=True)

    def _featured(
        self, bars: pd.DataFrame, changed_from: pd.Series, now: pd.Timestamp, in_doubt: bool
    ) -> tuple[pd.DataFrame, Versions]:
        """The features, and their versions since `changed_from`, of the symbols it names.

        Args:
            in_doubt: the newest rows of all these symbols go online, and not only of those that have
                changed.
        """
        held = self.state.daily
        touched = held["symbol"].isin(changed_from.index)
        is_old = ~touched | (held["event_timestamp"] < held["symbol"].map(changed_from))
        fresh = self._held(
            daily_features(self._on_one_basis(bars[bars["symbol"].isin(changed_from.index)]))
        )
        fresh = fresh[fresh["event_timestamp"] >= fresh["symbol"].map(changed_from)]
        was = held[~is_old]
        if in_doubt:
            fresh = _as_held(fresh, was)
        versions = merge(was, fresh, now)
        versions = versions[versions[CREATED] == now].reset_index(drop=True)
        daily = known(pd.concat([held, versions]).sort_values([*KEYS, CREATED]))

        mine = daily["symbol"].isin(changed_from.index if in_doubt else versions["symbol"])
        mine = daily[mine].reset_index(drop=True)
        first = versions.groupby("symbol")["event_timestamp"].min()

        def since_first(ends: pd.DataFrame) -> pd.DataFrame:
            return ends[ends["event_timestamp"] >= ends["symbol"].map(first)]

        ends = self._window_ends(mine)
        changed = since_first(ends)
        before = since_first(self._window_ends(held[held["symbol"].isin(first.index)]))
        gone = before.merge(changed, on=KEYS, how="left", indicator="side")
        gone = gone.loc[gone["side"] == "left_only", KEYS].assign(**{CREATED: now, "window": None})
        newest = ends.drop_duplicates("symbol", keep="last")
        features = [*KEYS, CREATED, *NAMES]
        return daily, Versions(
            versions,
            pd.concat([self._windows(mine, changed, now), gone], ignore_index=True),
            mine.drop_duplicates("symbol", keep="last")[features].reset_index(drop=True),
            self._windows(mine, newest, now),
        )

    def _window_ends(self, daily: pd.DataFrame) -> pd.DataFrame:
        """Symbol and event_timestamp of the rows that end a whole window."""
        rows = daily[NAMES].to_numpy("float32")
        return daily[KEYS].iloc[window_ends(daily["symbol"].to_numpy(object), rows, self.window)]

    def _windows(self, daily: pd.DataFrame, ends: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
        """Rows of Feast's view `windows`, of some of the `_window_ends` of `daily`."""
        values = gather(daily[NAMES].to_numpy("float32"), ends.index.to_numpy(), self.window)
        rows = ends.assign(**{CREATED: now, "window": packed(values)})
        return rows.reset_index(drop=True)


def _last(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The last `n` rows of each symbol, in their order."""
    return rows.groupby("symbol", sort=False).tail(n).reset_index(drop=True)


def _as_held(fresh: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Features, and as they are held where only rounding differs: no reason for a version.

    The pipeline's begin earlier than a tail. What a changed bar changes is larger: a share in 1e10 moves
    the mean volume of 20 sessions by 5e-12.
    """
    values = fresh[NAMES].to_numpy()
    were = fresh[KEYS].merge(held, on=KEYS, how="left")[NAMES].to_numpy()
    same = np.isclose(values, were, rtol=1e-12, atol=1e-10, equal_nan=True).all(axis=1)
    values = np.where(same[:, None], were, values)
    return fresh.assign(**dict(zip(NAMES, values.T, strict=True)))
