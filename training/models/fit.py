"""Fitting a forecaster: scaling and weights see training dates, early stopping validation dates."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn import functional

from pitwise.stage import Params
from training.models.forecaster import Forecaster
from training.models.reproducible import reproducible
from training.models.windows import Batch, WindowDataset, batches

EVALUATION_BATCH = 512


class TrainParams(Params):
    seed: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    return_weight: float = Field(ge=0)
    direction_weight: float = Field(ge=0)
    max_batches: int = Field(ge=1)
    batches_per_check: int = Field(ge=1)
    patience: int = Field(ge=1)


class Training(pl.LightningModule):
    """The loss, the optimiser and the curve of one fit."""

    def __init__(self, model: Forecaster, params: TrainParams):
        super().__init__()
        self.model = model
        self.params = params
        self.curve: list[dict[str, float]] = []
        self._train_losses: list[Tensor] = []

    def loss(self, batch: Batch) -> Tensor:
        """Weighted MSE of the standardised return plus cross-entropy of the direction."""
        windows, labels = batch
        score, logit = self.model.scores(windows)
        target = (labels - self.model.label_mean) / self.model.label_std
        error = functional.mse_loss(score, target)
        entropy = functional.binary_cross_entropy_with_logits(logit, (labels > 0).float())
        return self.params.return_weight * error + self.params.direction_weight * entropy

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss(batch)
        self._train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("validation_loss", self.loss(batch), batch_size=len(batch[1]), prog_bar=True)

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
    total = torch.zeros(len(model.scaler.order), dtype=torch.float64)
    squares, count = torch.zeros_like(total), 0
    for windows, _ in batches(train, EVALUATION_BATCH):
        relative = model.scaler.relative(windows).double()
        total += relative.sum(dim=(0, 1))
        squares += relative.square().sum(dim=(0, 1))
        count += relative.shape[0] * relative.shape[1]
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt()
    model.scaler.mean.copy_(mean)
    model.scaler.std.copy_(torch.where(std > 0, std, 1.0))
    model.label_mean.copy_(train.labels.mean())
    label_std = train.labels.std()
    model.label_std.copy_(torch.where(label_std > 0, label_std, 1.0))


@dataclass(frozen=True)
class Fit:
    """A fitted model (best validation loss restored) and how it came to be."""

    model: Forecaster
    curve: pd.DataFrame
    """One row a check: batches, train_loss (mean since the last check), validation_loss."""
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
    `reproducible`. The validation loss is checked every `batches_per_check` batches, or once a pass
    where a pass is shorter; `patience` checks without a better one end the fit.
    """
    with reproducible(params.seed):
        return _fit(build(), train, validation, params, progress)


def _fit(
    model: Forecaster,
    train: WindowDataset,
    validation: WindowDataset,
    params: TrainParams,
    progress: bool,
) -> Fit:
    fit_scaling(model, train)
    training = Training(model, params)
    train_batches = batches(train, params.batch_size, shuffle=True)
    check = min(params.batches_per_check, len(train_batches), params.max_batches)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Lightning's advice on data-loading workers does not apply: a batch is one gather.
        warnings.simplefilter("ignore")
        best = ModelCheckpoint(folder, monitor="validation_loss", save_weights_only=True)
        clock = pl.callbacks.Timer()
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            deterministic=True,
            max_steps=params.max_batches,
            max_epochs=-1,
            val_check_interval=check,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[EarlyStopping("validation_loss", patience=params.patience), best, clock],
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        trainer.fit(training, train_batches, batches(validation, EVALUATION_BATCH))
        training.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    seconds = clock.time_elapsed("train")
    seen = trainer.global_step * params.batch_size
    return Fit(model.cpu().eval(), pd.DataFrame(training.curve), seconds, seen / seconds)
