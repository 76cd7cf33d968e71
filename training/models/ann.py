"""The ANN: the whole window at once."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from training.models.inputs import KindParams


class AnnParams(KindParams):
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...]
    sessions: int | None = Field(default=None, ge=1)
    """How many of the window's sessions are seen, the last ones; None: all."""

    @field_validator("dropout")
    @classmethod
    def _one_a_layer(cls, dropout: tuple[float, ...], read: ValidationInfo) -> tuple[float, ...]:
        if "hidden" in read.data and len(dropout) != len(read.data["hidden"]):
            raise ValueError("needs one rate for each layer of 'hidden'")
        return dropout


class Ann(nn.Module):
    """The window's last sessions at once through dense layers."""

    def __init__(self, window: int, n_features: int, params: AnnParams):
        super().__init__()
        self.sessions = min(params.sessions or window, window)
        layers: list[nn.Module] = [nn.Flatten()]
        size = self.sessions * n_features
        for hidden, dropout in zip(params.hidden, params.dropout, strict=True):
            layers += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden
        self.layers = nn.Sequential(*layers)
        self.size = size

    def forward(self, scores: Tensor) -> Tensor:
        """(batch, sessions, n_features) to (batch, size)."""
        return self.layers(scores)
