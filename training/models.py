"""The models: raw windows in, next session's log return and probability of a rise out.

Scaling lives inside the model, fitted on training dates, so what is served is what was trained.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional

from feature_repo.indicators import BY_NAME, SCALE_FREE
from feature_repo.stage import Params

CLIP = 8.0
"""Standard deviations at which an input saturates: one bad print must not swing the forecast."""


class AnnParams(Params):
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...]

    @field_validator("dropout")
    @classmethod
    def _one_a_layer(cls, dropout: tuple[float, ...], read: ValidationInfo) -> tuple[float, ...]:
        if "hidden" in read.data and len(dropout) != len(read.data["hidden"]):
            raise ValueError("needs one rate for each layer of 'hidden'")
        return dropout


class LstmParams(AnnParams):
    dense: int = Field(ge=1)


class Scaler(nn.Module):
    """Raw feature values to standard scores that do not know the stock's price or size.

    A price enters as its log relative to the window's last close, a price change as a fraction of
    that close, a share count as its log relative to the window's mean log volume; percentages and
    ratios enter as they are. Then each column is standardised and clipped.

    The columns come out grouped by unit, in the order of `self.order`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Sequence[str]):
        super().__init__()
        units = [BY_NAME[name].unit for name in features]
        self.close = features.index("close")
        self.prices = [i for i, unit in enumerate(units) if unit == "price"]
        self.changes = [i for i, unit in enumerate(units) if unit == "price_change"]
        self.shares = [i for i, unit in enumerate(units) if unit == "shares"]
        self.plain = [i for i, unit in enumerate(units) if unit in SCALE_FREE]
        self.order = [*self.prices, *self.changes, *self.shares, *self.plain]
        self.register_buffer("mean", torch.zeros(len(features)))
        self.register_buffer("std", torch.ones(len(features)))

    def relative(self, windows: Tensor) -> Tensor:
        """(batch, window, n_features) raw to the same shape, free of price level and share count."""
        last_close = windows[:, -1:, self.close : self.close + 1]
        parts = [torch.log(windows[..., self.prices] / last_close)]
        if self.changes:
            parts.append(windows[..., self.changes] / last_close)
        if self.shares:
            log_shares = torch.log1p(windows[..., self.shares])
            parts.append(log_shares - log_shares.mean(dim=1, keepdim=True))
        if self.plain:
            parts.append(windows[..., self.plain])
        return torch.cat(parts, dim=-1)

    def forward(self, windows: Tensor) -> Tensor:
        return ((self.relative(windows) - self.mean) / self.std).clamp(-CLIP, CLIP)


class SequenceDropout(nn.Dropout):
    """Drops a unit for all sessions of a window at once (Gal and Ghahramani 2016).

    One draw a unit and window; a draw a session as well took a tenth of the LSTM's training time.
    """

    def forward(self, values: Tensor) -> Tensor:
        """(batch, sessions, units) to the same shape."""
        whole = values.new_ones(len(values), 1, values.shape[-1])
        return values * functional.dropout(whole, self.p, self.training)


class Ann(nn.Module):
    """The whole window at once through dense layers: 30 x 19 = 570 inputs, 256-128-64."""

    def __init__(self, window: int, n_features: int, params: AnnParams):
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        size = window * n_features
        for hidden, dropout in zip(params.hidden, params.dropout, strict=True):
            layers += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden
        self.layers = nn.Sequential(*layers)
        self.size = size

    def forward(self, scores: Tensor) -> Tensor:
        return self.layers(scores)


class Lstm(nn.Module):
    """The window session by session: LSTM layers of 64 and 32 units, then a dense layer of 16."""

    def __init__(self, window: int, n_features: int, params: LstmParams):
        super().__init__()
        sizes = [n_features, *params.hidden]
        self.recurrent = nn.ModuleList(
            nn.LSTM(before, after, batch_first=True) for before, after in pairwise(sizes)
        )
        *inner, last = params.dropout
        self.dropout = nn.ModuleList([*map(SequenceDropout, inner), nn.Dropout(last)])
        self.dense = nn.Sequential(nn.Linear(sizes[-1], params.dense), nn.ReLU())
        self.size = params.dense

    def forward(self, scores: Tensor) -> Tensor:
        *inner, last = zip(self.recurrent, self.dropout, strict=True)
        for layer, dropout in inner:
            scores = dropout(layer(scores)[0])
        layer, dropout = last
        return self.dense(dropout(layer(scores)[0][:, -1]))


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
