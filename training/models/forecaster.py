"""The models: raw windows in, next session's log return and probability of a rise out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pitwise.stage import Params
from training.models.ann import Ann, AnnParams
from training.models.lstm import Lstm, LstmParams
from training.models.scaler import Scaler

BODIES: dict[str, tuple[type, type[Params]]] = {"ann": (Ann, AnnParams), "lstm": (Lstm, LstmParams)}


class Forecaster(nn.Module):
    """Scaler, body, two heads."""

    label_mean: Tensor
    label_std: Tensor

    def __init__(self, kind: str, features: Sequence[str], window: int, params: Params):
        super().__init__()
        self.scaler = Scaler(features)
        self.body = BODIES[kind][0](window, len(features), params)
        self.heads = nn.Linear(self.body.size, 2)
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_std", torch.ones(()))

    def scores(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised return and logit of a rise, each (batch,): what the loss is taken on."""
        heads = self.heads(self.body(self.scaler(windows)))
        return heads[:, 0], heads[:, 1]

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Raw windows (batch, window, n_features) to `log_return` and `p_up`, each (batch,)."""
        score, logit = self.scores(windows)
        return score * self.label_std + self.label_mean, torch.sigmoid(logit)
