"""Scaling inside the model, fitted on training dates, so what is served is what was trained."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pitwise.features.indicators import BY_NAME, SCALE_FREE
from pitwise.features.scale_free import scale_free

CLIP = 5.0
"""Standard deviations at which an input saturates: one bad print must not swing the forecast."""


class Scaler(nn.Module):
    """Raw feature values to standard scores that do not know the stock's price or size.

    A price enters as its log relative to the window's last close, a price change as a fraction of
    that close, a share count as its log relative to the window's mean log volume; percentages and
    ratios enter as they are. Then each column of each session of the window is standardised and
    clipped: a price thirty sessions back lies nine times as far from the last close as yesterday's,
    and with one deviation for both, the newest session would hardly be seen.

    The columns come out grouped by unit, in the order of `self.order`.

    Args:
        features: of the windows, in their order; close among them.
        sessions: of the window, the last ones, that come out; share counts are relative to the mean of
            the whole window all the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Sequence[str], sessions: int):
        super().__init__()
        self.sessions = sessions
        units = [BY_NAME[name].unit for name in features]
        self.close = features.index("close")
        self.prices = [i for i, unit in enumerate(units) if unit == "price"]
        self.changes = [i for i, unit in enumerate(units) if unit == "price_change"]
        self.shares = [i for i, unit in enumerate(units) if unit == "shares"]
        self.plain = [i for i, unit in enumerate(units) if unit in SCALE_FREE]
        self.order = [*self.prices, *self.changes, *self.shares, *self.plain]
        self.register_buffer("mean", torch.zeros(sessions, len(features)))
        self.register_buffer("std", torch.ones(sessions, len(features)))

    def relative(self, windows: Tensor) -> Tensor:
        """(batch, window, n_features) raw to (batch, sessions, n_features), free of price level and
        share count."""
        seen = windows[:, -self.sessions :]
        last_close = windows[:, -1:, self.close : self.close + 1]
        parts = [scale_free(seen[..., self.prices], "price", last_close, torch)]
        if self.changes:
            parts.append(scale_free(seen[..., self.changes], "price_change", last_close, torch))
        if self.shares:
            log_shares = scale_free(windows[..., self.shares], "shares", last_close, torch)
            relative = log_shares - log_shares.mean(dim=1, keepdim=True)
            parts.append(relative[:, -self.sessions :])
        if self.plain:
            parts.append(seen[..., self.plain])
        return torch.cat(parts, dim=-1)

    def last_session(self, windows: Tensor) -> Tensor:
        """(batch, n) of the last session alone, as trees see it; share counts are left out.

        Prices are multiples of the close, without the logarithm: trees ask for the order of values
        alone, and a logarithm's last bit, which differs between libraries, would decide on a branch.
        """
        last = windows[:, -1]
        parts = [last[:, [*self.prices, *self.changes]] / last[:, self.close : self.close + 1]]
        if self.plain:
            parts.append(last[:, self.plain])
        return torch.cat(parts, dim=1)

    def forward(self, windows: Tensor) -> Tensor:
        return ((self.relative(windows) - self.mean) / self.std).clamp(-CLIP, CLIP)
