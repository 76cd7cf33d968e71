"""A report as one HTML file that opens offline: facts, tables and pictures, everything escaped.

Only here is anything drawn: matplotlib's SVG, inside the page as an image that can run no script.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

BLUE, ORANGE, GREY, PALE = "#1f77b4", "#d95f02", "#777777", "#b9c7d4"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, in the reader's own font
    "svg.hashsalt": "pitwise",  # the same figure gives the same bytes
    "text.parse_math": False,  # a symbol with dollar signs is no formula
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
WIDTH = 5.0
"""Inches of a picture: read in two columns on a desk, in one on a phone."""
SENTENCE = 40
"""Characters beyond which a cell may take several lines, and its table the page's width."""


@dataclass(frozen=True)
class Picture:
    """A figure under a title that names what it shows and in which units."""

    title: str
    source: str
    """A data URI."""
    text: str = ""
    size: str = ""
    """How many stand in a row: "" two, "third" three, "small" four, "wide" one."""


@dataclass(frozen=True)
class Table:
    """Rows as text, and how each column is set."""

    title: str
    columns: list[str]
    kinds: list[str]
    """"number", "sentence" or "" by column."""
    rows: list[list[str]]
    text: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, what it tells, and its tables and pictures in order."""

    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


@contextmanager
def drawing() -> Iterator[None]:
    """The block, or as a decorator the function, in which figures are made and drawn: their style."""
    with mpl.rc_context(STYLE):
        yield


def figure(height: float = 3.0, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of these inches and its panel; inside `drawing` only."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


def dates_below(axis: Axes, ticks: int = 6) -> None:
    """Short dates on the x axis, at most `ticks` or so."""
    locator = AutoDateLocator(minticks=2, maxticks=ticks)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def legend_above(axis: Axes) -> None:
    """The legend in one line over the panel, where it covers nothing."""
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def plain(axis: Axis) -> None:
    """Ticks as 1, 10 k, 2 M instead of powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: compact(x)))
    axis.set_minor_formatter(NullFormatter())


def one_two_five(axis: Axis) -> None:
    """A log scale of few decades, with ticks at 1, 2, 5, 10, 20."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain(axis)


def picture(title: str, drawn: Figure, text: str = "", size: str = "") -> Picture:
    """A figure as a picture; inside `drawing` only."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="svg", metadata=NO_METADATA)
    source = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, source, text, size)


def table(title: str, frame: pd.DataFrame, text: str = "", **formats: str) -> Table:
    """A frame as text; `formats` are format specs by column, else as many decimals as it needs."""
    columns, kinds = [], []
    for name in frame:
        number = pd.api.types.is_numeric_dtype(frame[name])
        spec = formats.get(name) or (_decimals(frame[name]) if number else "")
        cells = [_cell(value, spec) for value in frame[name]]
        long = max(map(len, cells), default=0) > SENTENCE
        columns.append(cells)
        kinds.append("number" if number else "sentence" if long else "")
    return Table(title, list(frame), kinds, [list(row) for row in zip(*columns, strict=True)], text)


def _decimals(numbers: pd.Series) -> str:
    known = numbers.dropna()
    return f",.{next((d for d in range(6) if known.round(d).equals(known)), 6)}f"


def _cell(value, spec: str) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:%Y-%m-%d}" if isinstance(value, pd.Timestamp) else format(value, spec)


def compact(number: float) -> str:
    """A number in three digits and a unit: 1.23 B, 45.6 M, 789, 0.5."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def words(name: str) -> str:
    """The name of a kind, baseline or portfolio as words."""
    return " ".join({"lstm": "LSTM", "ann": "ANN"}.get(word, word) for word in name.split("_"))


def page(title: str, lead: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole document. Every text, symbol and number in it is escaped."""
    return template("page.html").render(title=title, lead=lead, facts=facts, sections=sections)


def template(
    name: str, folder: Path | None = None, filters: Mapping[str, Callable[..., Any]] | None = None
) -> Template:
    """A template: what is put into it is escaped, and must be there.

    Args:
        folder: that it is in, and may include from before this one, which has `palette.css`; None: this.
        filters: of its own, by name.
    """
    here = Path(__file__).parent
    templates = Environment(
        loader=FileSystemLoader([folder or here, here]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(filters or {})
    return templates.get_template(name)
