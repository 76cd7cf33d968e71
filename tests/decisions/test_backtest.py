import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.decisions.backtest import FREE, PARTS, Costs, backtest
from pitwise.decisions.prices import Prices, prices
from pitwise.errors import DataError

NAN = np.nan


def market(opens, closes, volume=1e9, split=None, distribution=None):
    opens, closes = np.array(opens, dtype=float), np.array(closes, dtype=float)
    n_sessions, n_symbols = closes.shape
    return Prices(
        sessions=pd.bdate_range("2016-01-04", periods=n_sessions),
        symbols=pd.Index([f"S{i:03}" for i in range(n_symbols)]),
        open=opens,
        close=closes,
        dollar_volume=np.where(np.isfinite(closes), volume, 0.0),
        split=np.ones_like(closes) if split is None else np.array(split, dtype=float),
        distribution=np.zeros_like(closes)
        if distribution is None
        else np.array(distribution, dtype=float),
    )


def targets(*rows):
    """Rows of weights; None is no decision."""
    n = len(next(row for row in rows if row is not None))
    return np.array([[NAN] * n if row is None else row for row in rows], dtype=float)


def test_three_sessions_by_hand():
    # 1,000 dollars. Decided at the first close: half in A. At the second open A is 10: 50 shares for
    # 500. Its close of 12 makes 600 + 500 cash. The second decision is all cash: at the third open of 11
    # the 50 shares bring 550, so 1,050. Each trade costs 10 bp and 20 bp: 1.50 and 1.65.
    given_prices = market([[9], [10], [11]], [[9], [12], [20]])
    costs = Costs(commission_bp=10, half_spread_bp=20, impact=0, borrow_bp=0)
    result = backtest(given_prices, targets([0.5], [0.0], None), costs, capital=1000)
    assert result.equity == pytest.approx([1000, 1100 - 1.5, 1050 - 1.5 - 1.65])
    assert result.cash == pytest.approx([1000, 498.5, 1046.85])
    assert result.shares[:, 0] == pytest.approx([0, 50, 0])
    assert result.traded == pytest.approx([0, 500, 550])
    assert result.costs[1:, :2] == pytest.approx(np.array([[0.5, 1.0], [0.55, 1.1]]))
    assert result.returns().iloc[1] == pytest.approx(0.0985)


def test_at_the_close_it_is_the_next_one_that_is_traded():
    given_prices = market([[9], [10], [11]], [[8], [12], [18]])
    result = backtest(given_prices, targets([1.0], None, None), capital=1200, trade_at="close")
    assert result.equity == pytest.approx([1200, 1200, 1800])  # 100 shares at 12, not at 8


def test_positions_drift_between_decisions():
    given_prices = market([[1, 1], [10, 10], [10, 10]], [[1, 1], [20, 10], [30, 10]])
    result = backtest(given_prices, targets([0.5, 0.5], None, None), capital=100)
    assert result.shares[2] == pytest.approx([5, 5])
    assert result.equity == pytest.approx([100, 150, 200])
    assert result.of_equity()["gross"].iloc[2] == pytest.approx(1)


def test_what_is_short_gains_from_a_fall_and_pays_for_the_night():
    given_prices = market([[10], [10]], [[10], [8]])
    costs = Costs(commission_bp=0, half_spread_bp=0, impact=0, borrow_bp=252)
    result = backtest(given_prices, targets([-1.0], None), costs, capital=1000)
    # 100 shares short, 800 dollars at the close, of which 252 bp a year are 1 bp a session: 0.08.
    assert result.equity[1] == pytest.approx(1200 - 0.08)
    assert result.of_equity()["net"].iloc[1] == pytest.approx(-800 / 1199.92)


def test_impact_is_the_square_root_of_the_share_of_the_volume():
    given_prices = market([[10], [10]], [[10], [10]])
    result = backtest(
        given_prices,
        targets([1.0], None),
        Costs(commission_bp=0, half_spread_bp=0, impact=0.5, borrow_bp=0),
        capital=400,
        volatility=np.full((2, 1), 0.02),
        usual_volume=np.full((2, 1), 40_000.0),
    )
    # A hundredth of the volume: 0.5 x 2% x sqrt(0.01) = 10 bp of 400 dollars.
    assert result.costs[1] == pytest.approx([0, 0, 0.4, 0])


@pytest.mark.parametrize("how", ["no bar", "no volume"])
def test_a_halt_is_not_traded_and_keeps_its_last_close(how):
    opens, closes = [[10], [10], [10], [10]], [[10], [12], [12], [15]]
    volume = np.array([[1e9], [1e9], [0.0], [1e9]])
    if how == "no bar":
        opens[2], closes[2] = [NAN], [NAN]
    given_prices = market(opens, closes, volume)
    result = backtest(given_prices, targets([1.0], [0.0], None, None), capital=100)
    assert result.shares[:, 0] == pytest.approx([0, 10, 10, 10])
    assert result.equity == pytest.approx([100, 120, 120, 150])
    assert result.traded[2] == 0


def test_what_cannot_be_sold_buys_nothing():
    # A is halted when all is to go from A and B to B and C: its half stays, so B and C share the other.
    opens, closes = np.full((4, 3), 10.0), np.full((4, 3), 10.0)
    opens[2, 0] = closes[2, 0] = NAN
    wanted = targets([0.5, 0.5, 0], [0, 0.5, 0.5], None, None)
    result = backtest(market(opens, closes), wanted, capital=100)
    assert result.shares[2] == pytest.approx([5, 2.5, 2.5])
    assert result.of_equity()["gross"].iloc[2] == pytest.approx(1)


def test_a_delisted_long_loses_the_haircut_and_a_short_pays_in_full():
    closes = [[10, 10], [10, 10], [NAN, 10]]
    costs = Costs(commission_bp=0, half_spread_bp=0, impact=0, borrow_bp=0, delisting_haircut=0.3)
    long = backtest(market(closes, closes), targets([1.0, 0.0], None, None), costs, capital=100)
    short = backtest(market(closes, closes), targets([-1.0, 0.0], None, None), costs, capital=100)
    assert long.equity == pytest.approx([100, 100, 70])
    assert short.equity == pytest.approx([100, 100, 100])
    assert (long.shares[2] == 0).all()
    assert long.cash[2] == pytest.approx(70)


def test_shares_follow_a_split_and_distributions_are_cash():
    # 10 shares at 10 become 20 at 5; then each of the 20 is paid 1 dollar and falls from 5 to 4.
    given_prices = market(
        [[10], [10], [5], [4]],
        [[10], [10], [5], [4]],
        split=[[1], [1], [2], [1]],
        distribution=[[0], [0], [0], [1]],
    )
    result = backtest(given_prices, targets([1.0], None, None, None), capital=100)
    assert result.shares[:, 0] == pytest.approx([0, 10, 20, 20])
    assert result.cash == pytest.approx([100, 0, 0, 20])
    assert result.equity == pytest.approx([100, 100, 100, 100])
    assert given_prices.total_returns()[1:, 0] == pytest.approx([0, 0, 0])


def test_what_the_factors_say_of_splits_dividends_and_spin_offs():
    days = pd.to_datetime(["2016-01-04", "2016-01-05", "2016-01-06", "2016-01-07"])
    bars = pd.DataFrame(
        {
            "symbol": "A",
            "date": days,
            "open": [100.0, 50, 48, 36],
            "close": [100.0, 50, 48, 36],
            "volume": [10.0, 20, 20, 20],
            "share_factor": [1.0, 2, 2, 2],
            # A split of two; then 2 dollars of a close of 50: the factor grows by 1 / (1 - 2 / 50).
            "price_factor": [1.0, 2, 2 / 0.96, 2 / 0.96],
        }
    )
    events = pd.DataFrame(
        {
            "symbol": ["A", "A"],
            "date": days[[3, 1]],
            "kind": "spin_off",
            "status": ["confirmed", "withdrawn"],
            "price_ratio": [0.75, 0.5],
        }
    )
    found = prices(bars, events)
    assert found.split[:, 0] == pytest.approx([1, 2, 1, 1])
    assert found.distribution[:, 0] == pytest.approx([0, 0, 2, 12])
    assert found.total_returns()[1:, 0] == pytest.approx([0, 0, 0])
    assert found.dollar_volume[:, 0] == pytest.approx([1000, 1000, 960, 720])


def test_bars_that_cannot_be_traded_are_refused():
    one = pd.DataFrame({"symbol": ["A"], "date": pd.to_datetime(["2016-01-04"])})
    with pytest.raises(DataError, match="no bars"):
        prices(one.iloc[:0])
    with pytest.raises(DataError, match="several bars"):
        prices(pd.concat([one, one]))


@pytest.mark.parametrize(
    ("rows", "capital", "says"),
    [
        ([[1.0]], 100, "Make one for each"),
        ([[0.5, NAN], [0.5, 0.5], [0.5, 0.5]], 100, "2016-01-04: a target is not a number"),
        ([[0.5, 0.5]] * 3, 0, "has to be above 0"),
        ([[-9.0, 0.0]] * 3, 100, "the capital is lost"),
    ],
)
def test_what_cannot_be_traded_is_refused(rows, capital, says):
    closes = [[10, 10], [10, 10], [20, 10]]
    with pytest.raises(DataError, match=says):
        backtest(market(closes, closes), np.array(rows), capital=capital)


def reference(given_prices, wanted, costs, capital, volatility, volume):
    """The same backtest from its definition, a symbol at a time, in plain Python."""
    n_sessions, n_symbols = given_prices.close.shape
    has = np.isfinite(given_prices.close)
    shares, last, cash, equities = [0.0] * n_symbols, [0.0] * n_symbols, capital, []
    for t in range(n_sessions):
        for i in range(n_symbols):
            cash += shares[i] * given_prices.distribution[t, i]
            shares[i] *= given_prices.split[t, i]
            last[i] /= given_prices.split[t, i]
            if t and has[:t, i].any() and not has[t:, i].any() and has[t - 1, i]:
                gone = shares[i] * last[i]
                cash += gone * (1 - costs.delisting_haircut) if gone > 0 else gone
                shares[i] = 0.0
        if t and not np.isnan(wanted[t - 1, 0]):
            can = [has[t, i] and given_prices.dollar_volume[t, i] > 0 for i in range(n_symbols)]
            at = [given_prices.open[t, i] if can[i] else last[i] for i in range(n_symbols)]
            total = cash + sum(shares[i] * at[i] for i in range(n_symbols))
            stuck = sum(abs(shares[i] * at[i]) for i in range(n_symbols) if not can[i]) / total
            gross = sum(abs(wanted[t - 1, i]) for i in range(n_symbols) if can[i])
            room = max(sum(abs(wanted[t - 1, i]) for i in range(n_symbols)) - stuck, 0)
            cut = min(1.0, room / gross) if gross else 1.0
            for i in range(n_symbols):
                if can[i]:
                    dollars = cut * wanted[t - 1, i] * total - shares[i] * at[i]
                    rate = (costs.commission_bp + costs.half_spread_bp) / 10_000
                    rate += (
                        costs.impact * volatility[t - 1, i] * (abs(dollars) / volume[t - 1, i]) ** 0.5
                    )
                    cash -= dollars + abs(dollars) * rate
                    shares[i] = cut * wanted[t - 1, i] * total / at[i]
        for i in range(n_symbols):
            last[i] = given_prices.close[t, i] if has[t, i] else last[i]
            cash -= max(-shares[i] * last[i], 0) * costs.borrow_bp / 10_000 / 252
        equities.append(cash + sum(shares[i] * last[i] for i in range(n_symbols)))
    return equities


def drawn_market(seed, n_sessions=12, n_symbols=4):
    """Prices with halts, delistings, splits and distributions, and targets of some sessions."""
    rng = np.random.default_rng(seed)
    shape = n_sessions, n_symbols
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, shape), axis=0))
    opens = closes * np.exp(rng.normal(0, 0.01, shape))
    halted = rng.random(shape) < 0.15
    halted[0] = False
    halted[rng.integers(3, n_sessions) :, rng.integers(n_symbols)] = True
    bars = ~halted
    split = np.where(bars & (rng.random(shape) < 0.05), 2.0, 1.0)
    distribution = np.where(bars & (rng.random(shape) < 0.05), 0.5, 0.0)
    split[0], distribution[0] = 1.0, 0.0
    basis = np.cumprod(split, axis=0)
    opens, closes = opens / basis, closes / basis
    opens[halted] = closes[halted] = NAN
    volume = np.where(rng.random(shape) < 0.05, 0.0, 1e6)
    weights = rng.normal(0.1, 0.2, shape)
    weights[rng.random(n_sessions) < 0.4] = NAN
    return market(opens, closes, volume, split, distribution), weights, rng.uniform(0.01, 0.05, shape)


ALL_COSTS = Costs(commission_bp=3, half_spread_bp=5, impact=0.7, borrow_bp=90, delisting_haircut=0.2)


@pytest.mark.parametrize(
    ("trade_at", "equity"),
    [
        (
            "open",
            """997746.8655894103 846576.7926844826 913773.481795267 902170.7309198688
            820173.6350012472 881360.2099102602 917028.0997927902""",
        ),
        (
            "close",
            """999100.0 848628.4982303128 911348.4675093193 896641.951143181
            815247.2480875789 874905.5190626644 920454.772235735""",
        ),
    ],
)
def test_it_is_what_vectorbt_says(trade_at, equity):
    # vectorbt 1.2.0: from_orders(size_type="targetpercent", val_price=price, fees=0.001, cash_sharing).
    # benchmarks/backtest.py asks it anew, of ten years of 500 symbols.
    at = np.arange(24.0).reshape(8, 3)
    closes = 50 + 10 * np.sin(at**2)
    decided = {0: [0.5, 0.3, 0.1], 2: [0.0, 0.6, 0.3], 3: [-0.2, 0.5, 0.4], 6: [0.3, 0.3, 0.3]}
    wanted = targets(*(decided.get(i) for i in range(8)))
    costs = Costs(commission_bp=10, half_spread_bp=0, impact=0, borrow_bp=0)
    given_prices = market(closes + np.cos(at**3), closes)
    result = backtest(given_prices, wanted, costs, 1e6, trade_at)
    np.testing.assert_allclose(result.equity, [1e6, *map(float, equity.split())], rtol=1e-8)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_it_is_what_its_definition_says(seed):
    given_prices, wanted, volatility = drawn_market(seed)
    volume = np.full(volatility.shape, 2e6)
    result = backtest(given_prices, wanted, ALL_COSTS, 1e5, "open", volatility, volume)
    expected = reference(given_prices, wanted, ALL_COSTS, 1e5, volatility, volume)
    np.testing.assert_allclose(result.equity, expected, rtol=1e-10)


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_what_holds_for_every_market(seed):
    given_prices, wanted, volatility = drawn_market(seed)
    volume = np.full(volatility.shape, 2e6)
    result = backtest(given_prices, wanted, ALL_COSTS, 1e5, "open", volatility, volume)
    assert np.isfinite(result.equity).all()
    last = pd.DataFrame(given_prices.close).ffill().to_numpy()
    # Cash and holdings add up, and what is delisted is not held.
    np.testing.assert_allclose(result.equity, result.cash + (result.shares * last).sum(axis=1))
    # No trade without a bar or volume, nor without a decision, beside the closing of what is delisted.
    has = np.isfinite(given_prices.close)
    delisted = ~np.logical_or.accumulate(has[::-1])[::-1]
    assert not result.shares[delisted].any()
    tradable = has & (given_prices.dollar_volume > 0) & np.isfinite(np.roll(wanted, 1, axis=0)[:, [0]])
    still = (~tradable & ~delisted)[1:]
    kept = result.shares[:-1] * given_prices.split[1:]
    np.testing.assert_array_equal(result.shares[1:][still], kept[still])
    assert (result.costs >= 0).all()
    assert result.costs.shape[1] == len(PARTS)
    # A larger capital earns the same in a market that trades as much more, and anywhere without impact.
    deeper = backtest(given_prices, wanted, ALL_COSTS, 7e8, "open", volatility, 7e3 * volume)
    np.testing.assert_allclose(result.returns(), deeper.returns(), rtol=1e-9, atol=1e-12)
    linear = ALL_COSTS.model_copy(update={"impact": 0.0})
    small, large = (backtest(given_prices, wanted, linear, capital) for capital in (1e5, 7e8))
    np.testing.assert_allclose(small.returns(), large.returns(), rtol=1e-9, atol=1e-12)
    # And no cost takes nothing away.
    assert backtest(given_prices, wanted, FREE, 1e5).costs.sum() == 0


def test_what_comes_after_a_decision_does_not_change_the_past():
    given_prices, wanted, _ = drawn_market(3)
    before = backtest(given_prices, wanted, ALL_COSTS).equity[:6]
    closes = given_prices.close.copy()
    closes[6:] *= 1.5
    wanted[5:] = 0.0
    later = Prices(**{**vars(given_prices), "close": closes})
    np.testing.assert_array_equal(backtest(later, wanted, ALL_COSTS).equity[:6], before)
