"""Fitting a forecaster: weights and scaling see training dates, calibration validation dates."""

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor
from torch.nn import functional

from pitwise.stage import Params
from training.models.calibration import fit_calibration, logistic_loss
from training.models.forecaster import Forecaster
from training.models.gradient_boosting import GradientBoosting
from training.models.reproducible import reproducible
from training.models.windows import Batch, WindowDataset, batches

EVALUATION_BATCH = 512
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


class TailAverage(WeightAveraging):
    """The mean of the weights after each batch from `start` on (Polyak and Juditsky 1992)."""

    def __init__(self, start: int):
        super().__init__(use_buffers=False)
        self.start = start

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= self.start

    # Before there is a mean, the validation loss is that of the weights as they are.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self.start:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self.start:
            super().on_validation_epoch_end(trainer, pl_module)


class Training(pl.LightningModule):
    """The loss, the optimiser and the curve of one fit."""

    label_mean: Tensor
    label_std: Tensor

    def __init__(self, model: Forecaster, params: TrainParams, train: WindowDataset):
        super().__init__()
        self.model = model
        self.params = params
        self.curve: list[dict[str, float]] = []
        self._train_losses: list[Tensor] = []
        labels = label_of(train, params.label)
        std = labels.std()
        self.register_buffer("label_mean", labels.mean())
        self.register_buffer("label_std", torch.where(std > 0, std, 1.0))

    def loss(self, batch: Batch) -> Tensor:
        """Weighted MSE of the standardised label plus cross-entropy of its sign."""
        score, logit = self.model.scores(batch.windows).unbind(1)
        labels = label_of(batch, self.params.label)
        error = functional.mse_loss(score, (labels - self.label_mean) / self.label_std)
        entropy = functional.binary_cross_entropy_with_logits(logit, (labels > 0).float())
        return self.params.return_weight * error + self.params.direction_weight * entropy

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss(batch)
        self._train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("validation_loss", self.loss(batch), batch_size=len(batch.returns), prog_bar=True)

    def on_validation_end(self) -> None:
        self.curve.append(
            {
                "batches": self.global_step,
                "train_loss": float(torch.stack(self._train_losses).mean()),
                "validation_loss": float(self.trainer.callback_metrics["validation_loss"]),
            }
        )
        self._train_losses.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), lr=self.params.learning_rate, weight_decay=self.params.weight_decay
        )


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
    score, log_volatility = torch.cat(scores), torch.cat(volatilities)
    returns = validation.returns.numpy().astype("float64")
    location, log_scale = fit_calibration(score.numpy(), log_volatility.numpy(), returns)
    model.calibration.location.copy_(torch.from_numpy(location))
    model.calibration.log_scale.copy_(torch.from_numpy(log_scale))
    a, b, c, d = (*location, *log_scale)
    return logistic_loss(returns, a + b * score.numpy(), np.exp(c + d * log_volatility.numpy()))


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
        fit_scaling(model, train)
        curve, kept, seconds, seen = _descend(model, train, validation, params, progress)
        return Fit(model, curve, kept, calibrate(model, validation), seconds, seen / seconds)


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
) -> tuple[pd.DataFrame, int, float, int]:
    """Fit a net by gradient descent; the curve, the batches kept, seconds, windows seen."""
    training = Training(model, params, train)
    train_batches = batches(train, params.batch_size, shuffle=True)
    check = min(params.batches_per_check, len(train_batches), params.max_batches)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Lightning's advice on data-loading workers does not apply: a batch is one gather.
        warnings.simplefilter("ignore")
        clock = pl.callbacks.Timer()
        best = ModelCheckpoint(folder, monitor="validation_loss", save_weights_only=True)
        keeping: list[pl.Callback] = [
            EarlyStopping("validation_loss", patience=params.patience),
            best,
        ]
        if params.average is not None:
            last = min(params.passes * len(train_batches), params.max_batches)
            keeping = [TailAverage(int(last * (1 - params.average)))]
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            deterministic=True,
            max_steps=params.max_batches,
            max_epochs=params.passes,
            val_check_interval=check,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[*keeping, clock],
            logger=False,
            enable_checkpointing=params.average is None,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        trainer.fit(training, train_batches, batches(validation, EVALUATION_BATCH))
        if params.average is None:
            training.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    model.cpu().eval()
    curve, steps = pd.DataFrame(training.curve), trainer.global_step
    kept = steps
    if params.average is None:
        kept = int(curve.loc[curve["validation_loss"].idxmin(), "batches"])
    return curve, kept, clock.time_elapsed("train"), steps * params.batch_size
