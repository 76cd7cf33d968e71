"""The LSTM: the window session by session."""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.models.ann import AnnParams


class LstmParams(AnnParams):
    dense: int = Field(ge=1)
    skip: bool = False
    """Whether the window's last session goes to the dense layer as well, past the LSTM layers."""


class SequenceDropout(nn.Dropout):
    """Drops a unit for all sessions of a window at once (Gal and Ghahramani 2016).

    One draw a unit and window; a draw a session as well took a tenth of the LSTM's training time.
    """

    def forward(self, values: Tensor) -> Tensor:
        """(batch, sessions, units) to the same shape."""
        whole = values.new_ones(values.shape[0], 1, values.shape[-1])  # len() would fix it in an export
        return values * functional.dropout(whole, self.p, self.training)


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
        self.sessions = min(params.sessions or window, window)
        self.skip = params.skip
        before = sizes[-1] + (n_features if params.skip else 0)
        self.dense = nn.Sequential(nn.Linear(before, params.dense), nn.ReLU())
        self.size = params.dense

    def forward(self, scores: Tensor) -> Tensor:
        """(batch, sessions, n_features) to (batch, size)."""
        newest = scores[:, -1]
        *inner, last = zip(self.recurrent, self.dropout, strict=True)
        for layer, dropout in inner:
            scores = dropout(layer(scores)[0])
        layer, dropout = last
        said = dropout(layer(scores)[0][:, -1])
        return self.dense(torch.cat([said, newest], dim=1) if self.skip else said)
