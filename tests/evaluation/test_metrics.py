import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pitwise.evaluation import metrics

PREDICTED, ACTUAL = np.array([8.0, 25.0]), np.array([10.0, 20.0])
UP, RETURNS = np.array([True, False, True, False]), np.array([0.1, -0.1, -0.1, 0.1])


def test_mape_is_in_percent_of_the_actual_price():
    assert metrics.mape(PREDICTED, ACTUAL) == pytest.approx((20 + 25) / 2)


def test_mae():
    assert metrics.mae(PREDICTED, ACTUAL) == pytest.approx(3.5)


def test_rmse():
    assert metrics.rmse(PREDICTED, ACTUAL) == pytest.approx(math.sqrt(14.5))


def test_r2_compares_with_the_mean_of_the_actual_values():
    assert metrics.r2(PREDICTED, ACTUAL) == pytest.approx(1 - 29 / 50)
    assert metrics.r2(np.array([15.0, 15.0]), ACTUAL) == 0


def test_r2_is_none_where_nothing_varies():
    assert metrics.r2(PREDICTED, np.array([10.0, 10.0])) is None


def test_skill_compares_with_the_reference_forecast():
    assert metrics.skill(PREDICTED, ACTUAL, np.array([12.0, 16.0])) == pytest.approx(1 - 29 / 20)
    assert metrics.skill(ACTUAL, ACTUAL, np.array([12.0, 16.0])) == 1


def test_skill_is_none_where_the_reference_is_perfect():
    assert metrics.skill(PREDICTED, ACTUAL, ACTUAL) is None


def test_direction_accuracy_counts_an_unchanged_price_as_not_up():
    assert metrics.direction_accuracy(UP, RETURNS) == 0.5
    assert metrics.direction_accuracy(np.array([False, False]), np.array([0.0, -0.1])) == 1


def test_brier():
    p_up = np.array([0.9, 0.2, 0.6, 0.5])
    assert metrics.brier(p_up, RETURNS) == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)
    assert metrics.brier(np.full(4, 0.5), RETURNS) == 0.25


def test_session_groups_are_in_order_of_session_and_of_row():
    groups = metrics.session_groups(np.array([2, 1, 2, 1, 3]))
    assert [g.tolist() for g in groups] == [[1, 3], [0, 2], [4]]


def test_rank_ic_of_each_session_with_ties():
    scores = np.array([1.0, 30, 1, 20, 2, 10])
    returns = np.array([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    sessions = np.array([1, 2, 1, 2, 1, 2])
    # Session 1: ranks (1.5, 1.5, 3) and (1, 2, 3); session 2: reversed.
    expected = [1.5 / math.sqrt(1.5 * 2), -1]
    assert metrics.rank_ic(scores, returns, sessions) == pytest.approx(expected)


def test_rank_ic_is_nan_for_a_lonely_symbol_and_where_nothing_differs():
    scores, returns = np.array([1.0, 1, 1, 1, 2]), np.array([0.1, 0.2, 0.3, 0.1, 0.1])
    ic = metrics.rank_ic(scores, returns, np.array([1, 2, 2, 3, 3]))
    assert np.isnan(ic).tolist() == [True, True, True]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2, st.integers(1, 3)), min_size=1, max_size=40))
def test_rank_ic_is_scipys_spearman(rows):
    scores, returns, sessions = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    expected = []
    for session in np.unique(sessions):
        x, y = scores[sessions == session], returns[sessions == session]
        varied = len(set(x)) > 1 and len(set(y)) > 1
        expected.append(spearmanr(x, y).statistic if varied else math.nan)
    np.testing.assert_allclose(metrics.rank_ic(scores, returns, sessions), expected, atol=1e-12)


def test_mean_and_t_of_the_finite_values():
    mean, t = metrics.mean_and_t(np.array([1.0, math.nan, 2, 3]))
    assert mean == 2
    assert t == pytest.approx(2 * math.sqrt(3))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (None, None)), ([math.nan, 5.0], (None, None)), ([2.0, 2.0], (2.0, None))],
)
def test_mean_and_t_are_none_where_undefined(values, expected):
    assert metrics.mean_and_t(np.array(values)) == expected


def ci95(up, returns, sessions, samples=2000, seed=7):
    return metrics.direction_ci95(up, returns, sessions, samples, seed)


def test_the_interval_is_a_point_where_every_call_is_right_or_there_is_one_session():
    assert ci95(RETURNS > 0, RETURNS, np.array([1, 1, 2, 2])) == [1, 1]
    assert ci95(UP, RETURNS, np.ones(4)) == [0.5, 0.5]


def test_the_interval_of_one_right_and_one_wrong_session_spans_everything():
    # Drawing two of two: both wrong in a quarter of the draws, both right in a quarter.
    assert ci95(np.array([True, True]), np.array([0.1, -0.1]), np.array([1, 2])) == [0, 1]


def test_the_interval_weighs_a_session_by_its_rows():
    # Right on one session of one row, wrong on one of three: the draws give 0, 1/4 or 1.
    returns = np.array([0.1, -0.1, -0.1, -0.1])
    draws = [ci95(np.full(4, True), returns, np.array([1, 2, 2, 2]), 100, seed)[1] for seed in range(5)]
    assert draws == [1] * 5
    narrow = metrics.direction_ci95(np.full(40, True), np.tile(returns, 10), np.arange(40) // 4, 200, 0)
    assert narrow == [0.25, 0.25]


def test_sessions_that_are_drawn_together_make_a_wider_interval():
    returns = np.repeat([0.1, -0.1], 50)  # right in the first half, wrong in the second
    up, sessions = np.full(100, True), np.arange(100)

    def width(block: int) -> float:
        low, high = metrics.direction_ci95(up, returns, sessions, 2000, 7, block)
        return high - low

    assert width(20) > 3 * width(1)
    assert width(100) == pytest.approx(0, abs=1e-12)  # all of them in each draw


def test_the_interval_is_the_seeds():
    rng = np.random.default_rng(0)
    up, returns, sessions = rng.random(300) > 0.5, rng.normal(size=300), np.repeat(np.arange(60), 5)
    assert ci95(up, returns, sessions) == ci95(up, returns, sessions)
    assert ci95(up, returns, sessions) != ci95(up, returns, sessions, seed=8)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_interval_contains_the_accuracy(seed):
    rng = np.random.default_rng(seed)
    up, returns, sessions = rng.random(200) > 0.5, rng.normal(size=200), rng.integers(0, 40, 200)
    low, high = ci95(up, returns, sessions, samples=500)
    assert low < metrics.direction_accuracy(up, returns) < high


def test_the_interval_holds_95_of_100():
    returns = np.tile([0.1, -0.1], 200)
    low, high = ci95(np.full(400, True), returns, np.arange(400), samples=20_000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 400), rel=0.07)


def test_the_interval_is_wider_when_stocks_move_together():
    rng = np.random.default_rng(1)
    stocks, days = 25, 100
    sessions = np.repeat(np.arange(days), stocks)
    up = np.full(stocks * days, True)
    market = np.repeat(rng.normal(size=days), stocks)
    together, alone = ci95(up, market, sessions), ci95(up, rng.normal(size=stocks * days), sessions)
    width = (together[1] - together[0]) / (alone[1] - alone[0])
    # 25 stocks that move as one are worth one: the interval is 5 times as wide.
    assert width == pytest.approx(5, rel=0.25)


def test_ranks_are_of_each_session_and_shared_by_equal_values():
    values, sessions = np.array([3.0, 9, 1, 7, 3, 2]), np.array([1, 0, 1, 0, 1, 1])
    assert metrics.ranks(values, sessions).tolist() == [3.5, 2, 1, 1, 3.5, 2]


def test_ic_is_pearsons():
    # x - 2 = (-1, 0, 1), y - 7/3 = (-4, -1, 5) / 3: 3 / sqrt(2 * 42 / 9).
    found = metrics.ic(np.array([1.0, 2, 3]), np.array([1.0, 2, 4]), np.zeros(3))
    assert found == pytest.approx([3 / math.sqrt(84 / 9)])


def test_ic_is_nan_where_nothing_differs_though_the_mean_is_rounded():
    scores, returns = np.full(3, 0.1), np.array([0.1, 0.2, 0.3])
    assert np.full(3, 0.1).mean() != 0.1
    assert np.isnan(metrics.ic(scores, returns, np.zeros(3))).all()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(-5, 5, width=16)] * 2, st.integers(1, 3)), min_size=1, max_size=30)
)
def test_ic_is_numpys_correlation(rows):
    scores, returns, sessions = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    expected = []
    for session in np.unique(sessions):
        x, y = scores[sessions == session], returns[sessions == session]
        varied = np.ptp(x) > 0 and np.ptp(y) > 0
        expected.append(np.corrcoef(x, y)[0, 1] if varied else math.nan)
    np.testing.assert_allclose(metrics.ic(scores, returns, sessions), expected, atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_a_session_with_an_unknown_score_or_return_has_no_correlation():
    scores = np.array([1.0, 2, 3, 1, math.nan, 3, 1, 2, 3])
    returns = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, math.nan, 0.3])
    sessions = np.repeat([0, 1, 2], 3)
    for measure in (metrics.rank_ic, metrics.ic):
        assert measure(scores, returns, sessions) == pytest.approx([1, math.nan, math.nan], nan_ok=True)


def test_newey_west_by_hand():
    # Mean 3, deviations (-2, 0, -1, 3): squares 14, products of neighbours -3. With lag 1 the weight is
    # 1/2 and the variance 14/3 * (1 - 3/14) = 11/3, of the mean 11/12.
    mean, t = metrics.mean_and_t(np.array([1.0, 3, 2, 6]), lag=1)
    assert mean == 3
    assert t == pytest.approx(3 / math.sqrt(11 / 12))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=25), st.integers(0, 30))
def test_newey_west_is_the_double_sum_over_pairs(values, lag):
    deviations = np.array(values) - np.mean(values)
    n = len(values)
    variance = sum(
        max(0, 1 - abs(i - j) / (lag + 1)) * deviations[i] * deviations[j]
        for i in range(n)
        for j in range(n)
    ) / (n * (n - 1))
    _, t = metrics.mean_and_t(np.array(values, dtype=float), lag)
    if variance > 1e-9:
        assert t == pytest.approx(np.mean(values) / math.sqrt(variance), rel=1e-6)
    else:
        assert t is None or abs(np.mean(values) / t) < 1e-4


def test_overlapping_returns_get_a_smaller_t():
    shocks = np.random.default_rng(3).normal(0.05, 1, 4004)
    overlapping = np.convolve(shocks, np.ones(5), "valid")
    plain, corrected = (metrics.mean_and_t(overlapping, lag)[1] for lag in (0, 4))
    # Triangular autocorrelation 1 - l/5 under weights 1 - l/5: 1 + 2 (16 + 9 + 4 + 1) / 25 = 3.4.
    assert plain / corrected == pytest.approx(math.sqrt(3.4), rel=0.05)


def test_interval_coverage_counts_the_ends():
    low, high = np.array([0.0, 0, 0, 0]), np.array([1.0, 1, 1, 1])
    assert metrics.interval_coverage(low, high, np.array([0.0, 1, 0.5, 1.1])) == 0.75
