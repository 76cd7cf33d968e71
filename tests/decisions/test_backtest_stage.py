import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.calendar import session_close, session_date
from pitwise.decisions.backtest import Costs
from pitwise.decisions.backtest_stage import run
from pitwise.decisions.performance import MEASURES
from pitwise.decisions.portfolios import Limits
from pitwise.decisions.prices import prices
from pitwise.decisions.rebalance import read_holdings, rebalance
from pitwise.decisions.strategies import BacktestParams, allocated, candidates, equal, ranked, sectors_of
from pitwise.errors import DataError

PARAMS = BacktestParams(
    kind=None,
    k=3,
    trade_at="open",
    capital=1e6,
    rebalance_sessions=1,
    allocation_sessions=10,
    covariance_sessions=20,
    risk_aversion=5.0,
    costs=Costs(),
    limits=Limits(),
    random_signals=5,
    bootstrap_samples=100,
    seed=7,
).model_copy(update={"bootstrap_samples": 10})  # fewer than a person may ask for: they take the time
NAN = np.nan
N, SESSIONS, FIRST = 12, 60, 30
"""Symbols, sessions, and the first session with forecasts."""


@pytest.fixture(scope="module")
def market():
    """Clean bars without splits, and the log return of each open to the next."""
    rng = np.random.default_rng(7)
    opens = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (SESSIONS, N)), axis=0))
    days = session_date(np.arange(11_600, 11_600 + SESSIONS))
    bars = pd.DataFrame(
        {
            "symbol": np.tile([f"S{i:02}" for i in range(N)], SESSIONS),
            "date": np.repeat(days, N),
            "open": opens.ravel(),
            "close": opens.ravel(),
            "volume": 1e6,
            "price_factor": 1.0,
            "share_factor": 1.0,
        }
    )
    ahead = np.full((SESSIONS, N), np.nan)
    ahead[:-2] = np.log(opens[2:] / opens[1:-1])
    return prices(bars), bars, ahead


def forecasts(bars, log_return):
    table = bars[["symbol"]].assign(
        event_timestamp=session_close(bars["date"]),
        score=log_return.ravel(),
        log_return=log_return.ravel(),
        p_up=0.5 + np.sign(log_return.ravel()) / 10,
        label=log_return.ravel(),
        label_open=log_return.ravel(),
    )
    return table[bars["date"] >= bars["date"].unique()[FIRST]].dropna()


def test_who_knows_the_future_is_above_chance_and_who_knows_nothing_is_not_ranked(market):
    history, bars, ahead = market
    tables = {"lstm": forecasts(bars, ahead), "drift": forecasts(bars, ahead * 0 + 0.001)}
    report = run(history, tables, PARAMS, champion="ann", recorded=[0.1, 0.2]).document
    json.dumps(report, allow_nan=False)
    assert {"lstm_top", "lstm_long_short", "equal_weight", "market", "mean_variance"} < set(report)
    assert "drift_top" not in report
    assert set(MEASURES) < set(report["lstm_top"])
    assert report["lstm_top"]["above_random"]["sharpe"] == 1
    assert report["lstm_long_short"]["sharpe"]["value"] > 5
    assert report["claims"]["buy_recall"]["value"] == 1
    assert report["setup"]["kind"] == "lstm"
    # The ledger's two, and of lstm two by rank and three by covariance.
    assert report["setup"]["trials"] == 2 + 2 + 3
    over = report["lstm_top"]["return_over_equal_weight"]
    assert over["ci95"][0] < over["value"] < over["ci95"][1]
    # The decision of the last session with forecasts is traded in the one after it.
    assert report["setup"]["n_sessions"] == SESSIONS - 2 - FIRST


def test_forecasts_that_cannot_be_traded_are_refused(market):
    history, bars, ahead = market
    with pytest.raises(DataError, match="nothing to trade on"):
        run(history, {"drift": forecasts(bars, ahead * 0 + 0.001)}, PARAMS)
    with pytest.raises(DataError, match="ann has no forecasts"):
        run(history, {"lstm": forecasts(bars, ahead)}, PARAMS.model_copy(update={"kind": "ann"}))
    strange = forecasts(bars, ahead).assign(symbol="X")
    with pytest.raises(DataError, match="of other data"):
        run(history, {"lstm": strange}, PARAMS)


def test_decisions_are_as_often_as_the_params_say():
    scores = np.arange(12.0).reshape(4, 3)
    scores[1] = np.nan
    params = PARAMS.model_copy(update={"k": 1, "rebalance_sessions": 2})
    targets = ranked(scores, "top", params)
    assert np.isfinite(targets[:, 0]).tolist() == [True, False, False, True]  # of those with scores
    assert targets[3].tolist() == [0, 0, 1]
    # By default as often as the forecasts look ahead.
    ahead = params.model_copy(update={"rebalance_sessions": None})
    np.testing.assert_array_equal(ranked(scores, "top", ahead, horizon=2), targets)


def test_equal_weight_is_of_what_is_forecast(market):
    history, _, _ = market
    scores = np.full(history.close.shape, NAN)
    scores[0, :3] = 1.0
    usable = candidates(history, scores)
    assert equal(usable, PARAMS)[0].tolist() == [1 / 3] * 3 + [0] * (N - 3)
    assert usable[1].all()  # nothing is forecast: all that has a bar


def test_sectors_hold_from_day_to_day(market):
    history, _, _ = market
    days = history.sessions
    intervals = pd.DataFrame(
        {
            "symbol": ["S01", "S01", "GONE"],
            "from": [days[0], days[5], days[0]],
            "to": [days[5], pd.NaT, pd.NaT],
            "value": ["tech", "media", "tech"],
        }
    )
    found = sectors_of(intervals, history)
    assert found[:, 1].tolist() == ["tech"] * 5 + ["media"] * (SESSIONS - 5)
    assert set(found[:, 0]) == {""}
    assert sectors_of(None, history) is None
    # Of the best three two are of one sector, which may have a third.
    params = PARAMS.model_copy(update={"limits": Limits(sector=1 / 3)})
    scores = np.tile(np.arange(N, 0.0, -1), (6, 1))
    sectors = found[:6].copy()
    sectors[:, 2] = "media"
    targets = ranked(scores, "top", params, sectors=sectors)
    assert targets[4, :3] == pytest.approx([1 / 3] * 3)
    assert targets[5, :3] == pytest.approx([1 / 3, 1 / 6, 1 / 6])
    # So are portfolios by covariance.
    usable, of = np.full((1, N), True), np.full((1, N), "tech", dtype=object)
    first = history.sessions[-1]
    (weights,) = allocated(history, first, usable, usable * 0.0, "minimum_variance", params, of)
    assert weights.sum() == pytest.approx(1 / 3)


def test_weights_by_covariance_use_nothing_later(market):
    history, _, _ = market
    first = history.sessions[FIRST]
    expected = np.zeros((SESSIONS - FIRST, N))
    usable = np.full(expected.shape, True)
    whole = allocated(history, first, usable, expected, "minimum_variance", PARAMS)
    cut = history.between(history.sessions[0], history.sessions[FIRST + 10])
    part = allocated(cut, first, usable[:11], expected[:11], "minimum_variance", PARAMS)
    np.testing.assert_array_equal(part, whole[:11])
    assert whole[0].sum() == pytest.approx(1)


def forecast(history):
    """The first symbol's return is the largest."""
    return pd.DataFrame({"log_return": np.linspace(0.03, -0.03, N)}, index=history.symbols)


def test_the_score_ranks_where_there_is_one(market):
    history, _, _ = market
    said = forecast(history).assign(score=np.arange(N), horizon=5)
    orders = rebalance(history, said, pd.Series(dtype=float), 1e6, "top", PARAMS)
    assert sorted(orders["symbol"]) == ["S09", "S10", "S11"]


@pytest.mark.parametrize("strategy", ["top", "equal_weight"])
def test_what_is_suspect_or_has_no_bar_is_left_alone(market, strategy):
    history, _, _ = market
    halted = replace(history, close=history.close.copy())
    halted.close[-1, 3] = NAN
    doubt = pd.Series([None, "split", *[None] * (N - 2)], index=history.symbols)
    said = forecast(history).assign(suspect=doubt)
    held = pd.Series({"S01": 5.0, "S03": 7.0})
    orders = rebalance(halted, said, held, 1e5, strategy, PARAMS)
    assert {"S00", "S02"} < set(orders["symbol"])
    assert not {"S01", "S03"} & set(orders["symbol"])
    # They keep their part of the equity, and nothing else is bought with it.
    kept = 5 * history.close[-1, 1] + 7 * history.close[-2, 3]
    assert 0.98 < orders["after"].sum() + kept / (1e5 + kept) <= 1


def test_orders_lead_to_the_largest_forecasts(market):
    history, _, _ = market
    close = history.close[-1]
    said = forecast(history)
    held = pd.Series({"S11": 100.0, "S00": 10.0})
    orders = rebalance(history, said, held, 10_000.0, "top", PARAMS).set_index("symbol")
    assert sorted(orders.index) == ["S00", "S01", "S02", "S11"]
    total = 10_000 + 100 * close[11] + 10 * close[0]
    wanted = np.trunc(total / 3 / close[:3])
    assert orders.loc["S01", "shares"] == wanted[1]
    assert orders.loc["S00", "shares"] == wanted[0] - 10
    assert orders.loc["S11", ["side", "shares", "after"]].tolist() == ["sell", 100, 0]
    assert orders.loc["S11", "why"] == "closed in top: forecast 12 of 12"
    assert orders.loc["S01", "why"] == "new in top: forecast 2 of 12"
    assert orders.loc["S11", "expected"] == pytest.approx(-np.expm1(-0.03) * 100 * close[11])
    # What they cost is left.
    whole = rebalance(history, said, pd.Series(dtype=float), 1e8, "top", PARAMS)
    assert 0 < whole["cost"].sum() < 1e8 - whole["dollars"].sum() < 1.1 * whole["cost"].sum()
    # Commission and half-spread are 2.5 bp; impact comes on top.
    assert (orders["cost"] > 2.5e-4 * orders["dollars"]).all()
    after = wanted @ close[:3]
    assert orders["after"].sum() == pytest.approx(after / total)


@pytest.mark.parametrize(
    "strategy",
    ["long_short", "equal_weight", "minimum_variance", "hierarchical_risk_parity", "mean_variance"],
)
def test_every_strategy_has_orders(market, strategy):
    history, _, _ = market
    said = forecast(history)
    limited = PARAMS.model_copy(update={"limits": Limits(position=0.3)})
    orders = rebalance(history, said, pd.Series(dtype=float), 1e6, strategy, limited)
    assert len(orders) > 1
    assert orders["after"].abs().max() <= 0.3
    assert not orders.isna().any().any()


def test_holdings_that_cannot_be_used_are_refused(market, tmp_path):
    history, _, _ = market
    said = forecast(history)
    with pytest.raises(DataError, match="have XYZ"):
        rebalance(history, said, pd.Series({"XYZ": 1.0}), 0, "top", PARAMS)
    with pytest.raises(DataError, match="nothing to invest"):
        rebalance(history, said, pd.Series(dtype=float), 0, "top", PARAMS)
    path = tmp_path / "h.csv"
    for text, says in (
        ("symbol,n\nA,1\n", "no column shares"),
        ("symbol,shares\nA,some\n", "row 2: shares are 'some'"),
        ("symbol,shares\nA,1\nA,2\n", "A is there twice"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            read_holdings(path)
    with pytest.raises(DataError, match="no such file"):
        read_holdings(tmp_path / "none.csv")
    path.write_text("symbol,shares\nNA,3\n")  # a ticker, not a gap
    assert read_holdings(path).to_dict() == {"NA": 3}
