import os
import random
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from support import small_runs as small
from torch.utils import deterministic

from training import KINDS
from training.models.fit import Fit, Loss, calibrate, fit, fit_scaling
from training.models.forecaster import Forecaster
from training.models.scaler import CLIP
from training.models.windows import WindowDataset, batches


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(8, 250, seed=7, momentum=0.5))


@pytest.fixture(scope="module")
def past_its_best(rows) -> Callable[[str], Fit]:
    """A fit of a kind that goes on past its best validation loss until patience ends it."""

    @cache
    def fitted(kind: str) -> Fit:
        return small.small_fit(kind, rows, learning_rate=0.03, patience=2, max_batches=2000)

    return fitted


def weights(model: torch.nn.Module) -> torch.Tensor:
    """Every parameter and buffer, end to end."""
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@torch.no_grad()
def mean_loss(model, rows: pd.DataFrame, dataset: WindowDataset) -> float:
    whole = dataset[list(range(len(dataset)))]
    return float(Loss(small.train_params(), small.part(rows, "train"))(model, whole))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_model(kind, rows):
    windows = small.all_windows(small.part(rows, "test"))
    said = [small.small_fit(kind, rows, seed, max_batches=60).model(windows)[0] for seed in (1, 1, 2)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


def of_the_process() -> dict:
    """What a fit could change for whatever runs after it."""
    return {
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "filled": deterministic.fill_uninitialized_memory,
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "environment": dict(os.environ),
    }


def test_a_fit_leaves_the_process_as_it_was_and_draws_nothing_from_it(rows, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    train, validation = small.part(rows, "train"), small.part(rows, "validation")
    params = small.train_params(seed=5, max_batches=6, batches_per_check=3)

    def fitted() -> torch.Tensor:
        before = of_the_process()
        build = partial(Forecaster, "ann", small.FEATURES, small.WINDOW, small.BODIES["ann"])
        model = fit(build, train, validation, params).model
        assert of_the_process() == before
        return weights(model)

    torch.manual_seed(1)
    first = fitted()
    torch.manual_seed(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.equal(fitted(), first)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_fit_that_fails_leaves_the_process_as_it_was():
    before = of_the_process()

    def build() -> Forecaster:
        random.random(), np.random.rand(), torch.rand(1)
        raise MemoryError

    with pytest.raises(MemoryError):
        fit(build, None, None, small.train_params())
    assert of_the_process() == before


@pytest.mark.parametrize("kind", ["ann", "lstm"])
def test_the_weights_with_the_best_validation_loss_are_kept(kind, rows, past_its_best):
    result = past_its_best(kind)
    losses = result.curve["validation_loss"]
    assert losses.idxmin() < len(losses) - 1, "the fit must go past its best for this to mean anything"
    assert mean_loss(result.model, rows, small.part(rows, "validation")) == pytest.approx(
        losses.min(), abs=1e-5
    )


def test_patience_ends_the_fit(past_its_best):
    curve = past_its_best("ann").curve
    assert curve["batches"].iloc[-1] < 2000
    assert curve["validation_loss"].idxmin() == len(curve) - 1 - 2


def test_the_curve_has_a_row_a_check(rows):
    curve = small.small_fit("ann", rows, max_batches=60, batches_per_check=15).curve
    assert list(curve) == ["batches", "train_loss", "validation_loss"]
    assert curve["batches"].tolist() == [15, 30, 45, 60]
    assert curve["train_loss"].iloc[-1] < curve["train_loss"].iloc[0]


def test_a_pass_shorter_than_a_check_is_checked_once_a_pass(rows):
    passes = -(-len(small.part(rows, "train")) // 64)
    curve = small.small_fit("ann", rows, max_batches=2 * passes, batches_per_check=10_000).curve
    assert curve["batches"].tolist() == [passes, 2 * passes]


def test_a_fit_of_fewer_batches_than_a_check_is_still_a_fit(rows):
    result = small.small_fit("ann", rows, max_batches=3, batches_per_check=15)
    assert result.curve["batches"].tolist() == [3]


@pytest.mark.parametrize("average", [None, 0.25])
def test_a_fitted_model_is_ready_to_run(rows, average):
    result = small.small_fit("ann", rows, max_batches=20, average=average)
    assert not any(module.training for module in result.model.modules())


def test_scaling_is_that_of_the_training_windows(rows):
    train = small.part(rows, "train")
    model = small.small_model("ann")
    fit_scaling(model, train)
    relative = model.scaler.relative(small.all_windows(train)).double().numpy()
    std = relative.std(axis=0)
    np.testing.assert_allclose(model.scaler.mean, relative.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(model.scaler.std, np.where(std > 1e-5, std, 1), rtol=1e-4)
    assert (std < 1e-6).any(), "the last close is its own unit"


def test_scaling_sees_no_row_after_the_training_dates(rows):
    changed = rows.copy()
    last = rows.loc[rows["split"] == "train", "event_timestamp"].max()
    after = rows["event_timestamp"] > last
    changed.loc[after, [*small.FEATURES, "label"]] *= 3
    models = [small.small_model("ann"), small.small_model("ann")]
    for model, table in zip(models, (rows, changed), strict=True):
        fit_scaling(model, small.part(table, "train"))
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_a_feature_that_never_varies_stays_finite(rows):
    model = small.small_model("ann")
    fit_scaling(model, small.part(rows.assign(rsi_14=50.0), "train"))
    scores = model.scaler(small.all_windows(small.part(rows.assign(rsi_14=50.0), "test")))
    assert scores.isfinite().all()
    assert scores.abs().max() <= CLIP


@pytest.mark.parametrize(("label", "values"), [("rank", "ranks"), ("return", "returns")])
def test_the_loss_weighs_squared_error_and_cross_entropy(rows, label, values):
    model = small.small_model("ann").eval()
    train = small.part(rows, "train")
    batch = train[list(range(50))]
    score, logit = model.scores(batch.windows).detach().double().numpy().T
    labels = getattr(batch, values).numpy()
    every = getattr(train, values).numpy()
    rose, p_up = labels > 0, 1 / (1 + np.exp(-logit))
    error = np.mean((score - (labels - every.mean()) / every.std(ddof=1)) ** 2)
    entropy = -np.mean(np.log(np.where(rose, p_up, 1 - p_up)))
    params = small.train_params(label=label, return_weight=2.0, direction_weight=3.0)
    loss = Loss(params, train)(model, batch).item()
    assert loss == pytest.approx(2 * error + 3 * entropy, rel=1e-4)


@torch.no_grad()
def test_a_look_is_at_few_windows_evenly_spread(rows, monkeypatch):
    model, train = small.small_model("ann").eval(), small.part(rows, "train")
    loss = Loss(small.train_params(), train)
    monkeypatch.setattr("training.models.fit.LOOK", 10)
    chosen = train[list(range(0, len(train), -(-len(train) // 10)))]
    assert 5 < len(chosen.returns) <= 10
    assert loss.over(model, train) == pytest.approx(loss(model, chosen).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["ann", "lstm", "transformer"])
def test_a_loss_is_computed_where_the_rows_were_brought(kind, rows):
    """On torch's device without numbers, which like a GPU takes no tensor of the CPU."""
    train = small.part(rows, "train")
    model = small.small_model(kind).to("meta")
    batch = next(batches(train.to(torch.device("meta")), 9, shuffle=True))
    loss = Loss(small.train_params(), train)(model, batch)
    loss.backward()
    assert {part.device.type for part in (*batch, loss)} == {"meta"}


def test_averaged_weights_are_those_at_the_end_of_the_passes(rows):
    passes = 2 * -(-len(small.part(rows, "train")) // 64)
    found = small.small_fit("ann", rows, average=0.5, passes=2)
    assert found.kept == passes
    last = small.small_fit("ann", rows, average=1e-9, passes=2).model
    assert not torch.equal(weights(found.model), weights(last))


def test_trees_are_calibrated_on_dates_they_had_not_seen_and_then_fitted_on_them_too(rows):
    found = small.small_fit("gradient_boosting", rows)
    both = [small.part(rows, name) for name in ("train", "validation")]
    x, y = (
        np.concatenate(parts)
        for parts in (
            [found.model.inputs(small.all_windows(part)) for part in both],
            [part.returns.numpy().astype("float64") for part in both],
        )
    )
    of_train = y[: len(both[0])]
    again = clone(found.model.body.trees).fit(x, (y - of_train.mean()) / of_train.std())
    np.testing.assert_allclose(found.model.body.trees.predict(x), again.predict(x), rtol=1e-9)
    assert found.validation_loss > calibrate(found.model, both[1])


def test_each_tree_is_a_row_of_the_curve(rows):
    curve = small.small_fit("gradient_boosting", rows).curve
    assert curve["batches"].tolist() == list(range(1, 41))
    assert (curve["train_loss"].diff()[1:] < 0).all()
