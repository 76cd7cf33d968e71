"""Pictures that stand in the page itself, as SVG, so that they take its colours, light or dark.

A page that uses them has these colours in its style sheet: --up, --down, --mute, --ink, --line.
"""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pitwise.reports.page import NO_METADATA, WIDTH

MINUS = "\u2212"
UP, DOWN, GREY, INK, LINE = "#145ea8", "#b25614", "#5c6b7a", "#1b2733", "#dfe4ea"
COLOURS = {UP: "up", DOWN: "down", GREY: "mute", INK: "ink", LINE: "line"}
"""What is drawn with, and the names that the page has for it."""


def number(value: float | None, factor: float = 1, decimals: int = 2, signed: bool = False) -> str:
    """A number as the page shows it, the minus a minus; an en dash where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{factor * value:{'+' if signed else ''},.{decimals}f}"
    return text.replace("-", MINUS) if text.strip("+-0.") else text.lstrip("+-")


def inline(drawn: Figure, name: str, told: str) -> Markup:
    """A figure as SVG in the page itself, in the colours of its style sheet.

    Args:
        name: of the figure in the page; letters.
        told: what it shows, for who does not see it.
    """
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata=NO_METADATA, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{escape(told)}">',
        svg,
    )
    svg = re.sub(r"<style.*?</style>|<metadata.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg)


def panels(
    height: float, ratios: Sequence[float] = (1,), width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """An empty figure of these inches and its panels, one below the other, with the same x axis."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots(
        len(ratios), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
    )[:, 0]
    for axis in axes:
        axis.tick_params(colors=GREY, length=0)
        axis.grid(color=LINE, alpha=1, linewidth=0.6)
        axis.grid(visible=False, axis="x")
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.yaxis.set_major_locator(ticks(5))
    return drawn, list(axes)


def ticks(n: int) -> MaxNLocator:
    """At most n steps of 1, 2 or 5."""
    return MaxNLocator(n, steps=[1, 2, 5, 10])


def units(axis: Axis, factor: float = 1, unit: str = "", signed: bool = False) -> None:
    """Ticks as numbers in a unit, all with the decimals that tell them apart; once all is drawn."""
    at = factor * np.asarray(axis.get_majorticklocs())
    decimals = max(0, -int(np.floor(np.log10(np.diff(at).min()) + 1e-9)))
    axis.set_major_formatter(
        FuncFormatter(lambda x, _: number(x, factor, decimals, signed and abs(x) > 1e-12) + unit)
    )


def lines(
    axis: Axes, table: pd.DataFrame, labels: Mapping[str, tuple[str, str, str]], apart: float = 0.09
) -> None:
    """Lines, each with its label at its end; labels are kept apart by a share of the panel's height.

    A column without a number is left out.

    Args:
        labels: by column: label, colour, style.
    """
    ends = {}
    for name, (_, colour, style) in labels.items():
        known = table[name].dropna()
        if len(known):
            axis.plot(known.index, known, style, color=colour, linewidth=0.9 if style == "--" else 1.2)
            ends[name] = float(known.iloc[-1])
    low, high = axis.get_ylim()
    at = -np.inf
    for name in sorted(ends, key=ends.__getitem__):
        at = max(ends[name], at + apart * (high - low))
        beside(axis, at, *labels[name][:2])
    axis.margins(x=0)


def beside(axis: Axes, at: float, text: str, colour: str) -> None:
    """A label on the right of the panel, at a height of its y axis."""
    axis.annotate(
        text,
        (1, at),
        xycoords=axis.get_yaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
    )


def zero(axis: Axes) -> None:
    axis.axhline(0, color=GREY, linewidth=0.7)
