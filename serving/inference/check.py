"""Whether a version can be champion: what it makes of real windows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pitwise.errors import StoreError, one_line
from pitwise.features.errors import NonFiniteWindowError
from pitwise.registry.contract import ALL_OUTPUTS, INPUT, OUTPUTS
from pitwise.registry.model import RegisteredModel
from serving.inference.predictor import Forecasts, Predictor

CHECKED_SYMBOLS = 50
"""Symbols a version must forecast before it replaces the champion."""
MAX_LOG_RETURN = 1.0
"""No forecast moves a price by a factor of e, one of twenty sessions included."""
MAX_BATCH_EFFECT = 1e-5
"""onnxruntime sums in another order in another batch; a model of float32 moves by less than this."""
MAX_INCOHERENCE = 1e-4
"""Between p_up and the one that log_return and scale make."""


@contextmanager
def as_store_error(version: str) -> Iterator[None]:
    """Any error of fetching or running a version is a StoreError: a foreign file fails in many ways."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{version} cannot be fetched or run ({short(error)})") from error


def check_predictor(predictor: Predictor, symbols: Sequence[str]) -> None:
    """Check a version's forecasts of real windows, all together and one by one.

    Windows that are not finite are left out: they are the store's fault.

    Raises:
        StoreError: it breaks the contract of `pitwise.registry.contract`, or a forecast cannot be right.
            A file that does not run at all raises onnxruntime's own error.
    """
    _check_contract(predictor.model)
    try:
        together = predictor.forecast(symbols)
    except NonFiniteWindowError as error:
        symbols = [symbol for symbol in symbols if symbol not in error.symbols]
        if not symbols:
            raise
        together = predictor.forecast(symbols)
    if not together.symbols:
        raise StoreError(f"the online store has no window of {', '.join(symbols)} to check it on")
    outputs = _outputs(together)
    unit = [max(1, np.abs(together.score).max()), 1, 1, 1]  # a score may have any
    claims = {
        "a p_up outside 0 to 1": (together.p_up >= 0) & (together.p_up <= 1),
        f"a log_return beyond {MAX_LOG_RETURN:g}": np.abs(together.log_return) <= MAX_LOG_RETURN,
    }
    if "scale" in {node.name for node in predictor.model.session.get_outputs()}:
        with np.errstate(all="ignore"):
            apart = together.p_up - 1 / (1 + np.exp(-together.log_return / together.scale))
        claims |= {
            "a scale that is not above 0": together.scale > 0,
            "a p_up that is not that of its log_return and scale": np.abs(apart) <= MAX_INCOHERENCE,
        }
    for claim, holds in claims.items():
        if not holds.all():
            raise StoreError(f"it returns {claim} for {together.symbols[int(np.argmin(holds))]}")
    for i, symbol in enumerate(together.symbols):
        alone = predictor.forecast([symbol])
        if alone.window_hash != [together.window_hash[i]]:
            continue  # a bar came in between
        effect = np.nanmax(np.abs(_outputs(alone)[:, 0] - outputs[:, i]) / unit)
        if not effect <= MAX_BATCH_EFFECT:
            raise StoreError(f"its forecast of {symbol} depends on the batch, by {effect:.1e}")


def _outputs(forecasts: Forecasts) -> np.ndarray:
    """(outputs, symbols); the scale is NaN where the model has none."""
    return np.stack([getattr(forecasts, name) for name in ALL_OUTPUTS])


def _check_contract(model: RegisteredModel) -> None:
    """StoreError where the inputs and outputs of the file are not those of the contract."""
    inputs = {node.name: [node.type, *node.shape[1:]] for node in model.session.get_inputs()}
    wanted = {INPUT: ["tensor(float)", model.window, len(model.features)]}
    if inputs != wanted:
        raise StoreError(f"its inputs are {inputs}, its contract wants {wanted}")
    dimensions = {node.name: len(node.shape) for node in model.session.get_outputs()}
    wrong = [name for name in OUTPUTS if dimensions.get(name) != 1]
    if wrong:
        raise StoreError(f"it has no output {' and no '.join(wrong)} of one value a symbol")


def short(error: Exception) -> str:
    """An error of whatever kind, on one line of at most 300 characters."""
    return f"{type(error).__name__}: {one_line(error)}"[:300]
