"""Live bars in any order end in what the pipeline makes of all of them at once."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.markets import raw_market
from support.project import PROJECT

from pitwise.bars.schema import PRICES
from pitwise.cleaning.adjustment import product_to_come
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known, merge
from pitwise.features.incremental import LONGEST, LiveMarket, State, Versions
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.windows import LastWindow, gather, last_windows, unpacked, window_ends
from pitwise.stage import load_params

PARAMS = load_params(PROJECT, "clean", CleanParams)
WINDOW, CORRECTION = 30, 10
LIVE = 25
"""The market's last sessions, which come in live."""
ENDLESS = ["rsi_14", "macd", "macd_signal", "atr_14", "adx_14"]
LOADED = pd.Timestamp("2024-01-01", tz="UTC")


def live_market(raw: pd.DataFrame) -> LiveMarket:
    """As the pipeline leaves it."""
    bars, _, _ = clean(raw, PARAMS)
    state = State(bars, merge(None, daily_features(bars), LOADED))
    return LiveMarket(raw, state, PARAMS, WINDOW, CORRECTION)


class Service:
    """A live market, and what the stores would hold of it; it may be killed between any two steps."""

    def __init__(self, raw: pd.DataFrame):
        self.raw = raw
        self.market = live_market(raw)
        self.bars, self.history = clean(raw, PARAMS)[0], self.market.state.daily
        self.windows = last_windows(self.history, NAMES, WINDOW)
        self.offline_windows: dict[tuple[str, pd.Timestamp], bytes | None] = {}
        self.journal = raw.iloc[:0]

    def take(self, bars: pd.DataFrame, steps: int = 5) -> None:
        """Take bars; with fewer steps than all it is killed after them, and started again."""
        _, taken = self.market.judge(bars)
        self.journal = pd.concat([self.journal, taken]).drop_duplicates(["symbol", "date"], keep="last")
        self.market.take(taken)
        if steps == 5:
            if len(taken):
                self.push(*self.market.recompute(set(taken["symbol"]), LOADED)[:2], steps)
            return
        if len(taken) and steps:
            self.push(*self.market.recompute(set(taken["symbol"]), LOADED)[:2], steps)
        self.market = LiveMarket(
            self.raw, State(self.bars, known(self.history)), PARAMS, WINDOW, CORRECTION
        )
        self.market.take(self.journal)
        newest = self.bars["date"] == self.bars["date"].max()
        behind = {*self.bars.loc[newest, "symbol"], *self.journal["symbol"]}
        self.push(*self.market.recompute(behind, LOADED, in_doubt=True)[:2], 5)

    def push(self, state: State, versions: Versions, steps: int) -> None:
        """In the order of `LiveBars`."""
        for row in versions.windows.itertuples():
            self.offline_windows[row.symbol, row.event_timestamp] = row.window
        if steps > 1:
            rows = pd.concat([self.history, versions.daily])
            self.history = rows.sort_values([*KEYS, CREATED], ignore_index=True)
        if steps > 2:
            for row in versions.online_windows.itertuples():
                window = unpacked([row.window], len(NAMES))[0]
                self.windows[row.symbol] = LastWindow(row.event_timestamp, window)
        self.market.state = state


def assert_same(service: Service, raw: pd.DataFrame) -> None:
    """The stores against the batch path on all bars."""
    bars, _, events = clean(raw, PARAMS)
    daily = daily_features(bars)
    splits = events.loc[events["kind"] == "split", "symbol"].value_counts()
    expected = last_windows(daily, NAMES, WINDOW)
    assert service.windows.keys() >= expected.keys()
    for symbol, (as_of, window) in expected.items():
        ours = service.windows[symbol]
        assert ours.as_of == as_of, symbol
        assert_close(ours.values, window, symbol, splits.get(symbol, 0))

    held = known(service.history)
    for symbol, rows in daily.groupby("symbol"):
        rows = rows.tail(WINDOW + LONGEST + CORRECTION)
        since = rows["event_timestamp"].min()
        ours = held[(held["symbol"] == symbol) & (held["event_timestamp"] >= since)]
        assert ours["event_timestamp"].tolist() == rows["event_timestamp"].tolist(), symbol
        assert_close(ours[NAMES].to_numpy(), rows[NAMES].to_numpy(), symbol, splits.get(symbol, 0))
    values = daily[NAMES].to_numpy("float32")
    ends = window_ends(daily["symbol"].to_numpy(object), values, WINDOW)
    keys = zip(daily["symbol"].iloc[ends], daily["event_timestamp"].iloc[ends], strict=True)
    windows = dict(zip(keys, gather(values, ends, WINDOW), strict=True))
    for (symbol, instant), window in service.offline_windows.items():
        assert (window is None) == ((symbol, instant) not in windows), (symbol, instant)
        if window is not None:
            ours = unpacked([window], len(NAMES))[0]
            assert_close(ours, windows[symbol, instant], symbol, splits.get(symbol, 0))


def assert_close(ours: np.ndarray, wanted: np.ndarray, symbol: str, splits: int) -> None:
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
    steps[ex_days] = 1 - rng.uniform(0.001, 0.03, len(ex_days))
    return raw.assign(adj_close=raw["close"] * product_to_come(steps, raw["symbol"]))


def play(seed: int) -> None:
    """Live bars of a market in any order, with kills in between, against the batch path."""
    rng = np.random.default_rng(seed)
    raw = raw_market(seed)
    if seed % 2:
        raw = with_adjusted_close(raw, rng)
    days = np.sort(raw["date"].unique())[-LIVE:]
    known_bars = raw[raw["date"] < days[0]]
    service = Service(known_bars)
    parts = list(stream(raw, days, rng))
    while parts:
        size = int(rng.choice([1, 3, 40]))
        part = pd.concat(parts[:size], ignore_index=True).drop_duplicates(
            ["symbol", "date"], keep="first"
        )
        taken = len(part)
        del parts[: max(taken, 1)]
        service.take(part, steps=int(rng.integers(5)) if rng.random() < 0.05 else 5)
        known_bars = pd.concat([known_bars, part]).drop_duplicates(["symbol", "date"], keep="last")
        if rng.random() < 0.03:
            assert_same(service, known_bars)
    assert_same(service, known_bars)


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
@settings(max_examples=3, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(st.integers(0, 10**6))
def test_live_bars_in_any_order_with_kills_in_between_end_in_what_the_batch_path_computes(seed):
    play(seed)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return raw_market(3, symbols=6, sessions=200)


@pytest.fixture
def market(raw) -> LiveMarket:
    """Up to the last session but five."""
    return live_market(raw[raw["date"] < np.sort(raw["date"].unique())[-5]])


def bar(raw: pd.DataFrame, session: int, symbol: int = 0, **changed) -> pd.DataFrame:
    """The bar of a symbol at a session counted from the end (-1: the last)."""
    day, name = np.sort(raw["date"].unique())[session], raw["symbol"].unique()[symbol]
    found = raw[(raw["date"] == day) & (raw["symbol"] == name)]
    assert len(found) == 1
    return found.assign(**changed).reset_index(drop=True)


def judged(market: LiveMarket, *bars: pd.DataFrame) -> list[tuple[str, str]]:
    outcomes, taken = market.judge(pd.concat(bars, ignore_index=True))
    assert len(taken) == sum(o.outcome in ("new", "late", "corrected") for o in outcomes)
    return [(o.outcome, o.reason) for o in outcomes]


def test_a_bar_is_new_late_repeated_or_corrected_by_what_is_held(market, raw):
    market.take(bar(raw, -4))
    assert judged(
        market,
        bar(raw, -3),
        bar(raw, -5),
        bar(raw, -4),
        bar(raw, -6),
        bar(raw, -6, volume=7.0, symbol=1),
    ) == [("new", ""), ("late", ""), ("repeated", ""), ("repeated", ""), ("corrected", "")]


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
        "too_old": {"date": np.sort(raw["date"].unique())[-6 - CORRECTION - 1]},
    }
    for reason, changed in cases.items():
        assert judged(market, new.assign(**changed)) == [("refused", reason)]
    oldest = bar(raw, -6 - CORRECTION, volume=5.0)
    assert judged(market, oldest) == [("corrected", "")]


def test_a_session_that_is_not_over_is_refused(market, raw):
    ahead = pd.Timestamp.now().normalize() + pd.offsets.BDay(3)
    assert judged(market, bar(raw, -5, date=ahead)) == [("refused", "not_a_session")]


def test_twice_the_same_bar_in_one_call_is_repeated_and_two_that_differ_are_both_refused(market, raw):
    new = bar(raw, -5)
    assert judged(market, new, new) == [("new", ""), ("repeated", "")]
    other = new.assign(volume=new["volume"] + 1)
    assert judged(market, new, other) == [("refused", "conflicting_duplicate")] * 2


def test_a_bar_on_which_nothing_changes_pushes_nothing(market, raw):
    state = market.state
    _, versions, _ = market.recompute(set(raw["symbol"]), LOADED)
    assert [len(rows) for rows in vars(versions).values()] == [0, 0, 0, 0]
    assert market.state is state


def test_a_restart_with_nothing_to_mend_makes_no_version():
    raw = raw_market(3, symbols=6, sessions=700)  # longer than the tail
    days = np.sort(raw["date"].unique())
    service = Service(raw[raw["date"] < days[-3]])
    for day in days[-3:]:
        service.take(raw[raw["date"] == day])
    versions = len(service.history)
    service.take(raw.tail(1), steps=0)  # repeated, and killed
    assert len(service.history) == versions
    assert_same(service, raw)


def test_a_correction_makes_new_versions_from_its_session_on_and_none_before(market, raw):
    held = bar(raw, -8)
    market.take(held.assign(close=held["low"]))
    _, versions, _ = market.recompute({held["symbol"].item()}, LOADED)
    assert set(versions.daily["symbol"]) == {held["symbol"].item()}
    days = versions.daily["event_timestamp"].dt.tz_convert(None).dt.normalize().tolist()
    held_since = market.state.bars["date"] >= held["date"].item()
    of_symbol = market.state.bars["symbol"] == held["symbol"].item()
    assert days == market.state.bars.loc[of_symbol & held_since, "date"].tolist()
    assert (versions.daily[CREATED] == LOADED).all()
    assert len(versions.online_windows) == 1


def test_a_withdrawn_bar_withdraws_its_row_and_its_window_and_brings_the_one_before_back(market, raw):
    name = raw["symbol"].unique()[0]
    before = market.state.daily
    held = bar(raw, -6)
    wrong = held.assign(**{p: held[p] * 100 for p in PRICES})
    after = bar(raw, -5)
    for new in (wrong, after):
        market.take(new)
    state, versions, aside = market.recompute({name}, LOADED)
    assert aside[name, held["date"].item()] == "scale_error"
    gone = versions.daily[versions.daily["close"].isna()]
    assert gone["event_timestamp"].dt.tz_convert(None).dt.normalize().tolist() == [held["date"].item()]
    withdrawn = versions.windows[versions.windows["window"].isna()]
    assert withdrawn[KEYS].to_numpy().tolist() == gone[KEYS].to_numpy().tolist()
    assert held["date"].item() not in set(state.bars.loc[state.bars["symbol"] == name, "date"])
    assert len(before[before["symbol"] == name]) == len(state.daily[state.daily["symbol"] == name])


def test_a_vendors_adjusted_close_goes_on_from_the_last_bar_where_it_is_not_given(raw):
    adjusted = raw.assign(adj_close=raw["close"] * 0.5)
    market = live_market(adjusted[adjusted["date"] < np.sort(raw["date"].unique())[-5]])
    new = bar(raw, -5)
    _, taken = market.judge(new)
    assert taken["adj_close"].item() == new["close"].item() * 0.5
    _, taken = market.judge(new.assign(adj_close=new["close"] * 0.4))
    assert taken["adj_close"].item() == new["close"].item() * 0.4
    assert judged(market, new.assign(symbol="NOSUCH")) == [("refused", "unknown_symbol")]
    again = bar(raw, -7)
    adjusted.loc[adjusted["date"] == again["date"].item(), "adj_close"] *= 0.99
    market = live_market(adjusted[adjusted["date"] < np.sort(raw["date"].unique())[-5]])
    assert judged(market, again) == [("repeated", "")]
    _, taken = market.judge(again.assign(close=again["low"]))
    assert taken["adj_close"].item() == pytest.approx(again["low"].item() * 0.5 * 0.99, rel=1e-12)
