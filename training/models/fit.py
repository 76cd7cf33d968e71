"""Fitting a forecaster: weights and scaling see training dates, calibration validation dates."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from rich.progress import track
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pitwise.stage import Params
from training.models.calibration import fit_calibration, logistic_loss
from training.models.forecaster import Forecaster
from training.models.gradient_boosting import GradientBoosting
from training.models.reproducible import reproducible
from training.models.windows import Batch, WindowDataset, batches

EVALUATION_BATCH = 512
LOOK = 100_000
"""Windows that a look at the validation loss sees at most, so that looks do not outweigh the fit."""
CONSTANT = 1e-6
"""What does not vary by more, beside 1 or its mean, is rounding and no deviation to divide by."""


class TrainParams(Params):
    seed: int = Field(ge=0)
    label: Literal["rank", "return"]
    """rank: of the return within its session | return: the return itself."""
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    return_weight: float = Field(ge=0)
    direction_weight: float = Field(ge=0)
    passes: int = Field(ge=1)
    max_batches: int = Field(ge=1)
    batches_per_check: int = Field(ge=1)
    average: float | None = Field(gt=0, le=1)
    """Share of the batches, the last ones, whose weights' mean is kept; None: the weights of the best
    validation loss are kept, and patience ends the fit."""
    patience: int = Field(ge=1)


def label_of(batch: Batch | WindowDataset, label: str) -> Tensor:
    """(n,) what is learnt."""
    return batch.ranks if label == "rank" else batch.returns


class Loss:
    """Weighted MSE of the standardised label plus cross-entropy of its sign; what one fit minimises.

    On a GPU what follows the scaler is computed in bfloat16, as far as torch's autocast has it so. The
    scaler is not: in three digits a price is the last close.
    """

    def __init__(self, params: TrainParams, train: WindowDataset):
        self.params = params
        labels = label_of(train, params.label)
        self.mean, self.std = float(labels.mean()), float(labels.std()) or 1.0

    def __call__(self, model: Forecaster, batch: Batch) -> Tensor:
        inputs = model.inputs(batch.windows)
        with torch.autocast("cuda", torch.bfloat16, enabled=batch.windows.is_cuda):
            score, logit = model.heads(model.body(inputs)).float().unbind(1)
        labels = label_of(batch, self.params.label)
        error = functional.mse_loss(score, (labels - self.mean) / self.std)
        entropy = functional.binary_cross_entropy_with_logits(logit, (labels > 0).float())
        return self.params.return_weight * error + self.params.direction_weight * entropy

    @torch.no_grad()
    def over(self, model: Forecaster, dataset: WindowDataset) -> float:
        """The mean over at most `LOOK` windows, evenly spread."""
        every = -(-len(dataset) // LOOK)
        model.eval()
        parts = [
            (self(model, batch) * len(batch.returns), len(batch.returns))
            for batch in batches(dataset, EVALUATION_BATCH, every=every)
        ]
        losses, counts = zip(*parts, strict=True)
        return float(torch.stack(losses).sum()) / sum(counts)


@torch.no_grad()
def fit_scaling(model: Forecaster, train: WindowDataset) -> None:
    """Set the means and deviations inside the model from the training windows alone."""
    total = torch.zeros_like(model.scaler.mean, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for batch in batches(train, EVALUATION_BATCH):
        relative = model.scaler.relative(batch.windows).double()
        total += relative.sum(dim=0)
        squares += relative.square().sum(dim=0)
    mean = total / len(train)
    std = (squares / len(train) - mean**2).clamp_min(0).sqrt()
    model.scaler.mean.copy_(mean)
    model.scaler.std.copy_(torch.where(std > CONSTANT * (1 + mean.abs()), std, 1.0))


@torch.no_grad()
def calibrate(model: Forecaster, validation: WindowDataset) -> float:
    """Set the calibration inside the model from the validation windows alone.

    Returns:
        the mean negative log-likelihood of their returns, in nats: of any kind, so that kinds compare.
    """
    scores, volatilities = [], []
    for batch in batches(validation, EVALUATION_BATCH):
        scores.append(model.scores(batch.windows)[:, 0])
        volatilities.append(model.calibration.log_volatility(model.closes(batch.windows)))
    score, log_volatility = (torch.cat(parts).cpu().numpy() for parts in (scores, volatilities))
    returns = validation.returns.cpu().numpy().astype("float64")
    location, log_scale = fit_calibration(score, log_volatility, returns)
    model.calibration.location.copy_(torch.from_numpy(location))
    model.calibration.log_scale.copy_(torch.from_numpy(log_scale))
    a, b, c, d = (*location, *log_scale)
    return logistic_loss(returns, a + b * score, np.exp(c + d * log_volatility))


@dataclass(frozen=True)
class Fit:
    """A fitted model and how it came to be."""

    model: Forecaster
    curve: pd.DataFrame
    """One row a check: batches (trees for boosted trees), train_loss (mean since the last check),
    validation_loss."""
    kept: int
    """Batches after which the model is as it is."""
    validation_loss: float
    """See `calibrate`."""
    seconds: float
    windows_per_second: float


def fit(
    build: Callable[[], Forecaster],
    train: WindowDataset,
    validation: WindowDataset,
    params: TrainParams,
    progress: bool = False,
) -> Fit:
    """Build a model and fit it, on a GPU where there is one; the same seed gives the same CPU weights.

    First weights, batches and dropout are drawn from `params.seed`. The process is left as it was, see
    `reproducible`. The validation loss is looked at every `batches_per_check` batches, or once a pass
    where a pass is shorter.
    """
    with reproducible(params.seed):
        model = build()
        if isinstance(model.body, GradientBoosting):
            return _grow(model, model.body.trees, train, validation, params)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, train, validation = model.to(device), train.to(device), validation.to(device)
        fit_scaling(model, train)
        clock = time.perf_counter()
        model, curve, kept = _descend(model, train, validation, params, progress)
        seconds = time.perf_counter() - clock
        loss = calibrate(model, validation)
        seen = int(curve["batches"].iloc[-1]) * params.batch_size
        return Fit(model.cpu(), curve, kept, loss, seconds, seen / seconds)


@torch.no_grad()
def _grow(
    model: Forecaster,
    trees: HistGradientBoostingRegressor,
    train: WindowDataset,
    validation: WindowDataset,
    params: TrainParams,
) -> Fit:
    """Fit trees to the label in standard deviations; after calibration again, to both parts.

    A fit takes seconds, and the newest sessions are worth having.
    """
    clock = time.perf_counter()

    def last_sessions(dataset: WindowDataset) -> np.ndarray:
        parts = [model.inputs(batch.windows) for batch in batches(dataset, EVALUATION_BATCH)]
        return torch.cat(parts).numpy()

    x, x_held = last_sessions(train), last_sessions(validation)
    y, y_held = (label_of(part, params.label).numpy().astype("float64") for part in (train, validation))
    mean, std = y.mean(), y.std() or 1.0
    y, y_held = (y - mean) / std, (y_held - mean) / std
    trees.set_params(random_state=params.seed).fit(x, y)
    staged = zip(trees.staged_predict(x), trees.staged_predict(x_held), strict=True)
    losses = [(np.mean((said - y) ** 2), np.mean((held - y_held) ** 2)) for said, held in staged]
    curve = pd.DataFrame(losses, columns=["train_loss", "validation_loss"])
    curve.insert(0, "batches", curve.index + 1)
    loss = calibrate(model, validation)
    trees.fit(np.concatenate([x, x_held]), np.concatenate([y, y_held]))
    seconds = time.perf_counter() - clock
    return Fit(model.eval(), curve, len(curve), loss, seconds, len(train) / seconds)


def _descend(
    model: Forecaster,
    train: WindowDataset,
    validation: WindowDataset,
    params: TrainParams,
    progress: bool,
) -> tuple[Forecaster, pd.DataFrame, int]:
    """Fit a net by gradient descent: the model that is kept, the curve, the batches it is of."""
    loss = Loss(params, train)
    optimizer = torch.optim.Adam(
        model.parameters(), params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    a_pass = -(-len(train) // params.batch_size)
    last = min(params.passes * a_pass, params.max_batches)
    check = min(params.batches_per_check, a_pass, last)
    first_averaged = last if params.average is None else int(last * (1 - params.average))
    averaged = AveragedModel(model)  # Polyak and Juditsky 1992
    kept, kept_of = cast(Forecaster, averaged.module), 0
    best, looks_since, losses, curve = math.inf, 0, [], []
    drawn = islice(_for_ever(train, params.batch_size), last)
    for step, batch in enumerate(track(drawn, "batches", last, disable=not progress), start=1):
        model.train()
        value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.detach())
        if step > first_averaged:
            averaged.update_parameters(model)
            kept_of = step
        if step % check and step < last:
            continue
        seen = loss.over(kept if step > first_averaged else model, validation)
        curve.append((step, float(torch.stack(losses).mean()), seen))
        losses.clear()
        if params.average is None:
            looks_since += 1
            if seen < best:
                best, looks_since, kept_of = seen, 0, step
                kept.load_state_dict(model.state_dict())
            if looks_since == params.patience:
                break
    table = pd.DataFrame(curve, columns=["batches", "train_loss", "validation_loss"])
    return kept.eval(), table, kept_of


def _for_ever(dataset: WindowDataset, size: int) -> Iterator[Batch]:
    """Pass after pass, each in an order of its own."""
    while True:
        yield from batches(dataset, size, shuffle=True)
