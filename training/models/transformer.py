"""The transformer: an encoder over the window, read where its last session looks."""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.models.inputs import KindParams
from training.models.lstm import SequenceDropout


class TransformerParams(KindParams):
    width: int = Field(ge=1)
    """Units of a session, throughout."""
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feedforward: int = Field(ge=1)
    """Units between the two layers that each session goes through by itself."""
    dropout: float = Field(ge=0, lt=1)
    dense: int = Field(ge=1)
    skip: bool = False
    """Whether the window's last session goes to the dense layer as well, past the encoder."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError("'width' should be a multiple of 'heads'")
        return self


class Transformer(nn.Module):
    """Encoder layers with learnt positions (Vaswani et al. 2017; normalised first, Xiong et al. 2020).

    What they make of the last session then asks all sessions, and the answer is the mean of these by
    `attention`, which `pitwise.registry.attention` reads from an exported file. Dropout is between the
    layers, a draw a unit and window as in the LSTM: inside of them, with a draw a session and one for
    each pair of sessions, it took more than half of the time.
    """

    def __init__(self, window: int, n_features: int, params: TransformerParams):
        super().__init__()
        width = params.width
        self.sessions = window
        self.embedding = nn.Linear(n_features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(window, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, params.heads, params.feedforward, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(params.layers)
        )
        self.dropout = SequenceDropout(params.dropout)
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.skip = params.skip
        before = width + (n_features if params.skip else 0)
        self.dense = nn.Sequential(nn.Linear(before, params.dense), nn.ReLU())
        self.size = params.dense

    def encoded(self, scores: Tensor) -> Tensor:
        """(batch, sessions, n_features) to (batch, sessions, width)."""
        values = self.embedding(scores) + self.positions
        for layer in self.layers:
            values = self.dropout(layer(values))
        return self.norm(values)

    def attention(self, encoded: Tensor) -> Tensor:
        """(batch, sessions, width) to the share of each session, (batch, sessions); sums to 1."""
        asked = self.query(encoded[:, -1:]) @ self.key(encoded).transpose(1, 2)
        return torch.softmax(asked[:, 0] / encoded.shape[-1] ** 0.5, dim=1)

    def forward(self, scores: Tensor) -> Tensor:
        """(batch, sessions, n_features) to (batch, size)."""
        encoded = self.encoded(scores)
        said = (self.attention(encoded)[:, None] @ encoded)[:, 0]
        return self.dense(torch.cat([said, scores[:, -1]], dim=1) if self.skip else said)
