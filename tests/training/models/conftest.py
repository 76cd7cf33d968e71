"""The models that a run has by default, with random weights."""

from collections.abc import Callable

import pytest
from support.project import PROJECT

from pitwise.stage import load_params
from training.models.forecaster import BODIES, Forecaster
from training.select import SelectParams


@pytest.fixture(scope="session")
def default_model() -> Callable[[str], Forecaster]:
    """Of a kind: the features of `select.features`, windows of 30 sessions, the kind's own params."""
    features = load_params(PROJECT, "select", SelectParams).features
    return lambda kind: Forecaster(kind, features, 30, load_params(PROJECT, kind, BODIES[kind][1]))


@pytest.fixture(scope="session")
def weight_shapes() -> Callable[[Forecaster], list[list[int]]]:
    """The shapes of a model's weights, biases left out, in order."""
    return lambda model: [list(p.shape) for n, p in model.named_parameters() if "bias" not in n]
