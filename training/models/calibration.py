"""What a score is worth: the distribution of the log return that goes with it."""

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from torch import Tensor, nn

FLATTEST = 1e-4
"""Volatility of a window whose price hardly moved: its scale stays above 0."""


class Calibration(nn.Module):
    """The log return is logistic about a + b * score, with the scale exp(c + d * log(volatility)).

    The volatility is that of the window's own closes, so a quiet stock and a wild one of equal score
    have different distributions.
    """

    location: Tensor
    log_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("location", torch.tensor([0.0, 0.0]))
        self.register_buffer("log_scale", torch.tensor([0.0, 1.0]))

    @staticmethod
    def log_volatility(closes: Tensor) -> Tensor:
        """Log of the root mean square of the daily log returns of (batch, window) closes; (batch,)."""
        squares = closes.log().diff(dim=1).square()
        return squares.mean(dim=1).sqrt().clamp_min(FLATTEST).log()

    def forward(self, score: Tensor, closes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch,) scores and (batch, window) closes to `log_return`, `p_up`, `scale`, each (batch,)."""
        log_return = self.location[0] + self.location[1] * score
        scale = torch.exp(self.log_scale[0] + self.log_scale[1] * self.log_volatility(closes))
        return log_return, torch.sigmoid(log_return / scale), scale


def logistic_loss(returns: np.ndarray, location: np.ndarray, scale: np.ndarray) -> float:
    """Mean negative log-likelihood of returns under logistic distributions, (n,) each; nats."""
    z = (returns - location) / scale
    return float(np.mean(np.log(scale) + z - 2 * log_expit(z)))


def fit_calibration(
    score: np.ndarray, log_volatility: np.ndarray, returns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) and (c, d) of `Calibration` by maximum likelihood; b is not below 0.

    A score that pointed the wrong way is worth nothing, not the opposite.

    Args:
        score, log_volatility, returns: (n,) of windows that the score was not fitted on.
    """
    inputs = np.stack([score, log_volatility]).astype("float64")
    mean, std = inputs.mean(axis=1), inputs.std(axis=1)
    std[std < 1e-9] = np.inf  # what does not vary says nothing: its coefficient is 0
    s, v = (inputs - mean[:, None]) / std[:, None]
    y = returns.astype("float64")
    unit = y.std() or 1.0
    y = y / unit

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        log_scale = p[2] + p[3] * v
        z = (y - p[0] - p[1] * s) * np.exp(-log_scale)
        down = 1 - 2 * expit(z)  # derivative by z, the other way round
        of_location, of_scale = down * np.exp(-log_scale), 1 + down * z
        gradient = [of_location.mean(), (of_location * s).mean()]
        gradient += [of_scale.mean(), (of_scale * v).mean()]
        return float(np.mean(log_scale + z - 2 * log_expit(z))), np.array(gradient)

    start = np.array([y.mean(), 0.0, np.log(np.sqrt(3) / np.pi), 0.0])
    bounds = [(None, None), (0, None), (-10, 10), (-3, 3)]
    a, b, c, d = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    b, d = b / std[0], d / std[1]
    location = unit * np.array([a - b * mean[0], b])
    return location, np.array([c - d * mean[1] + np.log(unit), d])
