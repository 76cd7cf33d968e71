import numpy as np
import pytest
from scipy.optimize import minimize

from pitwise.decisions import portfolios
from pitwise.decisions.portfolios import Limits, within
from pitwise.errors import DataError

NAN = np.nan


def test_the_largest_scores_in_equal_parts():
    assert portfolios.top_k(np.array([3.0, NAN, 1, 4]), 2) == pytest.approx([0.5, 0, 0, 0.5])


def test_ties_share_the_places_left():
    assert portfolios.top_k(np.array([5.0, 1, 1, 0]), 2) == pytest.approx([0.5, 0.25, 0.25, 0])


def test_fewer_scores_than_places_leave_cash():
    assert portfolios.top_k(np.array([5.0, NAN]), 4) == pytest.approx([0.25, 0])


def test_each_session_has_weights_of_its_own():
    scores = np.array([[3.0, 1, 2, 0], [NAN, NAN, 2, NAN], [1, 1, 1, 0]])
    assert portfolios.top_k(scores, 2) == pytest.approx(
        np.array([[0.5, 0, 0.5, 0], [0, 0, 0.5, 0], [1 / 3, 1 / 3, 1 / 3, 0]])
    )
    assert portfolios.long_short(scores[:2], 2) == pytest.approx(
        np.array([[0.25, -0.25, 0.25, -0.25], [0, 0, 0, 0]])
    )


def test_long_and_short_are_half_each():
    weights = portfolios.long_short(np.array([3.0, 2, 1, 0, NAN]), 1)
    assert weights == pytest.approx([0.5, 0, 0, -0.5, 0])


@pytest.mark.parametrize("scores", [[1.0, 2, NAN], [1.0, 1, 1, 1]])
def test_nothing_to_rank_is_cash(scores):
    assert not portfolios.long_short(np.array(scores), 2).any()


def test_no_symbols_is_refused():
    with pytest.raises(DataError, match="hold 1 or more"):
        portfolios.top_k(np.ones(3), 0)


def test_equal_weight():
    assert portfolios.equal_weight(np.array([True, False, True])) == pytest.approx([0.5, 0, 0.5])
    assert not portfolios.equal_weight(np.array([False, False])).any()


def test_minimum_variance_of_uncorrelated_symbols_is_the_inverse_of_their_variances():
    weights = portfolios.minimum_variance(np.diag([1.0, 2.0, 4.0]) * 1e-4)
    assert weights == pytest.approx(np.array([4, 2, 1]) / 7, abs=1e-8)


def test_minimum_variance_of_two_leaves_out_what_adds_risk():
    # w = (4 - c) / (1 + 4 - 2 c) with c = 1.5 is 1.25: more than all, so 1 without going short.
    weights = portfolios.minimum_variance(np.array([[1.0, 1.5], [1.5, 4.0]]))
    assert weights == pytest.approx([1, 0], abs=1e-8)


def test_mean_variance_of_two_by_hand():
    # Variances 1, no correlation: w1 - w2 = (m1 - m2) / aversion, so 0.7 and 0.3.
    weights = portfolios.mean_variance(np.array([0.8, 0.0]), np.eye(2), 2.0)
    assert weights == pytest.approx([0.7, 0.3], abs=1e-8)


@pytest.mark.parametrize("largest", [0.3, 1.0])
def test_mean_variance_is_what_another_optimiser_finds(largest):
    rng = np.random.default_rng(7)
    returns = rng.normal(0, 0.01, (60, 6)) + rng.normal(0, 0.01, (60, 1))
    covariance, expected = np.cov(returns.T), rng.normal(0, 1e-4, 6)
    found = portfolios.mean_variance(expected, covariance, 5.0, largest)
    other = minimize(
        lambda w: 1e4 * (2.5 * w @ covariance @ w - expected @ w),
        np.full(6, 1 / 6),
        bounds=[(0, largest)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    ).x
    assert found == pytest.approx(other, abs=1e-4)
    assert found.sum() == pytest.approx(1)


def test_hierarchical_risk_parity_of_two_is_the_inverse_of_their_variances():
    weights = portfolios.hierarchical_risk_parity(np.diag([1.0, 3.0]))
    assert weights == pytest.approx([0.75, 0.25])


def test_hierarchical_risk_parity_of_two_pairs_by_hand():
    # 0 and 2 move together, 1 and 3 do, the pairs do not. The tree's halves are the pairs. Within each
    # half the weights are equal; its variance is (1 + 1 + 2 x 0.8) / 4 = 0.9 and 4 times that.
    covariance = np.zeros((4, 4))
    covariance[np.ix_([0, 2], [0, 2])] = [[1, 0.8], [0.8, 1]]
    covariance[np.ix_([1, 3], [1, 3])] = [[4, 3.2], [3.2, 4]]
    weights = portfolios.hierarchical_risk_parity(covariance)
    assert weights == pytest.approx([0.4, 0.1, 0.4, 0.1])


@pytest.fixture(scope="module")
def alike():
    """Returns of 60 sessions of six symbols that move together, the last three times as far."""
    common = 0.6 * np.cos(np.arange(60.0) ** 3)[:, None]
    return (np.sin(np.arange(360.0).reshape(60, 6) ** 2) + common) * np.linspace(0.5, 1.5, 6) / 100


def test_hierarchical_risk_parity_is_that_of_pyportfolioopt(alike):
    # PyPortfolioOpt 1.6.0: HRPOpt(cov_matrix=...).optimize().
    theirs = [0.41903555897896927, 0.18381051800371861, 0.19383636030214887]
    theirs += [0.08529634698374443, 0.05585294077083484, 0.062168274960583914]
    ours = portfolios.hierarchical_risk_parity(np.cov(alike.T))
    assert ours == pytest.approx(theirs, abs=1e-8)


@pytest.mark.parametrize(
    ("aversion", "theirs"),
    [
        (None, [0.249999567, 0.249999354, 0.249999367, 0.194063907, 0.021347988, 0.034589818]),
        (5.0, [0.032463811, 0.25, 0.0, 0.217536188, 0.25, 0.25]),
    ],
)
def test_weights_by_variance_are_those_of_skfolio(alike, aversion, theirs):
    # skfolio 1.12.2: MeanRisk with LedoitWolf and max_weights=0.25, of the smallest variance, and of the
    # largest utility with a risk aversion of 2.5, which it does not halve; to its solver's tolerance.
    covariance = portfolios.shrunk_covariance(alike)
    mean = alike.mean(axis=0) if aversion else np.zeros(6)
    ours = portfolios.mean_variance(mean, covariance, aversion or 1.0, 0.25)
    assert ours == pytest.approx(theirs, abs=3e-4)

    def utility(weights):
        return weights @ mean - (aversion or 1.0) / 2 * weights @ covariance @ weights

    assert utility(ours) >= utility(np.array(theirs) / sum(theirs)) - 1e-12


def test_a_portfolio_of_one():
    one = np.array([[1e-4]])
    assert portfolios.hierarchical_risk_parity(one) == pytest.approx([1])
    assert portfolios.minimum_variance(one) == pytest.approx([1])


def test_more_symbols_than_sessions_have_a_covariance_that_can_be_inverted():
    returns = np.random.default_rng(7).normal(0, 0.01, (30, 50))
    assert np.linalg.eigvalsh(portfolios.shrunk_covariance(returns))[0] > 0


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: portfolios.shrunk_covariance(np.zeros((5, 2))), "needs 20 or more"),
        (lambda: portfolios.shrunk_covariance(np.full((30, 2), NAN)), "not numbers"),
        (lambda: portfolios.minimum_variance(np.eye(3), 0.2), "do not make up 1"),
        (lambda: portfolios.minimum_variance(np.zeros((2, 2))), "covariance is zero"),
        (lambda: portfolios.mean_variance(np.array([NAN, 1]), np.eye(2)), "not numbers"),
        (lambda: portfolios.hierarchical_risk_parity(np.diag([1.0, 0.0])), "does not move"),
    ],
)
def test_what_has_no_portfolio_is_refused(run, says):
    with pytest.raises(DataError, match=says):
        run()


def test_limits_cut_and_leave_cash():
    limits = Limits(position=0.3, sector=0.4, cash=0.3)
    weights = within(np.array([0.6, 0.3, 0.1]), limits, sectors=["tech", "tech", ""])
    # Positions 0.3, 0.3, 0.1; tech is scaled from 0.6 to 0.4; the sum of 0.5 is within 0.7.
    assert weights == pytest.approx([0.2, 0.2, 0.1])
    assert within(np.array([0.5, -0.5]), Limits(cash=0.2)) == pytest.approx([0.4, -0.4])


def test_what_stays_takes_its_place_from_the_others():
    can = np.array([False, True, True])
    # 0.5 stays of the first, so the others, which were to be all, are half.
    weights = portfolios.around_halts(np.array([0.0, 0.6, -0.4]), np.array([0.5, 0, 0]), can)
    assert weights == pytest.approx([0.5, 0.3, -0.2])
    # More of it was wanted than is there: the others are as they were to be.
    weights = portfolios.around_halts(np.array([0.4, 0.6, 0.0]), np.array([0.1, 0, 0]), can)
    assert weights == pytest.approx([0.1, 0.6, 0])
    # It is more than all that is wanted: nothing else is held.
    weights = portfolios.around_halts(np.array([0.0, 0.3, 0.0]), np.array([0.5, 0, 0]), can)
    assert weights == pytest.approx([0.5, 0, 0])


def test_the_turnover_limit_goes_part_of_the_way():
    # From A to B is a turnover of 1; a quarter of the way is let.
    weights = within(np.array([0.0, 1.0]), Limits(turnover=0.25), held=np.array([1.0, 0.0]))
    assert weights == pytest.approx([0.75, 0.25])
