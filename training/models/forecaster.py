"""The models: raw windows in; a score and the distribution of the log return that goes with it out."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.models.ann import Ann, AnnParams
from training.models.calibration import Calibration
from training.models.gradient_boosting import GradientBoosting, GradientBoostingParams
from training.models.inputs import KindParams
from training.models.lstm import Lstm, LstmParams
from training.models.scaler import Scaler
from training.models.transformer import Transformer, TransformerParams

BODIES: dict[str, tuple[type, type[KindParams]]] = {
    "ann": (Ann, AnnParams),
    "lstm": (Lstm, LstmParams),
    "transformer": (Transformer, TransformerParams),
    "gradient_boosting": (GradientBoosting, GradientBoostingParams),
}


class Forecaster(nn.Module):
    """Scaler, body, two heads, calibration. The second head is of the direction and helps to train."""

    def __init__(self, kind: str, features: Sequence[str], window: int, params: KindParams):
        super().__init__()
        self.body = BODIES[kind][0](window, len(features), params)
        self.scaler = Scaler(features, self.body.sessions)
        self.heads = nn.Identity() if self.body.size is None else nn.Linear(self.body.size, 2)
        self.calibration = Calibration()

    def closes(self, windows: Tensor) -> Tensor:
        """(batch, window) of raw windows (batch, window, n_features)."""
        return windows[:, :, self.scaler.close]

    def inputs(self, windows: Tensor) -> Tensor:
        """What the body sees of raw windows."""
        if isinstance(self.body, GradientBoosting):
            return self.scaler.last_session(windows)
        return self.scaler(windows)

    def scores(self, windows: Tensor) -> Tensor:
        """What the heads say: (batch, 2) score and logit of the direction, or (batch, 1) the score."""
        return self.heads(self.body(self.inputs(windows)))

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Raw windows (batch, window, n_features) to `ALL_OUTPUTS` of the contract, each (batch,)."""
        score = self.scores(windows)[:, 0]
        return score, *self.calibration(score, self.closes(windows))
