import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pitwise.evaluation.calibration import Calibration, fit_calibration


def held(labels, sessions) -> pd.DataFrame:
    return pd.DataFrame({"event_timestamp": sessions, "label": labels})


def test_a_forecast_by_hand():
    # Scores about their session's mean: -1, 1 and 0. p_up: odds of 3 to 1, times e^-2 and e^2.
    of = Calibration(mean=0.001, share=0.75, slope=0.01, steepness=2.0)
    rows = pd.DataFrame({"event_timestamp": [1, 1, 2]}, index=[7, 8, 9])
    found = of.forecast(np.array([4.0, 6, 100]), rows)
    assert found.index.tolist() == [7, 8, 9]
    assert found["score"].tolist() == [4, 6, 100]
    assert found["log_return"].tolist() == pytest.approx([-0.009, 0.011, 0.001])
    odds = 3 * np.exp([-2, 2, 0])
    assert found["p_up"].tolist() == pytest.approx((odds / (1 + odds)).tolist())


def test_the_slope_is_within_sessions_and_the_means_are_of_all_rows():
    # About the session's mean: scores -1, 1, -1, 1, labels -1, 1, -3, 3 percent: slope 8 / 4 percent,
    # however far the sessions are apart.
    rows = held([0.01, 0.03, -0.53, -0.47], [1, 1, 2, 2])
    found = fit_calibration(np.array([1.0, 3, 7, 9]), rows, pd.Series([0.1, 0.2, -0.6, 0.3]))
    assert found.slope == pytest.approx(0.02)
    assert found.mean == pytest.approx(0)
    assert found.share == 0.75


def test_the_steepness_is_found_whatever_the_scores_unit():
    rng = np.random.default_rng(0)
    s = rng.normal(size=40_000)
    labels = np.where(rng.random(len(s)) < expit(0.8 * s), 0.01, -0.01)
    rows = held(labels, np.zeros(len(s)))
    for unit in (1.0, 0.001):
        found = fit_calibration(s * unit, rows, rows["label"])
        assert found.steepness * unit == pytest.approx(0.8, rel=0.05)


def test_a_score_that_points_the_wrong_way_is_worth_nothing():
    rows = held([0.03, -0.01, 0.04, -0.02], [1, 1, 2, 2])
    found = fit_calibration(np.array([1.0, 2, 1, 2]), rows, rows["label"])
    assert (found.slope, found.steepness) == (0, 0)


@pytest.mark.parametrize("labels", [[0.03, 0.01, 0.04, 0.02], [-0.03, -0.01, -0.04, -0.02]])
def test_labels_of_one_direction_leave_the_share(labels):
    rows = held(labels, [1, 1, 2, 2])
    scores = np.array([1.0, 2, 1, 2])
    found = fit_calibration(scores, rows, rows["label"]).forecast(scores, rows)
    assert found["p_up"].tolist() == [float(labels[0] > 0)] * 4


def test_equal_scores_are_worth_the_mean():
    rows = held([0.03, -0.01], [1, 1])
    found = fit_calibration(np.ones(2), rows, rows["label"]).forecast(np.ones(2), rows)
    assert found["log_return"].tolist() == pytest.approx([0.01, 0.01])
    assert found["p_up"].tolist() == [0.5, 0.5]
