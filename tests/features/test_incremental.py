"""Live bars in any order end in what the batch path makes of all of them at once."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.markets import bars, raw_market
from support.project import PROJECT

from pitwise.bars.landing import Landing, first_to_last
from pitwise.bars.schema import BAR_KEY, COLUMNS, PRICES
from pitwise.bars.versions import BarVersions, bar_versions
from pitwise.cleaning.as_of import clean_versions
from pitwise.cleaning.clean import Cleaned, CleanParams
from pitwise.features import incremental
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.incremental import LiveMarket, State, Versions
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.windows import LastWindow, WindowRows, last_windows, unpacked, window_ends
from pitwise.stage import load_params

PARAMS = load_params(PROJECT, "clean", CleanParams)
WINDOW, CORRECTION, COVERAGE = 30, 10, 0.95
LONGEST = 21
"""Bars of the longest indicator that forgets."""
LIVE = 25
"""The market's last sessions, which come in live."""
ENDLESS = ["rsi_14", "macd", "macd_signal", "atr_14", "adx_14"]
LOADED = pd.Timestamp("2024-01-01", tz="UTC")
MINUTE = pd.Timedelta(minutes=1)


def landed(raw: pd.DataFrame) -> Landing:
    """A file of whole histories, long after."""
    return Landing(raw, "csv", LOADED, history="assumed", covers=first_to_last(raw))


def batch(versions: BarVersions) -> Cleaned:
    """What the pipeline makes of bar versions."""
    return clean_versions(versions, PARAMS)[0]


def created(bars: pd.DataFrame, at: pd.Timestamp = LOADED) -> pd.DataFrame:
    """Features as the pipeline leaves them."""
    daily = daily_features(bars)
    daily.insert(2, CREATED, daily["event_timestamp"].clip(upper=at))
    return daily


def live_market(raw: pd.DataFrame) -> LiveMarket:
    """As the pipeline leaves it."""
    return market_of(bar_versions([landed(raw)], COVERAGE))


def market_of(versions: BarVersions) -> LiveMarket:
    cleaned, market = clean_versions(versions, PARAMS)
    state = State(cleaned.bars, created(cleaned.bars), market)
    return LiveMarket(versions, state, PARAMS, WINDOW, CORRECTION, COVERAGE)


def live_rows(bars: pd.DataFrame, at: pd.Timestamp = LOADED + MINUTE) -> pd.DataFrame:
    """Live bars as bar versions."""
    return bars[COLUMNS].assign(source="live", known_at=at, withdrawn=False)


class Service:
    """A live market, and what the stores would hold of it; it may be killed between any two steps."""

    def __init__(self, raw: pd.DataFrame):
        self.batch = landed(raw)
        self.versions = bar_versions([self.batch], COVERAGE)
        cleaned, self.cross_section = clean_versions(self.versions, PARAMS)
        self.bars = cleaned.bars
        self.history = created(self.bars)
        self.market = self.started()
        self.windows = last_windows(self.history, NAMES, WINDOW)
        self.offline_windows: dict[tuple[str, pd.Timestamp], bytes | None] = {}
        self.journal = live_rows(raw.iloc[:0])
        self.now = LOADED

    def started(self) -> LiveMarket:
        state = State(self.bars, known(self.history), self.cross_section)
        return LiveMarket(self.versions, state, PARAMS, WINDOW, CORRECTION, COVERAGE)

    def expected(self) -> BarVersions:
        """By the batch path: the file, and the journal as another delivery."""
        live = Landing(self.journal.drop(columns="source"), "live", self.now)
        return bar_versions([self.batch, live] if len(self.journal) else [self.batch], COVERAGE)

    def take(self, bars: pd.DataFrame, steps: int = 5) -> None:
        """Take bars; with fewer steps than all it is killed after them, and started again."""
        _, taken = self.market.judge(bars)
        self.changed(live_rows(taken, self.next()), steps)

    def withdraw(self, symbol: str, date: pd.Timestamp, steps: int = 5) -> None:
        if self.market.withdrawal(symbol, date).outcome == "withdrawn":
            bar = pd.DataFrame({"symbol": [symbol], "date": [date]}).reindex(columns=COLUMNS)
            self.changed(live_rows(bar, self.next()).assign(withdrawn=True), steps)

    def next(self) -> pd.Timestamp:
        self.now += MINUTE
        return self.now

    def changed(self, rows: pd.DataFrame, steps: int) -> None:
        self.journal = pd.concat([self.journal, rows], ignore_index=True).astype(self.journal.dtypes)
        if steps and len(rows):
            self.market.take(rows)
            self.market.seal()
            self.push(self.market.recompute(self.now), steps)
        if steps == 5:
            return
        self.market = self.started()
        self.market.take_again(self.journal, None)
        self.market.seal()
        self.push(self.market.recompute(self.next(), in_doubt=True), 5)

    def push(self, changes, steps: int) -> None:
        """In the order of `LiveBars`."""
        versions: Versions = changes.versions
        for row in versions.windows.itertuples():
            self.offline_windows[row.symbol, row.event_timestamp] = row.window
        if steps > 1:
            rows = pd.concat([self.history, versions.daily])
            self.history = rows.sort_values([*KEYS, CREATED], ignore_index=True)
        if steps > 2:
            for row in versions.online_windows.itertuples():
                window = unpacked([row.window], NAMES)[0]
                self.windows[row.symbol] = LastWindow(row.event_timestamp, window)
        if steps > 3:
            self.market.accept(changes)


def assert_same(service: Service) -> None:
    """The stores against the batch path on all bars."""
    versions = service.expected()
    daily = daily_features(batch(versions).bars)
    assert service.market.sealed == versions.seals["date"].max()
    expected = last_windows(daily, NAMES, WINDOW)
    assert service.windows.keys() >= expected.keys()
    for symbol, (as_of, window) in expected.items():
        ours = service.windows[symbol]
        assert ours.as_of == as_of, symbol
        assert_close(ours.values, window, symbol)

    held = known(service.history)
    for symbol, rows in daily.groupby("symbol"):
        rows = rows.tail(WINDOW + LONGEST + CORRECTION)
        since = rows["event_timestamp"].min()
        ours = held[(held["symbol"] == symbol) & (held["event_timestamp"] >= since)]
        assert ours["event_timestamp"].tolist() == rows["event_timestamp"].tolist(), symbol
        assert_close(ours[NAMES].to_numpy(), rows[NAMES].to_numpy(), symbol)
    values = WindowRows(daily, NAMES)
    ends = window_ends(daily["symbol"].to_numpy(object), values.base, WINDOW)
    keys = zip(daily["symbol"].iloc[ends], daily["event_timestamp"].iloc[ends], strict=True)
    windows = dict(zip(keys, values.gather(ends, WINDOW), strict=True))
    for (symbol, instant), window in service.offline_windows.items():
        assert (window is None) == ((symbol, instant) not in windows), (symbol, instant)
        if window is not None:
            assert_close(unpacked([window], NAMES)[0], windows[symbol, instant], symbol)


def assert_close(ours: np.ndarray, wanted: np.ndarray, symbol: str) -> None:
    """(n, n_features) each: equal to the bit, but for what never quite forgets."""
    close = wanted[:, NAMES.index("close")]
    for i, name in enumerate(NAMES):
        if name in ENDLESS:
            scale = 100 if BY_NAME[name].unit == "index" else close
            gap = np.abs(ours[:, i] - wanted[:, i]) / scale
            assert (gap[~np.isnan(wanted[:, i])] < 1e-6).all(), (symbol, name)
        else:
            np.testing.assert_array_equal(
                ours[:, i].astype("float32"), wanted[:, i].astype("float32"), err_msg=f"{symbol} {name}"
            )


def stream(raw: pd.DataFrame, days: np.ndarray, rng: np.random.Generator):
    """The bars of the live sessions in parts: some late, some repeated, some wrong at first."""
    held_back: list[tuple[int, pd.DataFrame]] = []
    for i, day in enumerate(days):
        rows = raw[raw["date"] == day].sample(frac=1, random_state=int(rng.integers(2**31)))
        for _, row in rows.iterrows():
            bar = row.to_frame().T.astype(raw.dtypes)
            kind = rng.random()
            if kind < 0.05:
                held_back.append((i + int(rng.integers(1, CORRECTION - 2)), bar))
                continue
            if kind < 0.10:
                held_back.append((i + int(rng.integers(0, CORRECTION - 2)), bar))
                # With an adjusted close, the other close looks like a dividend.
                bar = bar.assign(volume=bar["volume"] * 1.5 + 1, close=bar["low"])
            yield bar
            if kind > 0.97:
                yield bar
        for due, bar in [b for b in held_back if b[0] <= i or i == len(days) - 1]:
            yield bar
            held_back = [b for b in held_back if b[1] is not bar or b[0] != due]


def with_adjusted_close(raw: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """As a vendor sends it who knows of three dividends of each symbol in the last 60 sessions."""
    steps = pd.Series(1.0, raw.index)
    recent = raw[raw["date"] >= np.sort(raw["date"].unique())[-60]]
    ex_days = recent.groupby("symbol").sample(3, random_state=int(rng.integers(2**31))).index
    steps[ex_days] = 1 + rng.uniform(0.001, 0.03, len(ex_days))
    return raw.assign(adj_close=raw["close"] * steps.groupby(raw["symbol"]).cumprod())


def with_repeated_rows(raw: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """As a source sends it that repeats rows, one of them with another close."""
    recent = raw[raw["date"] >= np.sort(raw["date"].unique())[-40]]
    again = recent.sample(8, random_state=int(rng.integers(2**31)))
    again.loc[again.index[::2], "close"] = again["low"]
    return pd.concat([raw, again], ignore_index=True)


def play(seed: int) -> None:
    """Live bars of a market in any order, with kills in between, against the batch path."""
    rng = np.random.default_rng(seed)
    raw = raw_market(seed)
    days = np.sort(raw["date"].unique())[-LIVE:]
    loaded = raw[raw["date"] < days[0]]
    if seed % 2:
        loaded = with_adjusted_close(loaded, rng)
    service = Service(with_repeated_rows(loaded, rng))
    parts = list(stream(raw, days, rng))
    while parts:
        size = int(rng.choice([1, 3, 40]))
        part = pd.concat(parts[:size], ignore_index=True).drop_duplicates(BAR_KEY, keep="first")
        taken = len(part)
        del parts[: max(taken, 1)]
        service.take(part, steps=int(rng.integers(5)) if rng.random() < 0.05 else 5)
        if rng.random() < 0.05:
            bar = part.iloc[int(rng.integers(len(part)))]
            service.withdraw(bar["symbol"], bar["date"], int(rng.integers(6)))
        if rng.random() < 0.03:
            assert_same(service)
    assert_same(service)


# A minute in all, so no part of the fast loop.
@pytest.mark.component
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(9444, id="a scale error looks like a split until the price is back"),
        pytest.param(404, id="a split after a spin-off that ended the whole windows two months ago"),
        pytest.param(1001, id="a kill cuts the push of a correction short"),
    ],
)
def test_live_bars_of_markets_that_once_failed_end_in_what_the_batch_path_computes(seed):
    play(seed)


@pytest.mark.component
@settings(max_examples=1, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(st.integers(0, 10**6))
def test_live_bars_in_any_order_with_kills_in_between_end_in_what_the_batch_path_computes(seed):
    play(seed)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """Six symbols, S000 to S005, of 200 sessions in which nothing happens."""
    return bars(6, 200, seed=3)[COLUMNS]


@pytest.fixture
def market(raw) -> LiveMarket:
    """Up to the last session but five."""
    return live_market(raw[raw["date"] < day(raw, -5)])


def day(raw: pd.DataFrame, session: int) -> pd.Timestamp:
    """A session counted from the end (-1: the last)."""
    return pd.Timestamp(np.sort(raw["date"].unique())[session])


def bar(raw: pd.DataFrame, session: int, symbol: int = 0, **changed) -> pd.DataFrame:
    """The bar of a symbol at a session counted from the end."""
    found = raw[(raw["date"] == day(raw, session)) & (raw["symbol"] == raw["symbol"].unique()[symbol])]
    assert len(found) == 1
    return found.assign(**changed).reset_index(drop=True)


def judged(market: LiveMarket, *bars: pd.DataFrame) -> list[tuple[str, str]]:
    outcomes, taken = market.judge(pd.concat(bars, ignore_index=True))
    assert len(taken) == sum(o.outcome in ("new", "late", "corrected") for o in outcomes)
    return [(o.outcome, o.reason) for o in outcomes]


def accepted(market: LiveMarket, *bars: pd.DataFrame, minutes: int = 1):
    """Take bars, and what they change as the new state."""
    now = LOADED + minutes * MINUTE
    market.take(live_rows(pd.concat(bars, ignore_index=True), now))
    market.seal()
    changes = market.recompute(now)
    market.accept(changes)
    return changes


def test_a_bar_is_new_late_repeated_or_corrected_by_what_is_held_and_sealed(market, raw):
    assert market.sealed == day(raw, -6)
    accepted(market, bar(raw, -5), bar(raw, -5, 1))
    assert judged(
        market,
        bar(raw, -4),
        bar(raw, -5),
        bar(raw, -5, 1, volume=7.0),
        bar(raw, -6),
        bar(raw, -6, volume=7.0, symbol=1),
    ) == [("new", ""), ("repeated", ""), ("corrected", ""), ("repeated", ""), ("corrected", "")]
    # Five of six are less than 95%.
    accepted(market, *(bar(raw, -5, i) for i in range(2, 5)), minutes=2)
    assert market.sealed == day(raw, -6)
    late = bar(raw, -5, 5)
    assert judged(market, late) == [("new", "")]
    market.seal(day(raw, -5))
    assert judged(market, late) == [("late", "")]


def test_a_bar_that_fails_a_check_is_refused_by_its_name(market, raw):
    new = bar(raw, -5)
    cases = {
        "missing": {"close": np.nan},
        "non_positive": {"low": 0.0},
        "negative_volume": {"volume": -1.0},
        "high_below_low": {"high": new["low"].item() / 2},
        "open_outside_range": {"open": new["high"].item() * 2},
        "close_outside_range": {"close": new["low"].item() / 2},
        "not_a_session": {"date": pd.Timestamp("2014-01-04")},
        "unknown_symbol": {"symbol": "NOSUCH"},
        "too_old": {"date": day(raw, -6 - CORRECTION - 1)},
        "too_new": {"date": day(raw, -4)},
    }
    for reason, changed in cases.items():
        assert judged(market, new.assign(**changed)) == [("refused", reason)]
    oldest = bar(raw, -6 - CORRECTION, volume=5.0)
    assert judged(market, oldest) == [("corrected", "")]


def test_sessions_in_one_call_may_follow_each_other_and_none_may_be_left_out(market, raw):
    three = [bar(raw, session) for session in (-3, -5, -4)]
    assert judged(market, *three) == [("new", "")] * 3
    assert judged(market, three[1], three[0]) == [("new", ""), ("refused", "too_new")]


def test_a_session_that_is_not_over_is_refused(market, raw):
    ahead = pd.Timestamp.now().normalize() + pd.offsets.BDay(3)
    assert judged(market, bar(raw, -5, date=ahead)) == [("refused", "not_a_session")]


def test_twice_the_same_bar_in_one_call_is_repeated_and_two_that_differ_are_both_refused(market, raw):
    new = bar(raw, -5)
    assert judged(market, new, new) == [("new", ""), ("repeated", "")]
    other = new.assign(volume=new["volume"] + 1)
    assert judged(market, new, other) == [("refused", "conflicting_duplicate")] * 2


@pytest.mark.parametrize(
    "date",
    ["2014-07-04", "2013-07-04", "2031-05-05", "2015-06-01"],
    ids=["holiday", "old holiday", "a day to come", "a session half a year ahead"],
)
def test_a_misdated_row_of_the_source_moves_neither_end_of_what_is_taken(raw, date):
    loaded = raw[raw["date"] < day(raw, -5)]
    misdated = bar(raw, -6, symbol=1, date=pd.Timestamp(date))
    market = live_market(pd.concat([loaded, misdated], ignore_index=True))
    assert market.newest.tz_convert("America/New_York").date() == day(raw, -6).date()
    assert judged(market, bar(raw, -5), bar(raw, -5, symbol=1)) == [("new", "")] * 2
    assert judged(market, bar(raw, -4)) == [("refused", "too_new")]
    assert judged(market, bar(raw, -6 - CORRECTION, volume=5.0)) == [("corrected", "")]
    assert judged(market, bar(raw, -7 - CORRECTION, volume=5.0)) == [("refused", "too_old")]


def test_one_duplicate_row_of_the_source_leaves_its_bar_and_a_live_correction_of_it_stands(raw):
    loaded = raw[raw["date"] < day(raw, -5)]
    held = bar(raw, -6)
    service = Service(pd.concat([loaded, held], ignore_index=True))
    service.take(held)
    assert len(service.journal) == 0  # repeated
    service.take(held.assign(volume=12_345.0), steps=0)  # and killed
    mine = known(service.history).groupby("symbol").last().loc[held["symbol"].item()]
    assert mine["volume"] == 12_345.0
    assert_same(service)


def test_two_rows_of_the_source_that_differ_are_not_revived_by_a_live_bar_of_another_session(raw):
    loaded = raw[raw["date"] < day(raw, -5)]
    other = bar(raw, -6, volume=12_345.0)
    service = Service(pd.concat([loaded, other], ignore_index=True))
    name = other["symbol"].item()
    service.take(raw[raw["date"] == day(raw, -5)])  # a whole session, which seals it
    of_symbol = known(service.history)
    of_symbol = of_symbol[of_symbol["symbol"] == name]
    days = of_symbol["event_timestamp"].dt.tz_convert("America/New_York").dt.date.tolist()[-2:]
    assert days == [day(raw, -7).date(), day(raw, -5).date()]
    assert_same(service)


def test_fifteen_sessions_posted_symbol_by_symbol_lose_none(raw):
    market = live_market(raw[raw["date"] < day(raw, -15)])
    for i, name in enumerate(raw["symbol"].unique()):
        its = raw[(raw["symbol"] == name) & (raw["date"] >= day(raw, -15))]
        outcomes, taken = market.judge(its)
        assert len(taken) == 15
        assert {o.outcome for o in outcomes} <= {"new", "late"}
        accepted(market, taken, minutes=i + 1)
        assert market.newest_bars([name], 15)["date"].tolist() == its["date"].tolist()
        assert market.missing_sessions[name] == 0
    assert market.sealed == day(raw, -1)


def test_before_the_seal_a_bar_touches_one_symbol_and_no_bar_of_another_is_looked_at(
    market, raw, monkeypatch
):
    looked_at: dict[str, list[set[str]]] = {"judged": [], "checked": [], "computed": []}

    def watched(name, step):
        function = getattr(incremental, name)

        def looks_at(bars, *args):
            looked_at[step].append(set(bars["symbol"]))
            return function(bars, *args)

        monkeypatch.setattr(incremental, name, looks_at)

    names = set(raw["symbol"])
    name = raw["symbol"].unique()[0]
    watched("cleaned_or_nothing", "judged")
    watched("steps", "checked")
    watched("recent_features", "computed")
    versions = accepted(market, bar(raw, -5)).versions
    assert looked_at == {"judged": [], "checked": [{name}], "computed": [{name}]}
    assert versions.daily["symbol"].tolist() == [name]
    assert versions.online_windows["symbol"].tolist() == [name]
    rest = [bar(raw, -5, i) for i in range(1, 6)]
    accepted(market, *rest, minutes=2)
    assert looked_at == {
        "judged": [names],
        "checked": [{name}],
        "computed": [{name}, names - {name}],  # at the seal its bar stood as it was
    }


def test_a_verdict_is_told_at_the_seal_and_stands_at_the_next_one(market, raw):
    """A fall of 40% is no one's business until the session is whole; then it seems to be a spin-off."""
    whole = [bar(raw, -5, i) for i in range(6)]
    fallen = whole[0].assign(**{p: whole[0][p] * 0.6 for p in PRICES})
    name = fallen["symbol"].item()
    first = accepted(market, fallen)
    assert first.versions.daily[["symbol", "segment"]].to_numpy().tolist() == [[name, 0]]
    assert market.suspects == {}
    changes = accepted(market, *whole[1:], minutes=2)
    assert market.sealed == day(raw, -5)
    mine = changes.versions.daily["symbol"] == name
    assert not mine.any()
    assert market.suspects == {name: "spin_off"}
    after = [bar(raw, -4, i) for i in range(6)]
    after[0] = after[0].assign(**{p: after[0][p] * 0.6 for p in PRICES})
    daily = accepted(market, *after, minutes=3).versions.daily
    mine = daily[daily["symbol"] == name]
    assert mine["segment"].tolist() == [1, 1]
    assert market.suspects == {}
    assert market.seal() is None
    assert market.recompute(LOADED + 4 * MINUTE).versions.daily.empty


def test_while_two_of_six_have_reported_both_paths_compute_the_same(raw):
    """One of them fell by 40%: nobody judges that before the session is sealed, in batch neither."""
    service = Service(raw[raw["date"] < day(raw, -5)])
    calm, fallen = bar(raw, -5), bar(raw, -5, 1)
    service.take(pd.concat([calm, fallen.assign(**{p: fallen[p] * 0.6 for p in PRICES})]))
    assert service.market.sealed == day(raw, -6)
    ends = [service.windows[name].as_of for name in sorted(service.windows)]
    assert ends == [service.market.newest] * 2 + [service.market.sealed_close] * 4
    assert_same(service)


def test_a_session_without_all_its_bars_is_sealed_by_the_next_one_or_by_a_person(market, raw):
    accepted(market, *(bar(raw, -5, i) for i in range(5)))
    assert market.sealed == day(raw, -6)
    accepted(market, *(bar(raw, -4, i) for i in range(4)), minutes=2)
    assert market.sealed == day(raw, -6)
    accepted(market, bar(raw, -4, 4), minutes=3)
    assert market.sealed == day(raw, -6)  # as many as the open session before, not as the sealed one
    accepted(market, bar(raw, -4, 5), minutes=3.5)
    assert market.sealed == day(raw, -4)
    accepted(market, bar(raw, -3), minutes=4)
    assert market.seal(day(raw, -3)) == day(raw, -3)
    assert market.sealed == day(raw, -3)


def test_a_hole_counts_as_sessions_that_the_window_leaves_out(market, raw):
    names = raw["symbol"].unique()
    before = dict(market.missing_sessions)
    for minutes, session in enumerate((-5, -4, -3), start=1):
        there = range(1 if session == -4 else 0, len(names))
        accepted(market, *(bar(raw, session, i) for i in there), minutes=minutes)
    assert market.missing_sessions[names[0]] == before[names[0]] + 1
    accepted(market, bar(raw, -4), minutes=9)
    assert market.missing_sessions[names[0]] == before[names[0]]


def test_a_feed_that_says_the_same_again_does_not_undo_what_a_later_load_has_put_right(raw):
    loaded = raw[raw["date"] < day(raw, -5)]
    wrong, right = bar(raw, -6, volume=7.0), bar(raw, -6, volume=8.0)
    live = Landing(live_rows(wrong).drop(columns="source"), "live", LOADED + MINUTE)
    later = Landing(right, "csv", LOADED + 2 * MINUTE, covers=first_to_last(right))
    versions = bar_versions([landed(loaded), live, later], COVERAGE)
    market = market_of(versions)
    assert judged(market, wrong) == [("repeated", "")]
    assert judged(market, bar(raw, -6, volume=9.0)) == [("corrected", "")]


def test_a_bar_on_which_nothing_changes_pushes_nothing(market, raw):
    market.take(live_rows(bar(raw, -6)))
    versions = market.recompute(LOADED + MINUTE).versions
    assert [len(rows) for rows in vars(versions).values()] == [0, 0, 0, 0]


def test_a_restart_with_nothing_to_mend_makes_no_version():
    raw = raw_market(3, symbols=6, sessions=700)  # longer than the tail
    days = np.sort(raw["date"].unique())
    service = Service(raw[raw["date"] < days[-3]])
    for day in days[-3:]:
        service.take(raw[raw["date"] == day])
    versions = len(service.history)
    service.take(raw.tail(1), steps=0)  # repeated, and killed
    assert len(service.history) == versions
    assert_same(service)


def test_a_correction_makes_new_versions_from_its_session_on_and_none_before(market, raw):
    held = bar(raw, -8)
    versions = accepted(market, held.assign(close=held["low"])).versions
    assert set(versions.daily["symbol"]) == {held["symbol"].item()}
    days = versions.daily["event_timestamp"].dt.tz_convert(None).dt.normalize().tolist()
    of_symbol = raw[(raw["symbol"] == held["symbol"].item()) & (raw["date"] < day(raw, -5))]
    assert days == of_symbol.loc[of_symbol["date"] >= held["date"].item(), "date"].tolist()
    assert (versions.daily[CREATED] == LOADED + MINUTE).all()
    assert len(versions.online_windows) == 1


def test_a_withdrawn_bar_withdraws_its_row_and_its_window_and_the_one_before_comes_back(market, raw):
    name = raw["symbol"].unique()[0]
    new = bar(raw, -5)
    accepted(market, new)
    assert market.withdrawal(name, day(raw, -5)).outcome == "withdrawn"
    now = LOADED + 2 * MINUTE
    nothing = new.assign(**dict.fromkeys([*PRICES, "volume"], np.nan))
    market.take(live_rows(nothing, now).assign(withdrawn=True))
    changes = market.recompute(now)
    market.accept(changes)
    daily, windows, online_daily, online_windows = vars(changes.versions).values()
    assert daily[["symbol", "close"]].isna().to_numpy().tolist() == [[False, True]]
    assert windows["window"].tolist() == [None]
    before = pd.Timestamp(day(raw, -6)).date()
    for online in (online_daily, online_windows):
        assert online["event_timestamp"].dt.tz_convert("America/New_York").dt.date.tolist() == [before]
    assert market.withdrawal(name, day(raw, -5)).reason == "no_such_bar"
    assert market.withdrawal(name, day(raw, -7 - CORRECTION)).reason == "too_old"
    assert market.withdrawal("NOSUCH", day(raw, -5)).reason == "unknown_symbol"
    assert judged(market, new) == [("new", "")]


def some(raw: pd.DataFrame, session: int, which: range | list[int]) -> pd.DataFrame:
    return pd.concat([bar(raw, session, i) for i in which], ignore_index=True)


def test_bars_of_the_next_session_that_come_before_the_seal_seal_it_no_earlier_than_in_batch():
    raw = bars(10, 130, seed=3)[COLUMNS]
    service = Service(raw[raw["date"] < day(raw, -4)])
    parts = [(-4, range(3)), (-3, range(3)), (-4, range(3, 10)), (-3, [3]), (-3, range(4, 10))]
    for session, which in parts:
        service.take(some(raw, session, which))
        assert service.market.sealed == service.expected().seals["date"].max()
    assert service.market.sealed == day(raw, -3)


def test_a_session_that_a_person_seals_has_the_bars_that_had_come_in_its_cross_section():
    raw = bars(10, 130, seed=3)[COLUMNS]
    service = Service(raw[raw["date"] < day(raw, -4)])
    service.take(some(raw, -4, range(7)))
    assert service.market.seal(day(raw, -4)) == day(raw, -4)
    market = service.market._market
    assert market is not None
    assert market.symbols[-2:].tolist() == [10, 7]


def test_a_split_before_a_halt_of_weeks_stands_when_the_symbol_is_back():
    raw = bars(6, 180, seed=4)[COLUMNS]
    name = raw["symbol"].unique()[0]
    mine = raw["symbol"] == name
    split = mine & (raw["date"] >= day(raw, -25))
    raw.loc[split, PRICES] /= 2
    raw.loc[split, "volume"] *= 2
    halted = mine & (raw["date"] > day(raw, -25)) & (raw["date"] < day(raw, -2))
    raw = raw[~halted]
    service = Service(raw[raw["date"] < day(raw, -25)])
    for session in range(-25, 0):
        service.take(raw[raw["date"] == day(raw, session)])
        if session == -20:
            assert service.market.suspects == {name: "split"}
    assert service.market.suspects == {}
    assert_same(service)
