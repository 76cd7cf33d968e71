"""The page of a portfolio: what a person typed, and the pictures of what a worker told of it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from markupsafe import Markup, escape

from pitwise.errors import DataError
from serving.web.moment import Moment
from serving.web.pages import fixed, signed
from serving.web.plots import Area, Dots, Line, Plot, Stems, reach_of, shade
from serving.web.sources import Sources

Kind = Literal["weight", "shares"]
KINDS: dict[str, Kind] = {"shares": "shares", "weight": "weight", "weights": "weight"}
"""What the second column of a csv may be called."""
MATRIX = 50
"""Holdings of which the largest is worth a sentence."""
LARGEST = 12
"""Holdings in the table of contributions; the rest is one row."""
FIGURES = 12
"""Holdings up to which the correlations are written out."""
SHADES = (0.1, 0.3, 0.5, 0.7)
"""Correlations from which on a cell has the next stronger colour."""
CELL, NAME = 10, 34
"""Of the picture of the correlations, in its own units."""
TESTED = 0.05
"""Kupiec's p below which a value at risk was not right."""
STRATEGIES = {
    "top": "the strongest forecasts",
    "long_short": "long the strongest, short the weakest",
    "equal_weight": "equal weight",
    "minimum_variance": "minimum variance",
    "hierarchical_risk_parity": "hierarchical risk parity",
    "mean_variance": "mean-variance with forecasts",
    "none": "nothing: risk alone",
}
"""What a portfolio may be rebalanced to, as a person calls it."""
METHODS = {
    "historical": "historical",
    "normal": "normal",
    "cornish_fisher": "Cornish-Fisher",
    "filtered": "filtered historical",
}
MODELS = {"ewma": "EWMA", "garch": "GARCH(1,1)", "gjr_t": "GJR-GARCH, Student's t"}


def holdings_of(text: str, kind: Kind) -> tuple[dict[str, float], Kind]:
    """Amounts by symbol of lines such as `AAPL 100`, `AAPL,100` or `AAPL; 40%`.

    Args:
        kind: of the amounts, where no first line such as `symbol,weight` says it.

    Raises:
        DataError: there is no line, or one that cannot be read so; it is named.
    """
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    found: dict[str, float] = {}
    for i, line in lines:
        parts = [part.strip("\"' ") for part in re.split(r"[,;\t]\s*|\s+", line) if part.strip()]
        if not found and parts[0].lower() == "symbol":
            kind = KINDS.get(parts[1].lower() if len(parts) == 2 else "", "shares")
            if len(parts) != 2 or parts[1].lower() not in KINDS:
                raise DataError(
                    f"line {i}: has columns {', '.join(parts)}. Columns symbol and one of weight and "
                    "shares are needed."
                )
            continue
        if len(parts) != 2:
            raise DataError(f"line {i}: {line[:40]!r} is not a symbol and a number, such as AAPL 100.")
        symbol, amount = parts
        try:
            number = float(amount.removesuffix("%")) / (100 if amount.endswith("%") else 1)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise DataError(f"line {i}: {kind} {amount[:40]!r} is no number.")
        if symbol in found:
            raise DataError(f"line {i}: {symbol} is named twice; add the two up.")
        found[symbol] = number
    if not found:
        raise DataError("there is no line with a symbol and a number.")
    return found, kind


def portfolio_view(
    when: Moment, document: Mapping[str, Any] | None, sources: Sources
) -> dict[str, Any] | None:
    """What the template `portfolio.html` takes; None where there is nothing to show. It reads files.

    Args:
        document: see `portfolio_of`; without one it is of what stage `risk` told last: what is held by
            `risk.holdings` of params.yaml, else equal weights of the market.
    """
    if document is not None:
        risk = document["risk"]
        view = risk_view(risk) | {key: document[key] for key in ("ours", "market", "intervals")}
        return view | {
            "risk": risk,
            "holdings": document["holdings"],
            "gross": sum(abs(row["weight"]) for row in document["holdings"]),
            "sentences": sentences(document, view),
            "tested": tested(document["tested"]) if document["tested"] else None,
            "proposal": document["proposal"],
            "backtest": _backtest(when, sources),
            "usual": None,
        }
    reports = sources.document("metrics/risk.json") or {}
    name = "holdings" if reports.get("holdings") and "why" not in reports["holdings"] else "equal_weight"
    risk = reports.get(name)
    if not risk or "why" in risk or (when.as_of and risk["as_of"] > when.day):
        return None
    view = risk_view(risk)
    historical = [row for row in view["tails"] if row["method"] == "historical"]
    ours = {f"{key}_{row['level']:.0%}": row[key] for row in historical for key in ("var", "es")}
    return view | {
        "risk": risk,
        "ours": ours | {"volatility": None},
        "market": None,
        "intervals": {},
        "holdings": [],
        "gross": 1.0,
        "sentences": sentences({"risk": risk, "ours": ours}, view),
        "tested": None,
        "proposal": None,
        "backtest": {},
        "usual": name,
    }


def _backtest(when: Moment, sources: Sources) -> dict[str, Any]:
    """By portfolio what the backtest says of it, where all of it was known at the moment."""
    document = sources.document("metrics/backtest.json")
    if not document or (when.as_of and document["setup"]["last_session"] > when.day):
        return {}
    kind = document["setup"]["kind"]
    return {name.removeprefix(f"{kind}_"): one for name, one in document.items() if "dsr" in one}


def risk_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template takes of a document of `pitwise.decisions.risk.risk_report`."""
    rows = report["var"]
    longer = {
        (row["method"], row["level"]): row  # simulated, where a method is
        for by in ("scaling", "simulation")
        for row in rows
        if row["by"] == by
    }
    tails = [
        row
        | {
            "name": METHODS[row["method"]],
            "ten": longer[row["method"], row["level"]],
            "word": word(row["backtest"]),
        }
        for row in rows
        if row["horizon"] == 1
    ]
    models = [
        {
            "name": MODELS[row["model"]],
            "next": row["annual"][0],
            "last": row["annual"][-1],
            "fallback": row["fallback"],
        }
        for row in report["volatility"]["models"]
    ]
    contributions = report["contributions"]
    ends = [row[name] for row in contributions for name in ("weight", "share")]
    return {
        "tails": tails,
        "judged": next(row for row in tails if row["method"] == "filtered" and row["level"] == 0.95),
        "models": models,
        "ahead": len(report["volatility"]["models"][0]["annual"]),
        "fan": fan(report["volatility"]["fan"]),
        "contributions": [
            row | {"bar": share_bar(row["weight"], row["share"], min(*ends, 0.0), max(ends))}
            for row in contributions[:LARGEST]
        ],
        "n_more": report["holdings"] - len(contributions[:LARGEST]),
        "correlation": correlation(report["correlation"]),
        "fallbacks": sorted({row["fallback"] for row in rows if row["fallback"]}),
    }


def word(test: Mapping[str, Any] | None) -> str:
    """How a back-test came out: untested | held | too low | too cautious."""
    if test is None:
        return "untested"
    if test["kupiec_p"] >= TESTED:
        return "held"
    return "too low" if test["exceptions"] > test["expected"] else "too cautious"


def tested(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sessions of a back-test with the value at risk that was said before each, as a picture.

    Returns:
        picture, and exceptions: day, ret and said of the sessions beyond the 95%, the newest first.
    """
    ret, said = np.array(document["ret"]), -np.array(document["95%"])
    far = -np.array(document["99%"])
    beyond = np.flatnonzero(ret < said)
    low = reach_of(ret, said, far)[0]
    top = min(max(float(ret.max()), 0.0), -low)  # a single gain must not flatten all losses
    plot = Plot(
        document["day"],
        [
            Stems(np.minimum(ret, top), "ret"),
            Line(said, "var95", "95%"),
            Line(far, "var99", "99%"),
            Dots(beyond.tolist(), ret[beyond].tolist(), "over"),
        ],
        230,
        lambda value: f"{signed(100 * value, 1)}%",
        (low, top),
        base=0.0,
    )
    says = f"{len(beyond)} of {len(ret)} sessions lost more than the value at risk of 95%; listed below"
    exceptions = [
        {"day": document["day"][i], "ret": float(ret[i]), "said": float(said[i])} for i in beyond[::-1]
    ]
    return {"picture": plot.svg(says), "exceptions": exceptions}


def fan(document: Mapping[str, Any]) -> Markup:
    """The quantiles of the compounded return up to each coming session; today is 0."""
    bands = np.array([[0.0, *band] for band in document["returns"]])
    n = bands.shape[1] - 1
    names = ["now", *(f"{i} session" + ("s" if i > 1 else "") for i in range(1, n + 1))]
    percents = [f"{quantile:.0%}" for quantile in document["quantiles"]]
    plot = Plot(
        names,
        [
            Area(bands[0], bands[-1], "fan1"),
            Area(bands[1], bands[-2], "fan2"),
            Line(bands[0], "base", percents[0]),
            Line(bands[2], "l", "median"),
            Line(bands[-1], "base", percents[-1]),
        ],
        160,
        lambda value: f"{signed(100 * value, 1)}%",
        reach_of(bands),
        base=0.0,
    )
    ends = ", ".join(
        f"{percent} {signed(100 * band[-1], 1)}%" for percent, band in zip(percents, bands, strict=True)
    )
    return plot.svg(f"After {n} sessions: {ends}")


def share_bar(weight: float, share: float, low: float, high: float) -> Markup:
    """The share of the risk as a bar, the weight as a stroke across it, on an axis with these ends."""

    def x(value: float) -> str:
        return f"{1 + 118 * (value - low) / ((high - low) or 1):.1f}"

    return Markup(
        f'<svg class="share" viewBox="0 0 120 14"><path class="z" d="M{x(0.0)} 0V14"/>'
        f'<path class="b" d="M{x(0.0)} 7H{x(share)}"/><path class="w" d="M{x(weight)} 1V13"/></svg>'
    )


def correlation(document: Mapping[str, Any]) -> dict[str, Any]:
    """Correlations with those that move together beside each other.

    Returns:
        mean, clusters (with more than one symbol), symbols (in the order of the clusters) and `rows` of
        figures, or a `picture` where they are too many to be read; neither without a matrix.
    """
    clusters = document["clusters"]
    order = [symbol for cluster in clusters for symbol in cluster]
    found: dict[str, Any] = {"mean": document["mean"], "symbols": order, "rows": None, "picture": None}
    found["clusters"] = [cluster for cluster in clusters if len(cluster) > 1]
    matrix = document.get("matrix")
    if matrix is None or len(order) < 2:
        return found
    at = [document["symbols"].index(symbol) for symbol in order]
    values = np.array(matrix)[np.ix_(at, at)]
    if len(order) <= FIGURES:
        found["rows"] = [
            (symbol, [(value, shade(value, SHADES) if i != j else "") for j, value in enumerate(row)])
            for i, (symbol, row) in enumerate(zip(order, values.tolist(), strict=True))
        ]
    else:
        found["picture"] = matrix_picture(order, values)
    return found


def matrix_picture(symbols: Sequence[str], values: np.ndarray) -> Markup:
    """Correlations as squares; one path for each colour keeps it small."""
    squares: dict[str, list[str]] = {}
    for i, j in np.ndindex(values.shape):
        square = f"M{NAME + j * CELL} {i * CELL}h9v9h-9z"
        squares.setdefault("" if i == j else shade(float(values[i, j]), SHADES), []).append(square)
    squares.pop("", None)
    paths = "".join(f'<path class="{name}" d="{"".join(d)}"/>' for name, d in sorted(squares.items()))
    names = "".join(
        f'<text x="{NAME - 3}" y="{i * CELL + 8}" text-anchor="end">{escape(symbol)}</text>'
        for i, symbol in enumerate(symbols)
    )
    size = len(symbols) * CELL
    return Markup(
        f'<svg class="matrix" width="{2 * (NAME + size)}" viewBox="0 0 {NAME + size} {size}" '
        f'role="img" aria-label="Correlations of {len(symbols)} symbols; the groups are listed beside">'
        f"{paths}{names}</svg>"
    )


def sentences(document: Mapping[str, Any], view: Mapping[str, Any]) -> list[str]:
    """The verdict: what can be lost, how right that was, and where it comes from."""
    risk, ours = document["risk"], document["ours"]
    value, n = risk["value"], risk["holdings"]

    def loss(share: float) -> str:
        percent = f"{fixed(100 * share)}%"
        return percent if value == 1 else f"{fixed(share * value, 0)} ({percent})"

    worth = "" if value == 1 else f"worth {fixed(value, 0)} dollars "
    said = [
        f"{n} {f'symbols {worth}lose' if n > 1 else f'symbol {worth}loses'} "
        f"{loss(ours['var_95%'])} or more in one "
        f"session of 20, and {loss(ours['es_95%'])} in the mean of those sessions."
    ]
    test = view["judged"]["backtest"]
    if test:
        said.append(
            f"In {test['sessions']} past sessions what the filtered method said was exceeded "
            f"{test['exceptions']} times; {test['expected']:.0f} were to be expected "
            f"(p {fixed(test['kupiec_p'], 3)})."
        )
    else:
        said.append(f"It is untested: {view['judged']['untested']}.")
    most = risk["contributions"][0]
    if 1 < n <= MATRIX:
        said.append(
            f"{most['symbol']} is {100 * most['share']:.0f}% of the risk and "
            f"{signed(100 * most['weight'], 0).removeprefix('+')}% of the value."
        )
    return said
