import math

import numpy as np
import pytest
from arch import arch_model
from scipy.integrate import quad
from scipy.stats import norm

from pitwise.decisions import backtest_var, var
from pitwise.decisions.volatility import Garch, ewma, fit_garch

Z95 = -1.6448536269514722
"""Of the normal distribution one in twenty lies below."""


def test_historical_by_hand():
    # 21 returns, -10% to 10%: a twentieth of the 20 steps is one step, a hundredth a fifth of one.
    returns = np.arange(-10, 11)[::-1] / 100
    assert var.historical(returns, 0.95) == pytest.approx((0.09, 0.095))
    assert var.historical(returns, 0.99) == pytest.approx((0.098, 0.10))


def test_normal_by_hand():
    # Mean 1%, squares of the deviations 2 x 4e-4.
    found = var.normal(np.array([0.03, -0.01]), 0.95)
    density = math.exp(-(Z95**2) / 2) / math.sqrt(2 * math.pi)
    assert found.var == pytest.approx(-0.01 - Z95 * math.sqrt(8e-4))
    assert found.es == pytest.approx(-0.01 + density / 0.05 * math.sqrt(8e-4))


def test_cornish_fisher_by_hand():
    # Mean and skewness 0; second and fourth moments 2 / 8, so that the kurtosis is 4, 1 in excess.
    returns = np.array([-1, 0, 0, 0, 0, 0, 0, 1]) / 100
    found = var.cornish_fisher(returns, 0.95)
    assert found.var == pytest.approx(-(Z95 + (Z95**3 - 3 * Z95) / 24) * math.sqrt(2 / 7) / 100)


def test_cornish_fisher_shortfall_is_the_mean_over_the_tail(volatile):
    def weighted(z):
        return var.cornish_fisher(volatile, 1 - norm.cdf(z)).var * norm.pdf(z)

    tail = quad(weighted, -7, Z95)[0] / 0.05
    assert var.cornish_fisher(volatile, 0.95).es == pytest.approx(tail, abs=1e-8)


@pytest.mark.parametrize(
    ("skewness", "excess"),
    [(0, 0), (-1, 2), (-0.5, 2), (0, -2), (3, 1), (-3, 1), (2, 4), (0, 7.9), (0, 8.1)],
)
def test_cornish_fisher_holds_where_its_quantile_rises(skewness, excess):
    z = np.linspace(-12, 12, 20_002)
    corrected = (
        z
        + (z**2 - 1) * skewness / 6
        + (z**3 - 3 * z) * excess / 24
        - (2 * z**3 - 5 * z) * skewness**2 / 36
    )
    assert var.holds(skewness, excess) == bool((np.diff(corrected) > 0).all())


def test_filtered_by_hand():
    # Constant variance 4e-4 and mean 0: the shocks are the returns, and so are their quantiles.
    garch = Garch(mean=0.0, omega=4e-4, alpha=0.0, gamma=0.0, beta=0.0, start=4e-4)
    returns = np.arange(-10, 11) / 100
    assert var.filtered(returns, 0.95, garch) == pytest.approx((0.09, 0.095))


def test_filtered_agrees_with_arch(volatile):
    fit = arch_model(100 * volatile, rescale=False).fit(disp="off")
    ahead = float(fit.forecast(horizon=1).variance.iloc[-1, 0])
    expected = -(fit.params["mu"] + math.sqrt(ahead) * np.percentile(fit.std_resid, 1)) / 100
    assert var.filtered(volatile, 0.99, fit_garch(volatile)).var == pytest.approx(expected, abs=1e-8)


def test_scaling_and_paths_by_hand():
    assert var.scaled(var.Tail(0.02, 0.03), 4) == pytest.approx((0.04, 0.06))
    paths = np.array([[0.1, 0.1], [-0.1, -0.1]])  # 21% and -19%; the quantile is 1/20 of the way
    assert var.simulated(paths, 0.95) == pytest.approx((0.17, 0.19))


def test_a_past_var_is_that_of_the_window_before(volatile):
    past = backtest_var.past_vars(volatile[:130], 100, [0.95], refit=21)
    for method, function in {
        "historical": var.historical,
        "normal": var.normal,
        "cornish_fisher": var.cornish_fisher,
    }.items():
        assert past[method, 0.95][7] == pytest.approx(function(volatile[7:107], 0.95).var)
    # The session that the second fit is for, and the one after it, which that filters too.
    garch = fit_garch(volatile[21:121])
    shocks = var.historical(garch.shocks(volatile[21:121]), 0.95).var
    for session in (121, 122):
        deviation = math.sqrt(garch.variances(volatile[21:session])[-1])
        expected = shocks * deviation - garch.mean
        assert past["filtered", 0.95][session - 100] == pytest.approx(expected)


def test_a_past_simulation_is_that_of_the_window_before(volatile):
    def simulated(returns):
        fits = backtest_var.past_fits(returns, 100, refit=21)
        rng = np.random.default_rng(5)
        return backtest_var.past_simulated(returns, 100, 10, [0.95], 50, rng, fits)[0.95]

    said = simulated(volatile[:145])  # 45 sessions after the window are four blocks
    rng = np.random.default_rng(5)
    expected = []
    for start, fitted in ((100, 100), (110, 100), (120, 100), (130, 121)):
        before = volatile[fitted - 100 : fitted]
        garch = fit_garch(before) or ewma(before)
        paths = garch.paths(volatile[fitted - 100 : start], 10, 50, rng)
        expected.append(-np.quantile(np.prod(1 + paths, axis=1) - 1, 0.05))
    assert said == pytest.approx(expected)
    np.testing.assert_array_equal(simulated(volatile[:125]), said[:2])  # nothing later moves it


def test_no_later_data_moves_a_past_var(volatile):
    whole = backtest_var.past_vars(volatile[:160], 100, [0.95, 0.99], refit=21)
    for cut in (129, 142):  # within a fit, and where one begins
        short = backtest_var.past_vars(volatile[:cut], 100, [0.95, 0.99], refit=21)
        for key, said in short.items():
            np.testing.assert_array_equal(said, whole[key][: cut - 100], err_msg=str(key))


def test_kupiec_by_hand():
    assert backtest_var.kupiec(100, 5, 0.95) == {"kupiec": pytest.approx(0, abs=1e-12), "kupiec_p": 1}
    none = backtest_var.kupiec(100, 0, 0.99)
    assert none["kupiec"] == pytest.approx(-200 * math.log(0.99))
    # Chi-squared with one degree of freedom is a normal variable squared.
    assert none["kupiec_p"] == pytest.approx(2 * norm.sf(math.sqrt(-200 * math.log(0.99))))


def test_christoffersen_by_hand():
    # After none: two more none, one exception. After an exception: two more. In all three of five.
    found = backtest_var.christoffersen(np.array([0, 0, 0, 1, 1, 1], bool), 0.5)
    free = 2 * math.log(2 / 3) + math.log(1 / 3)
    assert found["independence"] == pytest.approx(2 * (free - 2 * math.log(0.4) - 3 * math.log(0.6)))
    assert found["conditional_coverage"] == pytest.approx(found["independence"])  # three of six is half
    assert found["conditional_coverage_p"] == pytest.approx(math.exp(-found["independence"] / 2))


@pytest.mark.parametrize(
    ("exceptions", "light"), [(4, "green"), (5, "yellow"), (9, "yellow"), (10, "red")]
)
def test_traffic_light_is_basels_table(exceptions, light):
    assert backtest_var.traffic_light(np.arange(250) < exceptions, 0.99) == light
