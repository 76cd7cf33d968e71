import numpy as np
import pandas as pd
import pytest
from support import small_runs as small

from pitwise.evaluation import baselines

TRAIN_LABELS = np.array([0.04, -0.02, 0.0, -0.01, 0.02])


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(6, 150, seed=9, momentum=0.5))


def test_persistence_forecasts_no_move_and_no_direction():
    forecast = baselines.persistence(3)
    assert forecast.log_return.tolist() == [0, 0, 0]
    assert forecast.p_up is None
    assert forecast.up is None


def test_drift_forecasts_the_training_mean():
    forecast = baselines.drift(TRAIN_LABELS, 2)
    assert forecast.log_return == pytest.approx([0.006, 0.006])
    assert forecast.up.tolist() == [True, True]
    assert baselines.drift(-TRAIN_LABELS, 2).up.tolist() == [False, False]
    assert forecast.p_up is None


def test_always_up_forecasts_a_rise_with_the_training_share_of_rises():
    forecast = baselines.always_up(TRAIN_LABELS, 3)
    assert forecast.up.tolist() == [True] * 3
    assert forecast.p_up == pytest.approx([0.4] * 3)
    assert forecast.log_return is None


def test_a_model_calls_the_likelier_direction():
    forecast = baselines.of_model(np.array([-0.1, 0.1, 0.1], "float32"), np.array([0.6, 0.5, 0.4]))
    assert forecast.up.tolist() == [True, False, False]
    assert forecast.log_return.dtype == forecast.p_up.dtype == np.float64


# Baselines that are fitted on the rows of a fold


def test_every_baseline_has_its_name():
    names = ["persistence", "drift", "always_up", "reversal", "ridge"]
    assert list(baselines.baselines(1)) == names


@pytest.mark.parametrize("name", ["persistence", "drift", "always_up"])
def test_baselines_that_rank_nothing_say_what_the_functions_say(name, rows):
    train, test = (rows[rows["split"] == part] for part in ("train", "test"))
    found = baselines.baselines(1)[name].fit(train).predict(test)
    n, labels = len(test), train["label"].to_numpy()
    expected = {
        "persistence": baselines.persistence(n),
        "drift": baselines.drift(labels, n),
        "always_up": baselines.always_up(labels, n),
    }[name]
    assert (found["score"] == 0).all()
    for part in ("log_return", "p_up"):
        values = getattr(expected, part)
        np.testing.assert_array_equal(found[part], np.full(n, np.nan) if values is None else values)


@pytest.mark.parametrize("name", list(baselines.baselines(1)))
def test_a_forecast_has_the_rows_index_and_is_the_fits_alone(name, rows):
    train, test = (rows[rows["split"] == part] for part in ("train", "test"))
    turned = test.iloc[::-1].set_axis(range(1000, 1000 + len(test)))
    blind = turned.assign(label=np.nan, next_close=np.nan)
    seeing = baselines.baselines(1)[name].fit(train)
    found = seeing.predict(blind)
    assert list(found) == ["score", "log_return", "p_up"]
    assert found.index.tolist() == turned.index.tolist()
    again = baselines.baselines(1)[name].fit(train).predict(test)
    pd.testing.assert_frame_equal(found.iloc[::-1].set_axis(test.index), again)
