import numpy as np
import pandas as pd
import pytest
from support import small_runs as small

from pitwise.evaluation import baselines
from pitwise.evaluation.baselines import GradientBoostingParams
from pitwise.evaluation.ranking import TreesParams
from training.select import SelectParams

TRAIN_LABELS = np.array([0.04, -0.02, 0.0, -0.01, 0.02])
TREES = GradientBoostingParams(iterations=20, learning_rate=0.1, max_leaf_nodes=4, seed=0)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(6, 150, seed=9, momentum=0.5))


def trees(rows: pd.DataFrame, features=small.FEATURES, params=TREES) -> baselines.Forecast:
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    return baselines.gradient_boosting(train, test, features, params)


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


def test_trees_forecast_both_the_return_and_its_direction(rows):
    forecast = trees(rows)
    label = rows.loc[rows["split"] == "test", "label"].to_numpy()
    assert np.corrcoef(forecast.log_return, label)[0, 1] > 0.2
    assert np.corrcoef(forecast.p_up, label > 0)[0, 1] > 0.15
    assert (forecast.up == (forecast.p_up > 0.5)).all()


def test_trees_see_training_labels_only(rows):
    blind = rows.copy()
    blind.loc[blind["split"] != "train", ["label", "next_close"]] = np.nan
    seeing, unseeing = trees(rows), trees(blind)
    np.testing.assert_array_equal(seeing.log_return, unseeing.log_return)
    np.testing.assert_array_equal(seeing.p_up, unseeing.p_up)
    turned = rows.assign(label=rows["label"].where(rows["split"] != "train", -rows["label"]))
    assert not np.array_equal(trees(turned).log_return, seeing.log_return)


def test_trees_are_the_seeds(rows):
    np.testing.assert_array_equal(trees(rows).log_return, trees(rows).log_return)


@pytest.mark.parametrize(("sign", "p_up"), [(1, 1), (-1, 0)])
def test_trees_take_training_dates_on_which_all_moved_one_way(rows, sign, p_up):
    one_way = rows.assign(label=sign * (rows["label"].abs() + 0.001))
    forecast = trees(one_way)
    assert forecast.p_up == pytest.approx(np.full(len(forecast.p_up), p_up))
    assert np.unique(forecast.up).tolist() == [p_up == 1]


@pytest.mark.parametrize("features", [("close",), ("close", "volume")])
def test_features_that_params_allow_are_enough_for_the_trees(rows, features):
    SelectParams(method="fixed", n=1, max_correlation=0.95, features=features)
    forecast = trees(rows, features)
    assert len(forecast.log_return) == (rows["split"] == "test").sum()


# Baselines that are fitted on the rows of a fold

SMALL_TREES = TreesParams(iterations=40, learning_rate=0.1, max_leaf_nodes=4, rows_per_leaf=20, l2=0)


def test_every_baseline_has_its_name():
    names = ["persistence", "drift", "always_up", "reversal", "ridge", "gradient_boosting"]
    assert list(baselines.baselines(1, SMALL_TREES)) == names


@pytest.mark.parametrize("name", ["persistence", "drift", "always_up"])
def test_baselines_that_rank_nothing_say_what_the_functions_say(name, rows):
    train, test = (rows[rows["split"] == part] for part in ("train", "test"))
    found = baselines.baselines(1, SMALL_TREES)[name].fit(train).predict(test)
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


@pytest.mark.parametrize("name", list(baselines.baselines(1, SMALL_TREES)))
def test_a_forecast_has_the_rows_index_and_is_the_fits_alone(name, rows):
    train, test = (rows[rows["split"] == part] for part in ("train", "test"))
    turned = test.iloc[::-1].set_axis(range(1000, 1000 + len(test)))
    blind = turned.assign(label=np.nan, next_close=np.nan)
    seeing = baselines.baselines(1, SMALL_TREES)[name].fit(train)
    found = seeing.predict(blind)
    assert list(found) == ["score", "log_return", "p_up"]
    assert found.index.tolist() == turned.index.tolist()
    again = baselines.baselines(1, SMALL_TREES)[name].fit(train).predict(test)
    pd.testing.assert_frame_equal(found.iloc[::-1].set_axis(test.index), again)
