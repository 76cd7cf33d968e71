"""Lines over sessions as SVG: strokes stretch with the page, letters do not; styles are in a sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDE = 1000
"""Of what stretches, in its own units; heights are twice the pixels."""
LABEL = 14
"""Pixels above what is drawn, where the letters of the topmost line stand."""
FOOT = 18
"""Pixels below it, for the days."""
DAYS = 5
"""Days that are named below a plot, at most."""
TICKS = 4
"""Figures that are named beside it, about."""
Array = np.ndarray


@dataclass(frozen=True)
class Line:
    values: Array
    """(n,) by session; NaN where there is none."""
    style: str
    """Class in the style sheet."""
    label: str = ""
    """Stands at its end."""


@dataclass(frozen=True)
class Stems:
    """A stroke from 0 to each value."""

    values: Array
    style: str


@dataclass(frozen=True)
class Area:
    low: Array
    high: Array
    """(n,) each."""
    style: str


@dataclass(frozen=True)
class Dots:
    at: Sequence[int]
    """Indices of the sessions."""
    values: Sequence[float]
    style: str


@dataclass(frozen=True)
class Plot:
    """What is drawn over the same sessions, from the back to the front."""

    names: Sequence[str]
    """(n,) what each session is called below: its day, or how far ahead it is."""
    drawn: Sequence[Line | Stems | Area | Dots]
    height: int
    """Pixels of what is drawn."""
    figure: Callable[[float], str]
    """How a figure of the axis is written."""
    reach: tuple[float, float]
    """Ends of the axis."""
    base: float | None = None
    """Where the dashed line of what the rest is held against lies."""

    def svg(self, says: str) -> Markup:
        """As an element; `says` is for those who hear the page."""
        low, high = self.reach
        n = len(self.names)

        def y(values: Array | float) -> Array:
            return np.round(2 * self.height * (high - np.asarray(values)) / ((high - low) or 1))

        x = np.round(np.linspace(0, WIDE, n)) if n > 1 else np.zeros(n)
        inner, letters = [], []
        for tick in ticks(low, high):
            at = float(y(tick))
            inner.append(f'<path class="g" d="M0 {at:.0f}H{WIDE}"/>')
            letters.append(
                f'<text x="0" y="{LABEL + at / 2 - 3:.0f}">{escape(self.figure(tick))}</text>'
            )
        if self.base is not None:
            inner.append(f'<path class="z" d="M0 {float(y(self.base)):.0f}H{WIDE}"/>')
        for one in self.drawn:
            if isinstance(one, Line):
                inner.append(f'<path class="{one.style}" d="{path(x, y(one.values))}"/>')
            elif isinstance(one, Stems):
                stems = zip(x, y(one.values), strict=True)
                strokes = "".join(f"M{a:.0f} {float(y(0.0)):.0f}V{b:.0f}" for a, b in stems)
                inner.append(f'<path class="{one.style}" d="{strokes}"/>')
            elif isinstance(one, Area):
                there = np.append(y(one.low), y(one.high)[::-1])
                inner.append(f'<path class="{one.style}" d="{path(np.append(x, x[::-1]), there)}Z"/>')
            else:
                # A stroke of no length with round ends stays round however the picture is stretched.
                marks = "".join(
                    f"M{x[i]:.0f} {float(y(value)):.0f}h0"
                    for i, value in zip(one.at, one.values, strict=True)
                )
                inner.append(f'<path class="{one.style}" d="{marks}"/>')
        letters += _ends([one for one in self.drawn if isinstance(one, Line) and one.label], y)
        total = LABEL + self.height + FOOT
        for i, anchor in named(n):
            spare = ' class="spare"' if i not in (0, n - 1, round((n - 1) / 2)) else ""
            letters.append(
                f'<text{spare} x="{x[i] / WIDE:.1%}" y="{total - 4}" text-anchor="{anchor}">'
                f"{escape(self.names[i])}</text>"
            )
        return Markup(
            f'<svg class="plot" height="{total}" role="img" aria-label="{escape(says)}">'
            f'<svg y="{LABEL}" width="100%" height="{self.height}" preserveAspectRatio="none" '
            f'viewBox="0 0 {WIDE} {2 * self.height}">{"".join(inner)}</svg>{"".join(letters)}</svg>'
        )


def _ends(lines: Sequence[Line], y: Callable[[float], Array]) -> list[str]:
    """The names of lines at their ends, moved apart where they would lie on each other."""
    ends = []
    for line in lines:
        known = line.values[np.isfinite(line.values)]
        if len(known):
            ends.append((float(y(known[-1])) / 2, line))
    ends.sort(key=lambda end: end[0])
    found, last = [], -math.inf
    for at, line in ends:
        last = max(LABEL + at - 4, last + 13)
        found.append(
            f'<text class="of {line.style}" x="100%" y="{last:.0f}" text-anchor="end">'
            f"{escape(line.label)}</text>"
        )
    return found


def path(x: Array, y: Array) -> str:
    """Points joined, as steps from the one before; a new start after each gap."""
    known = np.isfinite(y)
    parts = []
    for run in np.split(np.arange(len(y)), np.flatnonzero(np.diff(known.astype(int))) + 1):
        if len(run) and known[run[0]]:
            steps = np.stack([np.diff(x[run]), np.diff(y[run])], axis=1).astype(int)
            moves = " ".join(f"{dx} {dy}" for dx, dy in steps.tolist())
            parts.append(f"M{x[run[0]]:.0f} {y[run[0]]:.0f}" + (f"l{moves}" if moves else "h0"))
    return "".join(parts).replace(" -", "-")


def ticks(low: float, high: float) -> list[float]:
    """Round figures between two ends, about `TICKS` of them: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def named(n: int) -> list[tuple[int, str]]:
    """Which of n sessions are named below a plot, and by which end of their name they hang."""
    at = sorted({round(i) for i in np.linspace(0, n - 1, min(DAYS, n))})
    ends = {0: "start", n - 1: "end"}
    return [(i, ends.get(i, "middle")) for i in at]


def shade(value: float | None, steps: Sequence[float]) -> str:
    """The class of a cell's colour: u1 for a rise from the first step on, d1 for a fall; "" below it."""
    step = 0 if value is None else sum(abs(value) >= each for each in steps)
    return f"{'u' if (value or 0) > 0 else 'd'}{step}" if step else ""


def reach_of(*values: Array) -> tuple[float, float]:
    """The least and the largest of some values; NaN are left out."""
    known = np.concatenate([np.ravel(each) for each in values])
    known = known[np.isfinite(known)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
