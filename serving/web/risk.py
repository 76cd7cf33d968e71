"""What one symbol can lose in a session, and how far its price may come in the sessions ahead."""

from typing import Any

import numpy as np
from markupsafe import Markup

from serving.web.bars import SymbolBars

WINDOW, LEAST = 500, 250
"""Sessions behind the figures, and how many they need."""
LEVELS = (0.95, 0.99)
AHEAD = 20
"""Sessions of the fan."""
PATHS, SEED = 4000, 7
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SHOWN = 60
"""Sessions before the fan."""
WIDE, HIGH, MARGIN = 640.0, 200.0, 6.0
"""Of the picture, in its own units."""


def risk_view(bars: SymbolBars | None) -> dict[str, Any] | None:
    """Value at risk and expected shortfall, volatility and its fan; None where the history is short.

    The methods are those of `pitwise risk` that fit nothing: the past returns themselves, and their
    shocks at the volatility of now, RiskMetrics' exponentially weighted one.
    """
    if bars is None or len(bars.returns) < LEAST:
        return None
    import pandas as pd

    from pitwise.decisions import drawdown, var, volatility  # bring scipy

    returns = np.expm1(bars.returns[-WINDOW:])
    if not np.ptp(returns) > 0:
        return None
    model = volatility.ewma(returns)
    paths = model.paths(returns, AHEAD, PATHS, np.random.default_rng(SEED))
    fan = volatility.fan(paths, QUANTILES)
    return {
        "n": len(returns),
        "first": str(bars.day[-len(returns)]),
        "tails": [
            (level, var.historical(returns, level), var.filtered(returns, level, model))
            for level in LEVELS
        ],
        "volatility": float(volatility.annual(model.forecast(returns, 1)[0])),
        "usual": float(volatility.annual(returns.var(ddof=1))),
        "drawdown": float(drawdown.drawdowns(pd.Series(returns)).min()),
        "worst": float(returns.min()),
        "ahead": [
            (sessions, *(float(q) for q in fan[:, sessions - 1])) for sessions in (1, 5, 10, AHEAD)
        ],
        "picture": fan_picture(bars.close[-SHOWN:], fan),
    }


def fan_picture(closes: np.ndarray, fan: np.ndarray) -> Markup:
    """The last closes and the bands of the sessions ahead, as SVG of `WIDE` by `HIGH`.

    Args:
        fan: (5, n) returns from the last close at the quantiles `QUANTILES`.
    """
    last = float(closes[-1])
    bands = last * (1 + np.column_stack([np.zeros(5), fan]))
    low, high = min(closes.min(), bands.min()), max(closes.max(), bands.max())
    step = WIDE / (len(closes) + fan.shape[1] - 1)

    def points(prices: np.ndarray, first: int) -> str:
        y = MARGIN + (HIGH - 2 * MARGIN) * (high - prices) / (high - low)
        return " ".join(f"{step * (first + i):.1f} {each:.1f}" for i, each in enumerate(y))

    def band(lower: np.ndarray, upper: np.ndarray) -> str:
        edge = points(upper, now)
        back = points(lower, now).split(" ")
        pairs = [" ".join(back[i : i + 2]) for i in range(0, len(back), 2)]
        return f"M{edge} {' '.join(reversed(pairs))}Z"

    now = len(closes) - 1
    y = MARGIN + (HIGH - 2 * MARGIN) * (high - last) / (high - low)
    return Markup(
        f'<path class="f1" d="{band(bands[0], bands[4])}"/>'
        f'<path class="f2" d="{band(bands[1], bands[3])}"/>'
        f'<path class="z" d="M{step * now:.1f} {y:.1f}H{WIDE:.0f}"/>'
        f'<path class="l" d="M{points(closes, 0)}"/>'
    )
