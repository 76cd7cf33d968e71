"""`pitwise lookahead`: planted leaks are caught, honest functions pass."""

import json

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from typer.testing import CliRunner

from pitwise.bars.calendar import is_session
from pitwise.errors import DataError
from pitwise.evaluation.lookahead import (
    as_bars,
    calendar_events,
    coverage_rank_ic,
    indicators,
    load_signal,
    lookahead,
)
from training import cli

SESSIONS = 60


def market(symbols: int = 6, sessions: int = SESSIONS, seed: int = 0) -> pd.DataFrame:
    """Random walks; the last symbol is listed at two thirds, the first is delisted before the end."""
    rng = np.random.default_rng(seed)
    days = pd.Series(pd.date_range("2014-01-02", periods=2 * sessions))
    days = days[is_session(days)].iloc[:sessions].to_numpy()
    close = 50 * np.exp(rng.normal(0, 0.02, (symbols, sessions)).cumsum(axis=1))
    bars = pd.DataFrame({"symbol": np.repeat([f"S{i}" for i in range(symbols)], sessions)})
    bars = bars.assign(date=np.tile(days, symbols), close=close.ravel())
    bars = bars.assign(open=bars["close"], high=bars["close"] * 1.01, low=bars["close"] * 0.99)
    bars["volume"] = rng.integers(1000, 9000, len(bars)).astype(float)
    listed_late = (bars["symbol"] == f"S{symbols - 1}") & (bars["date"] < days[sessions * 2 // 3])
    delisted = (bars["symbol"] == "S0") & (bars["date"] > days[-4])
    return as_bars(bars[~listed_late & ~delisted])


BARS = market()


def by_symbol(bars):
    return bars.groupby("symbol")["close"]


def centred(bars):
    return by_symbol(bars).transform(lambda s: s.rolling(5, center=True, min_periods=1).mean())


def whole_sample_z(bars):
    return by_symbol(bars).transform(lambda s: (s - s.mean()) / s.std())


def tomorrow(bars):
    return by_symbol(bars).shift(-1)


def backfilled(bars):
    rising = bars["close"].where(by_symbol(bars).diff() > 0)
    return rising.groupby(bars["symbol"]).bfill()


def share_of_all_symbols(bars):
    return bars.groupby("timestamp")["close"].rank() / bars["symbol"].nunique()


def survivors_alone(bars):
    last = bars.groupby("symbol")["timestamp"].transform("max")
    return bars["close"].where(last == bars["timestamp"].max())


def unseeded(bars):
    return pd.Series(np.random.default_rng().random(len(bars)), bars.index)


LEAKS = {
    centred: {"value"},
    whole_sample_z: {"value"},
    tomorrow: {"presence"},
    backfilled: {"presence"},
    share_of_all_symbols: {"value", "symbols"},
    survivors_alone: {"presence"},
    unseeded: {"determinism"},
}


@pytest.mark.unit
@pytest.mark.parametrize("signal", LEAKS, ids=lambda signal: signal.__name__)
def test_a_planted_leak_is_caught(signal):
    found = {one.check for one in lookahead(signal, BARS, cuts=5).findings}
    assert found - {"symbols"} == LEAKS[signal] - {"symbols"}
    assert found >= LEAKS[signal]


@pytest.mark.unit
def test_the_example_is_what_the_function_says_with_and_without_the_future():
    [one] = lookahead(tomorrow, BARS, cuts=1).findings
    row = BARS[(BARS["symbol"] == one.symbol) & (BARS["timestamp"] == one.session)].index[0]
    assert one.session == one.cut
    assert one.now == BARS["close"][row + 1]
    assert one.then is None
    assert one.rows == (BARS["timestamp"] == one.cut).sum()


HONEST = {
    "mean": lambda bars, n: by_symbol(bars).rolling(n, min_periods=1).mean(),
    "ewm": lambda bars, n: by_symbol(bars).transform(lambda s: s.ewm(span=n).mean()),
    "expanding": lambda bars, n: by_symbol(bars).transform(lambda s: s - s.expanding().max()),
    "lag": lambda bars, n: by_symbol(bars).shift(n),
    "rank": lambda bars, n: by_symbol(bars).pct_change(n).groupby(bars["timestamp"]).rank(pct=True),
    "ragged": lambda bars, n: bars.loc[bars["timestamp"].dt.day > n, "close"],
    "keyed": lambda bars, n: bars.set_index(["symbol", "timestamp"])[["close", "volume"]] * n,
}


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(HONEST)), st.integers(1, 20), st.integers(0, 5))
def test_a_function_of_the_past_passes(name, n, seed):
    assert lookahead(lambda bars: HONEST[name](bars, n), BARS, cuts=2, seed=seed).findings == []


@pytest.mark.unit
def test_the_built_in_features_pass():
    answer = lookahead(indicators, BARS, cuts=3)
    assert len(answer.columns) == 39
    assert answer.findings == []


# A table with the instant from which each row was known.

DAYS = np.sort(BARS["timestamp"].unique())


def events(known_after_days: int) -> pd.DataFrame:
    """An event of every symbol in every tenth session."""
    rows = pd.MultiIndex.from_product(
        [[f"S{i}" for i in range(6)], DAYS[5::10]], names=["symbol", "date"]
    )
    table = rows.to_frame(index=False).assign(kind="earnings", value=np.arange(len(rows), dtype=float))
    known = table["date"].dt.tz_localize("UTC") + pd.Timedelta(hours=20, days=known_after_days)
    return table.assign(known_at=known)


def last_value(bars, table, on):
    table = table.assign(timestamp=pd.to_datetime(table[on]).dt.tz_localize(None).dt.normalize())
    joined = pd.merge_asof(
        bars.reset_index().sort_values("timestamp"),
        table[["symbol", "timestamp", "value"]].sort_values("timestamp", kind="stable"),
        on="timestamp",
        by="symbol",
    )
    return joined.set_index("index")["value"]


@pytest.mark.unit
def test_a_row_that_is_used_before_it_was_known_is_caught():
    on_date = lookahead(lambda b, t: last_value(b, t, "date"), BARS, events(3), cuts=2).findings
    assert {one.check for one in on_date} == {"known_at"}
    assert lookahead(lambda b, t: last_value(b, t, "known_at"), BARS, events(3), cuts=2).findings == []


@pytest.mark.unit
def test_a_list_of_those_that_rose_later_is_caught_by_its_coverage_alone():
    bars = market(40, 120, seed=3)
    grew = bars.groupby("symbol")["close"].agg(lambda s: s.iloc[-1] / s.iloc[0]).sort_values()
    table = events(0).iloc[:20].assign(symbol=grew.index[-20:].to_numpy())
    [one] = lookahead(lambda b, t: b["close"], bars, table, cuts=2).findings
    assert one.check == "coverage"
    assert one.now > 2
    by_chance = table.assign(symbol=[f"S{i}" for i in range(0, 40, 2)])
    assert lookahead(lambda b, t: b["close"], bars, by_chance, cuts=2).findings == []


@pytest.mark.unit
def test_the_rank_ic_of_coverage_by_hand():
    """A and B are in the table, C is not: ranks 2.5, 2.5, 1; of returns 3, 2, 1 and 2, 3, 1."""
    closes = {"A": (10, 12, 13), "B": (10, 11, 13), "C": (10, 10, 9)}
    rows = [
        (name, day, price, price, price, price, 1.0)
        for name, prices in closes.items()
        for day, price in zip(DAYS, prices, strict=False)
    ]
    bars = as_bars(pd.DataFrame(rows, columns=[*BARS.columns[:1], "date", *BARS.columns[2:]]))
    found = coverage_rank_ic(bars, pd.DataFrame({"symbol": ["A", "B"]}))
    assert found.rank_ic == pytest.approx(np.sqrt(3) / 2)
    assert found.rows == 6


@pytest.mark.unit
def test_a_list_of_survivors_made_afterwards_is_named_for_what_it_is():
    """Ten of twenty symbols fall until they are delisted; the list has the others, in three datings."""
    bars = market(20, 120, seed=5)
    number = bars["symbol"].str[1:].astype(int)
    doomed = number < 10
    day = bars.groupby("symbol").cumcount()
    bars["close"] = np.where(doomed, bars["close"] * np.exp(-0.02 * day), bars["close"])
    bars = bars[~doomed | (day < 100)].reset_index(drop=True)
    table = events(0)[["date", "kind", "value"]].drop_duplicates("date")
    table = pd.DataFrame({"symbol": [f"S{i}" for i in range(10, 20)]}).merge(table, how="cross")
    honest = table["date"].dt.tz_localize("UTC") + pd.Timedelta(hours=20)

    def found(known_at):
        checked = lookahead(lambda b, t: b["close"], bars, table.assign(known_at=known_at), cuts=2)
        return {one.check: one for one in checked.findings}

    # Every date was known on its day, and still: who is in the list is who survived.
    [coverage] = found(honest).values()
    assert coverage.check == "coverage"
    assert min(coverage.now, coverage.then) > 2
    made = pd.Timestamp("2025-01-01", tz="UTC")
    assert set(found(made)) == {"coverage", "known_late", "known_at_once", "backfilled"}
    assert found(made)["coverage"].then is None
    # The dates of half of them are filled in later; S19 is not listed yet.
    later = honest.where(table["symbol"] < "S15", honest + pd.Timedelta(days=400))
    backfilled = found(later)["backfilled"]
    assert (backfilled.symbol, backfilled.now, backfilled.then) == ("S15", 9, 5)


@pytest.mark.unit
def test_the_calendars_own_columns_pass_and_an_event_of_days_ago_is_no_backfill():
    answer = lookahead(calendar_events, BARS, events(9), cuts=2)
    assert answer.columns == ["sessions_since", "value", "age_days"]
    assert answer.findings == []


@pytest.mark.unit
@pytest.mark.parametrize(
    ("signal", "says"),
    [
        (lambda bars: bars["close"].to_numpy(), "returns ndarray"),
        (lambda bars: bars.groupby("symbol")["close"].last(), "cannot be aligned"),
        (lambda bars: bars["symbol"], "what is no number"),
        (lambda bars: bars["adj_close"], "fails on the bars up to 2014-.*KeyError: 'adj_close'"),
    ],
)
def test_a_function_that_cannot_be_checked_is_told_why(signal, says):
    with pytest.raises(DataError, match=says):
        lookahead(signal, BARS)


@pytest.mark.unit
def test_the_command_finds_a_leak_of_a_file_and_says_so_in_json(tmp_path, monkeypatch):
    BARS.rename(columns={"timestamp": "date"}).to_csv(tmp_path / "prices.csv", index=False)
    (tmp_path / "own.py").write_text(
        "def ahead(bars):\n    return bars.groupby('symbol')['close'].shift(-1)\n"
        "def back(bars):\n    return bars.groupby('symbol')['close'].shift(1)\n"
    )
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        return CliRunner().invoke(
            cli.app, ["lookahead", *arguments, "--data", "prices.csv", "--cuts", "2"]
        )

    done = run("own.py:ahead", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert not report["passed"]
    assert [one["check"] for one in report["findings"]] == ["presence"]
    assert len(report["cuts"]) == 2
    shown = run("own.py:ahead").stdout
    assert report["findings"][0]["session"] in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert run("own:back").exit_code == 0
    with pytest.raises(DataError, match="has no function 'nix'"):
        load_signal("own.py:nix", tmp_path)
