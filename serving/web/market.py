"""The market at a moment: its move, its breadth, its map, its movers and its year."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from serving.state.market import MarketState
from serving.web.bars import SymbolBars
from serving.web.forecasts import live_bars
from serving.web.moment import Moment
from serving.web.sources import Sources

YEAR = 252
"""Sessions of the index and of what is usual."""
MOVERS = 8
STEPS = (0.25, 0.75, 1.5, 3.0)
"""Per cent from which a tile of the map has the next stronger colour."""
SIZE = (640.0, 400.0)
"""Of the map, in its own units."""
LETTER, LINE = 8.0, 14.0
"""Width of a symbol's letter and height of a line in a tile."""


@dataclass(frozen=True)
class Tile:
    """One symbol of the session."""

    symbol: str
    change: float
    """Simple return of the session."""
    in_volatility: float | None
    """Its log return in standard deviations of the 20 sessions before."""
    dollars: float
    """Close times volume."""


def market_view(when: Moment, state: MarketState, sources: Sources) -> dict[str, Any] | None:
    """What the template `market.html` takes; None before there are bars. It reads files."""
    known = sources.bars()
    if known is None:
        return None
    if when.as_of is None:
        bars: Mapping[str, SymbolBars] = live_bars(state, known, known.symbols)
    else:
        bars = {s: b for s in known.symbols if (b := known.of(s, when.instant)) is not None}
    tiles = [tile for symbol, b in bars.items() if (tile := _tile(symbol, b, when.day)) is not None]
    if not tiles:
        return None
    changes = np.array([tile.change for tile in tiles])
    days, mean, rose = by_session(list(bars.values()))
    year = slice(-YEAR, None)
    by_change = sorted(tiles, key=lambda tile: -tile.change)
    usual = float(mean[-YEAR - 1 : -1].std(ddof=1)) if len(mean) > YEAR else None
    return {
        "n": len(tiles),
        "n_all": len(bars),
        "change": float(changes.mean()),
        "median": float(np.median(changes)),
        "rose": float((changes > 0).mean()),
        "rose_usual": float(rose[year].mean()),
        "usual": usual,
        "spread": float(changes.std(ddof=1)) if len(changes) > 1 else None,
        "dollars": sum(tile.dollars for tile in tiles),
        "volatility": float(mean[-20:].std(ddof=1)) if len(mean) > 20 else None,
        "sentiment": _sentiment(when, sources),
        "map": heat_map(tiles),
        "steps": STEPS,
        "up": by_change[:MOVERS],
        "down": by_change[: -MOVERS - 1 : -1],
        "year": index_line(days[year], mean[year]),
        "first": str(days[year][0]),
        "grown": float(np.prod(1 + mean[year]) - 1),
    }


def _tile(symbol: str, bars: SymbolBars, day: str) -> Tile | None:
    """A symbol that has the session and the one before."""
    if len(bars.day) < 2 or str(bars.day[-1]) != day:
        return None
    move = float(bars.returns[-1])
    before = bars.returns[-21:-1]
    deviation = float(before.std(ddof=1)) if len(before) == 20 else 0.0
    in_volatility = move / deviation if deviation else None
    dollars = float(bars.close[-1] * bars.volume[-1])
    return Tile(symbol, float(np.expm1(move)), in_volatility, dollars)


def by_session(bars: Sequence[SymbolBars]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The days that returns end on, in order; of each the mean simple return and the share that rose.

    A symbol takes part in the sessions that it has: no index of a fixed membership.
    """
    days = np.concatenate([b.day[1:] for b in bars])
    returns = np.concatenate([np.expm1(b.returns) for b in bars])
    unique, at = np.unique(days, return_inverse=True)
    count = np.bincount(at)
    return unique, np.bincount(at, returns) / count, np.bincount(at, returns > 0) / count


def _sentiment(when: Moment, sources: Sources) -> dict[str, Any] | None:
    """The sentiment's row of the moment's session; None where there is none."""
    rows = sources.rows("data/predictions/sentiment.parquet") or []
    found = next((row for row in reversed(rows) if f"{row['date']:%Y-%m-%d}" == when.day), None)
    return found if found and found["sentiment"] is not None else None


def squarified(areas: Sequence[float], width: float, height: float) -> list[tuple[float, ...]]:
    """Rectangles (x, y, width, height) that fill a rectangle, near to squares.

    Args:
        areas: positive, the largest first; only their proportions count.

    Source: Bruls, Huizing and van Wijk, Squarified Treemaps, 2000.
    """
    scale = width * height / sum(areas)
    left = [area * scale for area in areas]
    x = y = 0.0
    placed: list[tuple[float, ...]] = []
    while left:
        side = min(width, height)
        n = 1
        while n < len(left) and _worst(left[: n + 1], side) <= _worst(left[:n], side):
            n += 1
        row, left = left[:n], left[n:]
        depth = sum(row) / side
        at = 0.0
        for area in row:
            length = area / depth
            placed.append((x, y + at, depth, length) if width >= height else (x + at, y, length, depth))
            at += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth
    return placed


def _worst(row: Sequence[float], side: float) -> float:
    """The largest ratio of a longer to a shorter side in a row of rectangles along `side`."""
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row)))


def heat_map(tiles: Sequence[Tile]) -> Markup:
    """The session's returns, area by dollar volume, as SVG."""
    shown = sorted((tile for tile in tiles if tile.dollars > 0), key=lambda tile: -tile.dollars)
    drawn = []
    boxes = squarified([tile.dollars for tile in shown], *SIZE) if shown else []
    for tile, (x, y, width, height) in zip(shown, boxes, strict=True):
        percent = 100 * tile.change
        step = sum(abs(percent) >= s for s in STEPS)
        kind = f"{'u' if percent > 0 else 'd'}{step}" if step else "u0"
        name = escape(tile.symbol)
        text = ""
        if width >= max(LETTER * len(tile.symbol) + 4, 32) and height >= LINE:
            middle = f'x="{x + width / 2:.1f}" text-anchor="middle"'
            has_figure = height >= 2.4 * LINE
            base = y + height / 2 + (1 if has_figure else 4)
            text = f'<text {middle} y="{base:.1f}">{name}</text>'
            if has_figure:
                text += f'<text class="q" {middle} y="{y + height / 2 + 13:.1f}">{percent:+.1f}</text>'
        drawn.append(
            f'<g class="{kind}"><title>{name} {percent:+.2f}%</title>'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width - 1, 0.5):.1f}" '
            f'height="{max(height - 1, 0.5):.1f}"/>{text}</g>'
        )
    return Markup("".join(drawn).replace(">-", ">\N{MINUS SIGN}"))


def index_line(days: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """The course of 100 dollars spread evenly anew each session, as an SVG path of 600 by 140."""
    worth = 100 * np.cumprod(1 + returns)
    low, high = min(float(worth.min()), 100.0), max(float(worth.max()), 100.0)

    def y(value: np.ndarray | float) -> Any:
        return 130 - 120 * (np.asarray(value) - low) / ((high - low) or 1)

    x = np.linspace(0, 600, len(worth))
    points = " ".join(f"{a:.0f} {b:.1f}" for a, b in zip(x, y(worth), strict=True))
    return {
        "path": f"M{points}",
        "base": f"{y(100.0):.1f}",
        "last": float(worth[-1]),
        "low": low,
        "high": high,
    }
