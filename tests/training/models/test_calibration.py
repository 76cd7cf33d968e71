"""What a score is worth, against the logistic distribution that the returns were drawn from."""

import numpy as np
import pytest
import torch

from training.models.calibration import Calibration, fit_calibration


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, log volatilities, and returns about 0.001 + 0.004 score, scale exp(-0.5 + 0.9 log v)."""
    rng = np.random.default_rng(3)
    score, log_v = rng.normal(0, 1, 20_000), rng.normal(-4.2, 0.4, 20_000)
    returns = rng.logistic(0.001 + 0.004 * score, np.exp(-0.5 + 0.9 * log_v))
    return score, log_v, returns


def test_the_distribution_that_was_drawn_from_is_found(drawn):
    location, log_scale = fit_calibration(*drawn)
    np.testing.assert_allclose(location, [0.001, 0.004], atol=8e-4)
    np.testing.assert_allclose(log_scale, [-0.5, 0.9], atol=0.08)


def test_a_score_that_points_the_wrong_way_is_worth_nothing(drawn):
    score, log_v, returns = drawn
    (a, b), _ = fit_calibration(-score, log_v, returns)
    assert b == 0
    assert a == pytest.approx(returns.mean(), abs=5e-4)


def test_what_does_not_vary_has_no_coefficient(drawn):
    ones = np.ones(len(drawn[2]))
    (_, b), (_, d) = fit_calibration(5 * ones, -4 * ones, drawn[2])
    assert (b, d) == (0, 0)


def test_volatility_is_of_the_windows_closes_and_never_nothing():
    closes = torch.tensor([[100.0, 110.0, 99.0], [50.0, 50.0, 50.0]])
    by_hand = np.sqrt((np.log(1.1) ** 2 + np.log(0.9) ** 2) / 2)
    np.testing.assert_allclose(Calibration.log_volatility(closes).exp(), [by_hand, 1e-4], rtol=1e-5)
