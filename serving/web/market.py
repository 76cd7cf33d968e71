"""The market at a moment: its move, its breadth, its map, its groups, its movers and its year."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from serving.state.market import MarketState
from serving.web.bars import MarketBars
from serving.web.groups import MOST, OTHERS, TOGETHER, WINDOW, Groups, clusters_at, sectors_at
from serving.web.moment import Moment
from serving.web.sources import Sources

YEAR = 252
"""Sessions of the index and of what is usual."""
MOVERS, NAMED = 8, 10
"""Symbols at each end of the movers, and named of a group."""
TILES = 1000
"""Of the map, the most traded symbols: more cannot be told apart."""
STEPS = (0.25, 0.75, 1.5, 3.0)
"""Per cent from which a tile of the map has the next stronger colour."""
SIZE = (640.0, 400.0)
"""Of the map, in its own units."""
LETTER, LINE = 8.0, 14.0
"""Width of a symbol's letter and height of a line in a tile."""
HEAD, GAP = 13.0, 3.0
"""Height of a group's name, and space between groups."""


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
        bars = known.market().with_live(state.features)
    else:
        bars = known.market(when.day, when.instant)
    tiles = tiles_of(bars, when.day)
    if not tiles:
        return None
    changes = np.array([tile.change for tile in tiles])
    days, mean, rose = by_session(bars)
    year = slice(-YEAR, None)
    dollars = {tile.symbol: tile.dollars for tile in tiles}
    groups = sectors_at(sources.sectors(), bars.symbols, when.day) or clusters_at(bars, dollars)
    by_change = sorted(tiles, key=lambda tile: -tile.change)
    usual = float(mean[-YEAR - 1 : -1].std(ddof=1)) if len(mean) > YEAR else None
    return {
        "n": len(tiles),
        "n_all": len(bars.symbols),
        "change": float(changes.mean()),
        "median": float(np.median(changes)),
        "rose": float((changes > 0).mean()),
        "rose_usual": float(rose[year].mean()),
        "usual": usual,
        "spread": float(changes.std(ddof=1)) if len(changes) > 1 else None,
        "dollars": sum(tile.dollars for tile in tiles),
        "volatility": float(mean[-20:].std(ddof=1)) if len(mean) > 20 else None,
        "sentiment": _sentiment(when, sources),
        "map": heat_map(tiles, groups),
        "tiles": TILES,
        "groups": group_rows(tiles, groups),
        "by": groups.by if groups else None,
        "clustered": MOST,
        "window": min(WINDOW, len(days) - 1),
        "together": TOGETHER,
        "dollars_usual": usual_dollars(bars),
        "steps": STEPS,
        "up": by_change[:MOVERS],
        "down": by_change[: -MOVERS - 1 : -1],
        "year": index_line(days[year], mean[year]),
        "first": str(days[year][0]),
        "grown": float(np.prod(1 + mean[year]) - 1),
    }


def tiles_of(bars: MarketBars, day: str) -> list[Tile]:
    """Of each symbol that has the session of a day and the one before, in order."""
    if len(bars.days) < 2:
        return []
    *before, moves = bars.returns(21)
    # A volatility of 20 returns; where the price stood still none that a move could be told in.
    deviations = np.std(before, axis=0, ddof=1) if len(before) == 20 else np.full(len(moves), np.nan)
    deviations = np.where(deviations > 0, deviations, np.nan)
    here = np.flatnonzero(bars.has(day) & ~np.isnan(moves))
    figures = (np.expm1(moves), moves / deviations, bars.close[-1] * bars.volume[-1])
    return [
        Tile(bars.symbols[i], change, None if relative != relative else relative, dollars)
        for i, change, relative, dollars in zip(here, *(f[here].tolist() for f in figures), strict=True)
    ]


def by_session(bars: MarketBars) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The days that returns end on, in order; of each the mean simple return and the share that rose.

    A symbol takes part in the sessions that it has: no index of a fixed membership.
    """
    count, rose, total = np.zeros((3, len(bars.days)))
    for part in bars.parts():
        returns = part.returns()
        is_there = ~np.isnan(returns)
        returns, at = returns[is_there], part.session[1:][is_there]
        count += np.bincount(at, minlength=len(count))
        rose += np.bincount(at, returns > 0, len(count))
        total += np.bincount(at, np.expm1(returns), len(count))
    has = count > 0
    return bars.days[has], total[has] / count[has], rose[has] / count[has]


def usual_dollars(bars: MarketBars) -> float:
    """What a session of the year before the last trades, by each symbol's own mean."""
    total = 0.0
    for part in bars.parts():
        dollars = (part.close * part.volume)[-YEAR - 1 : -1]
        count = (~np.isnan(dollars)).sum(axis=0)
        total += float((np.nansum(dollars, axis=0) / np.maximum(count, 1)).sum())
    return total


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


def group_rows(tiles: Sequence[Tile], groups: Groups | None) -> list[dict[str, Any]]:
    """Of each group what its symbols did in the session, the most traded first."""
    found = []
    for name, own in _grouped(tiles, groups):
        changes = np.array([tile.change for tile in own])
        found.append(
            {
                "name": name,
                "n": len(own),
                "change": float(changes.mean()),
                "rose": float((changes > 0).mean()),
                "dollars": sum(tile.dollars for tile in own),
                "largest": [tile.symbol for tile in own[:NAMED]],
            }
        )
    return found


def _grouped(tiles: Sequence[Tile], groups: Groups | None) -> list[tuple[str, list[Tile]]]:
    """Groups and their symbols by dollar volume, who is in none last; without groups one of no name."""
    by_name: dict[str, list[Tile]] = defaultdict(list)
    for tile in sorted(tiles, key=lambda tile: -tile.dollars):
        if tile.dollars > 0:
            by_name[groups.of.get(tile.symbol, OTHERS) if groups else ""].append(tile)
    return sorted(
        by_name.items(), key=lambda each: (each[0] == OTHERS, -sum(tile.dollars for tile in each[1]))
    )


def heat_map(tiles: Sequence[Tile], groups: Groups | None = None) -> Markup:
    """The session's returns, area by dollar volume, as SVG; groups beside each other."""
    most = sorted(tiles, key=lambda tile: -tile.dollars)[:TILES]
    named = _grouped(most, groups)
    named.sort(key=lambda each: -sum(tile.dollars for tile in each[1]))
    areas = [sum(tile.dollars for tile in own) for _, own in named]
    blocks = squarified(areas, *SIZE) if areas else []
    drawn = []
    for (name, own), (x, y, width, height) in zip(named, blocks, strict=True):
        head = HEAD if name and height > 3 * HEAD and width > LETTER * len(name) else 0.0
        if head:
            drawn.append(f'<text class="h" x="{x + 2:.1f}" y="{y + head - 3:.1f}">{escape(name)}</text>')
        gap = GAP if name else 0.0
        inside = max(width - gap, 1), max(height - head - gap, 1)
        inner = squarified([tile.dollars for tile in own], *inside)
        for tile, (left, top, w, h) in zip(own, inner, strict=True):
            drawn.append(_tile_drawn(tile, x + left, y + head + top, w, h))
    return Markup("".join(drawn).replace(">-", ">\N{MINUS SIGN}"))


def _tile_drawn(tile: Tile, x: float, y: float, width: float, height: float) -> str:
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
    return (
        f'<g class="{kind}"><title>{name} {percent:+.2f}%</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'height="{max(height - 1, 0.5):.1f}"/>{text}</g>'
    )


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
