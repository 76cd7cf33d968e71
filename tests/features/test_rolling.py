import numpy as np
import pytest

from pitwise.features import rolling
from pitwise.features.rolling import MANY_RUNS, decayed, skewness, std

RUNS = np.random.default_rng(3).normal(size=(2, 70)) + 100
ORACLES = {
    "total": np.sum,
    "highest": np.max,
    "lowest": np.min,
    "std": np.std,
    "skewness": lambda values: np.mean((values - values.mean()) ** 3) / np.std(values) ** 3,
}


@pytest.mark.parametrize("window", [3, 20, 31, 64])
@pytest.mark.parametrize("name", ORACLES)
def test_a_window_is_that_of_numpy_and_of_its_own_values_to_the_bit(name, window):
    extra = {"ddof": 0} if name == "std" else {}
    found = getattr(rolling, name)(RUNS, window, **extra)
    views = np.lib.stride_tricks.sliding_window_view(RUNS, window, axis=1)
    expected = np.apply_along_axis(ORACLES[name], -1, views)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)
    alone = getattr(rolling, name)(RUNS[:, -window:], window, **extra)
    assert alone[:, 0].tobytes() == found[:, -1].tobytes()


@pytest.mark.parametrize("value", [0.1, 7.0, 1e9 / 3])
def test_equal_values_have_no_deviation_at_all(value):
    same = np.full((1, 61), value)
    assert (std(same, 60, ddof=1) == 0).all()
    assert (skewness(same, 20) == 0).all()


def test_a_recursion_over_many_runs_is_that_over_each_to_the_bit():
    runs = np.random.default_rng(5).normal(size=(MANY_RUNS, 400))
    together = decayed(runs, 1 - 1 / 14)
    alone = np.vstack([decayed(run[None], 1 - 1 / 14) for run in runs])
    assert together.tobytes() == alone.tobytes()
