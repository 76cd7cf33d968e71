"""Small pictures as SVG whose colours the style sheet gives: no scripts, no inline styles."""

import numpy as np
from markupsafe import Markup

SPARK = (90, 22)
"""Width and height of a sparkline, in its own units."""
POINTS = 30


def sparkline(closes: np.ndarray) -> Markup:
    """The course of closes as a line of at most `POINTS` points, the last close among them."""
    if len(closes) < 2:
        return Markup("")
    width, height = SPARK
    at = np.unique(np.linspace(0, len(closes) - 1, min(len(closes), POINTS)).round().astype(int))
    shown = closes[at]
    low, high = shown.min(), shown.max()
    x = np.round(at / at[-1] * width).astype(int)
    y = np.round(1 + (high - shown) / (high - low or 1) * (height - 2)).astype(int)
    moves = "".join(f"{dx} {dy} " for dx, dy in zip(np.diff(x), np.diff(y), strict=True))
    path = f"M{x[0]} {y[0]}l{moves.rstrip()}".replace(" -", "-")
    return Markup(f'<svg class="sp" viewBox="0 0 {width} {height}"><path d="{path}"/></svg>')


def interval_bar(low: float, value: float, high: float, reach: float) -> Markup:
    """An interval around a value on an axis from -reach to +reach, with its zero."""

    def x(figure: float) -> int:
        return round(50 + 50 * max(-1.0, min(1.0, figure / reach)))

    return Markup(
        f'<svg class="iv" viewBox="0 0 100 12"><path class="z" d="M50 0V12"/>'
        f'<path class="b" d="M{x(low)} 6H{x(high)}"/><circle cx="{x(value)}" cy="6" r="2.5"/></svg>'
    )
