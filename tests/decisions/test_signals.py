"""What to do with one forecast, by hand and for whatever hypothesis draws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitwise.decisions.signals import Rules, Signal, calibrated, round_trip, signal

RULES = Rules(
    horizon=1,
    interval=0.8,
    stop_atr=2.0,
    take_profit_atr=3.0,
    dollars=250_000.0,
    commission_bp=0.5,
    half_spread_bp=2.0,
    impact=0.5,
    borrow_bp=50.4,
    intercept=0.1,
    slope=0.5,
)
RISES = {
    "log_return": 0.01,
    "p_up": 0.6,
    "scale": 0.02,
    "close": 100.0,
    "atr": 2.0,
    "volatility": 0.01,
    "dollar_volume": 1e9,
    "suspect": None,
}
FALLS = RISES | {"log_return": -0.01, "p_up": 0.4}


def said(asked: dict, rules: Rules = RULES, **changed) -> Signal:
    return signal(**asked | changed, rules=rules)


@pytest.mark.unit
def test_a_buy_by_hand():
    found = said(RISES)
    assert (found.signal, found.reason) == ("BUY", "")
    # logit(0.6) = 0.405465; 1 / (1 + exp(-0.302733)).
    assert found.confidence == found.calibrated_p_up == pytest.approx(0.575110, abs=1e-6)
    assert found.target == pytest.approx(101.005017, abs=1e-6)
    # The interval's half: 0.02 * ln(0.9 / 0.1) = 0.043944.
    assert found.target_low == pytest.approx(96.662525, abs=1e-5)
    assert found.target_high == pytest.approx(105.542596, abs=1e-5)
    # 2 and 3 ranges are 4% and 6%, farther than the interval's ends at 3.4% and 5.4%.
    assert found.stop_loss == pytest.approx(96.078944, abs=1e-6)
    assert found.take_profit == pytest.approx(106.183655, abs=1e-6)
    # 2 * (2.5 bp + 0.5 * 1% * sqrt(0.00025)), 1.581 bp for each way.
    assert found.expected_cost == pytest.approx(0.00065811, abs=1e-8)
    assert found.expected_return == pytest.approx(0.01005017, abs=1e-8)
    assert found.expected_net == pytest.approx(0.00939206, abs=1e-8)


@pytest.mark.unit
def test_a_sell_by_hand_stops_above_and_borrows():
    found = said(FALLS, atr=0.5)
    assert found.signal == "SELL"
    # 1 - 1 / (1 + exp(0.102733)).
    assert found.confidence == pytest.approx(0.525661, abs=1e-6)
    assert found.confidence == pytest.approx(1 - found.calibrated_p_up)
    assert found.target == pytest.approx(99.004983, abs=1e-6)
    # Both ranges are within the interval, whose ends are 3.3944% above and 5.3944% below.
    assert found.stop_loss == pytest.approx(found.target_high)
    assert found.stop_loss == pytest.approx(103.452718, abs=1e-5)
    assert found.take_profit == pytest.approx(94.748470, abs=1e-5)
    # As a buy's, and 50.4 bp a year for one session.
    assert found.expected_cost == pytest.approx(0.00065811 + 0.00002, abs=1e-8)
    assert found.expected_net == pytest.approx(0.00995017 - found.expected_cost, abs=1e-8)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("asked", "changed", "reason"),
    [
        (RISES, {"log_return": 0.0006}, "expected return does not pay its cost"),
        (FALLS, {"log_return": -0.0006}, "expected return does not pay its cost"),
        (RISES, {"p_up": 0.49}, "return and probability disagree"),
        (FALLS, {"p_up": 0.51}, "return and probability disagree"),
        # logit(0.4525) * 0.5 is -0.0953: with the intercept still above a half.
        (FALLS, {"p_up": 0.4525}, "calibrated probability says otherwise"),
        (RISES, {"suspect": "bad_print"}, "a newest bar may be a bad print"),
        (RISES, {"atr": None}, "range, volatility or volume is not known"),
        (RISES, {"atr": 0.0}, "range, volatility or volume is not known"),
        (RISES, {"volatility": None}, "range, volatility or volume is not known"),
        (RISES, {"dollar_volume": 0.0}, "range, volatility or volume is not known"),
        (RISES, {"scale": None, "volatility": 0.0}, "range, volatility or volume is not known"),
    ],
)
def test_what_is_held_and_why(asked, changed, reason):
    found = said(asked, **changed)
    assert (found.signal, found.reason) == ("HOLD", reason)
    assert found.stop_loss is found.take_profit is None


@pytest.mark.unit
def test_without_a_calibration_nothing_is_done():
    found = said(RISES, replace(RULES, intercept=None, slope=None))
    assert (found.signal, found.reason) == ("HOLD", "probability is not calibrated")
    assert found.confidence is found.calibrated_p_up is None


@pytest.mark.unit
def test_a_model_without_a_scale_has_that_of_the_volatility():
    found = said(RISES, replace(RULES, horizon=4), scale=None)
    # Of four sessions twice one's: 0.02 * sqrt(3) / pi * ln(9) = 0.024228.
    assert found.target_high / found.target == pytest.approx(1.024524, abs=1e-6)


@pytest.mark.unit
def test_the_calibration_of_a_certain_forecast_is_finite():
    rules = replace(RULES, intercept=0.0, slope=1.0)
    assert calibrated(1.0, rules) == pytest.approx(1 - 1e-6)
    assert calibrated(0.0, rules) == pytest.approx(1e-6)


@pytest.mark.unit
def test_a_larger_position_costs_more_and_a_longer_short_borrows_longer():
    costs = [round_trip(0.01, 1e9, False, replace(RULES, dollars=d)) for d in (1.0, 1e6, 1e9)]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(2 * (0.00025 + 0.005))  # the whole session's volume
    short = [round_trip(0.01, 1e9, True, replace(RULES, horizon=h)) for h in (1, 21)]
    assert short[1] - short[0] == pytest.approx(20 * 0.00504 / 252)


some = st.floats(min_value=1e-4, max_value=0.5)


@pytest.mark.property
@given(
    log_return=st.floats(-0.3, 0.3),
    p_up=st.floats(0, 1),
    scale=st.none() | some,
    close=st.floats(0.01, 1e5),
    ranges=some,
    volatility=some,
    dollar_volume=st.floats(1e3, 1e12),
    intercept=st.floats(-1, 1),
    slope=st.floats(0, 2),
    horizon=st.sampled_from([1, 20]),
)
def test_whatever_is_forecast(
    log_return, p_up, scale, close, ranges, volatility, dollar_volume, intercept, slope, horizon
):
    rules = replace(RULES, intercept=intercept, slope=slope, horizon=horizon)
    found = signal(
        log_return, p_up, scale, close, ranges * close, volatility, dollar_volume, None, rules
    )
    assert found.target_low < found.target < found.target_high
    assert found.expected_cost > 0
    if found.signal == "BUY":
        assert p_up >= 0.5
        assert found.confidence > 0.5
        assert found.stop_loss < close < found.target < found.take_profit
        assert found.stop_loss <= found.target_low
    elif found.signal == "SELL":
        assert p_up <= 0.5
        assert found.confidence > 0.5
        assert found.take_profit < found.target < close < found.stop_loss
    else:
        assert found.reason
    if abs(found.expected_return) <= found.expected_cost:
        assert found.signal == "HOLD"
