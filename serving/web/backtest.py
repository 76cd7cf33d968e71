"""What the walk-forward's portfolios earned, up to a moment, and at costs of which one is less sure.

Figures are those of `pitwise.decisions.performance`, in numpy alone: what a reader imports it keeps.
"""

from datetime import datetime
from typing import Any

import numpy as np

from serving.web.moment import Moment
from serving.web.pages import fixed, signed
from serving.web.plots import Line, Plot, reach_of, shade
from serving.web.sources import Sources
from serving.web.tracks import Track

MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of the costs in params.yaml, that one may look at."""
YEAR = 252
SAMPLES, SEED = 1000, 7
"""Of the bootstrap behind a 95% interval."""
FEWEST = 20
"""Sessions that a figure of a year needs."""
EQUAL = "equal_weight"
SHADES = (0.005, 0.01, 0.025, 0.05)
"""Returns of a month from which on it has the next stronger colour."""
RANKED = {"_long_short": "long and short {k}", "_top": "top {k}"}
ALLOCATED = {
    EQUAL: "equal weight",
    "market": "equal weight, bought once",
    "minimum_variance": "minimum variance",
    "hierarchical_risk_parity": "hierarchical risk parity",
    "mean_variance": "mean-variance with forecasts",
}
CLAIMS = {
    "risk_adjusted_return": "Sortino ratio above equal weight",
    "max_drawdown": "less deep a fall",
    "sharpe": "Sharpe ratio above equal weight",
    "portfolio_efficiency": "forecasts make portfolios efficient",
    "buy_recall": "opportunities found",
    "analysis_time": "time saved",
    "net_better": "LSTM better than ANN",
    "mape_lstm": "error of the LSTM",
    "mape_ann": "error of the ANN",
    "r2_lstm": "R² of the LSTM",
    "r2_ann": "R² of the ANN",
    "price_accuracy": "accuracy of prices",
}
SMALL = ("net_better", "r2_lstm", "r2_ann")
"""Claims whose figures are near 0."""
Array = np.ndarray


def annual(returns: Array) -> float:
    """The compounded return of a year; -1 where all was lost."""
    return float(np.prod(1 + returns) ** (YEAR / len(returns)) - 1) if (returns > -1).all() else -1.0


def sharpe(returns: Array) -> float | None:
    """Of a year; None where returns do not vary."""
    spread = returns.std(ddof=1)
    return float(returns.mean() / spread * YEAR**0.5) if spread > 1e-15 else None


def falls(returns: Array) -> Array:
    """(n,) value over the highest so far, the start included, less 1."""
    value = np.cumprod(1 + returns)
    return value / np.maximum(np.maximum.accumulate(value), 1) - 1


def figures(returns: Array, equal: Array) -> dict[str, Any]:
    """Return of a year, Sharpe ratio, deepest fall, and mean return above equal weight's.

    Returns:
        annual, annual_ci, sharpe, sharpe_ci, fall, over, over_ci. Intervals are of 95%, of circular
        blocks of sessions, the same for all figures; None with fewer than `FEWEST` sessions.
    """
    over = YEAR * float((returns - equal).mean())
    found: dict[str, Any] = {"annual": annual(returns), "sharpe": sharpe(returns), "over": over}
    found |= {"fall": float(falls(returns).min()), "n": len(returns)}
    found |= dict.fromkeys(("annual_ci", "sharpe_ci", "over_ci"))
    if len(returns) < FEWEST:
        return found
    from pitwise.evaluation.figures import block_length, block_means  # brings pandas

    n, block = len(returns), block_length(len(returns), 1)

    def drawn(values: Array) -> Array:
        return block_means(values, block, SAMPLES, SEED)

    def ci(draws: Array) -> tuple[float, float]:
        low, high = np.percentile(draws, [2.5, 97.5])
        return float(low), float(high)

    if (returns > -1).all():
        found["annual_ci"] = ci(np.expm1(YEAR * drawn(np.log1p(returns))))
    found["over_ci"] = ci(YEAR * drawn(returns - equal))
    mean = drawn(returns)
    variance = (drawn(returns**2) - mean**2) * n / (n - 1)
    if found["sharpe"] is not None and (variance > 1e-30).all():
        found["sharpe_ci"] = ci(mean / np.sqrt(variance) * YEAR**0.5)
    return found


def backtest_view(
    when: Moment, portfolio: str | None, costs: float, sources: Sources
) -> dict[str, Any] | None:
    """What the template `backtest.html` takes; None where nothing was known. It reads files.

    Args:
        portfolio: whose course is drawn; None, or one that is not there: the `top` of the kind that the
            backtest is of.
        costs: the multiple of the costs that is shown first; the others are on the page too.
    """
    found, document = sources.backtest(), sources.document("metrics/backtest.json")
    if not found or not document or EQUAL not in found:
        return None
    setup = document["setup"]
    past = {name: track.until(when.day) for name, track in found.items()}
    equal = past[EQUAL]
    if len(equal.day) < 2:
        return None
    usual = f"{setup['kind']}_top"
    chosen = next(name for name in (portfolio, usual, *past) if name in past)
    is_now = when.as_of is None
    rows = [
        {"name": name, "title": title(name, setup["k"])}
        | figures(track.ret, equal.ret)
        | {"turnover": float(track.traded.mean() / 2), "cost": float(track.cost.mean() * YEAR)}
        | _beside(document.get(name, {}) if is_now else {})
        for name, track in past.items()
    ]
    rows.sort(key=lambda row: -row["annual"])
    ours = next(row for row in rows if row["name"] == chosen)
    trials = [one for one in sources.trials() if _by(one["at"], when)]
    return {
        "setup": setup,
        "rows": rows,
        "ours": ours,
        "equal": next(row for row in rows if row["name"] == EQUAL),
        "verdict": verdict(ours) if chosen != EQUAL else None,
        "at_costs": _at_costs(past[chosen], equal, ours["title"]),
        "multiples": MULTIPLES,
        "multiple": min(MULTIPLES, key=lambda multiple: abs(multiple - costs)),
        "first": str(equal.day[0]),
        "last": str(equal.day[-1]),
        "n": len(equal.day),
        "claims": _claims(document["claims"]) if is_now else [],
        "random": _random(document["random"], chosen) if is_now else None,
        "trials": [_trial(one) for one in trials[::-1]],
    }


def title(name: str, k: int) -> str:
    """A portfolio as a person calls it."""
    if name in ALLOCATED:
        return ALLOCATED[name]
    for ending, words in RANKED.items():
        if name.endswith(ending):
            return f"{name.removesuffix(ending).replace('_', ' ')}, {words.format(k=k)}"
    return name.replace("_", " ")


def verdict(of: dict[str, Any]) -> str:
    """above | below | open: is it above equal weight by more than chance, one portfolio looked at."""
    if of["over_ci"] is None:
        return "open"
    low, high = of["over_ci"]
    return "above" if low > 0 else "below" if high < 0 else "open"


def _beside(of: dict[str, Any]) -> dict[str, Any]:
    """What the stage alone can tell: luck, and random signals."""
    return {
        "dsr": of["dsr"]["value"] if "dsr" in of else None,
        "above_random": of.get("above_random", {}).get("mean_return"),
        "break_even": of.get("break_even_bp"),
    }


def _at_costs(track: Track, equal: Track, name: str) -> list[dict[str, Any]]:
    """By multiple of the costs: figures, the course, the falls and the months of two portfolios."""
    ours = {multiple: track.at_costs(multiple) for multiple in MULTIPLES}
    other = {multiple: equal.at_costs(multiple) for multiple in MULTIPLES}
    courses = [100 * np.cumprod(1 + returns) for returns in (*ours.values(), *other.values())]
    depths = [falls(returns) for returns in (*ours.values(), *other.values())]
    days = np.datetime_as_string(track.day, "D").tolist()
    up, down = reach_of(*courses, np.array([100.0])), (reach_of(*depths)[0], 0.0)
    found = []
    for i, multiple in enumerate(MULTIPLES):
        j = i + len(MULTIPLES)
        course = Plot(
            days,
            [Line(courses[j], "base", ALLOCATED[EQUAL]), Line(courses[i], "l", name)],
            220,
            lambda value: fixed(value, 0),
            up,
            base=100.0,
        )
        fall = Plot(
            days,
            [Line(depths[j], "base"), Line(depths[i], "fall")],
            90,
            lambda value: f"{signed(100 * value, 0)}%",
            down,
        )
        found.append(
            {
                "multiple": multiple,
                "ours": figures(ours[multiple], other[multiple]),
                "equal": figures(other[multiple], other[multiple]),
                "cost": multiple * float(track.cost.mean() * YEAR),
                "course": course.svg(
                    f"100 dollars became {courses[i][-1]:.1f}, in equal weight {courses[j][-1]:.1f}"
                ),
                "falls": fall.svg(
                    f"deepest fall {depths[i].min():.1%}, of equal weight {depths[j].min():.1%}"
                ),
                "years": months(track.day, ours[multiple], other[multiple]),
            }
        )
    return found


def months(days: Array, ours: Array, equal: Array) -> list[dict[str, Any]]:
    """Compounded returns by year and month, the newest year first.

    Returns:
        year, and ours and equal, each 12 of the months (None where there is no session) and the year's.
    """
    month = days.astype("datetime64[M]").astype(int)
    by = {name: np.log1p(np.maximum(r, -1 + 1e-12)) for name, r in (("ours", ours), ("equal", equal))}
    found = []
    for year in np.unique(month // 12)[::-1]:
        row: dict[str, Any] = {"year": int(1970 + year)}
        for name, logs in by.items():
            cells = []
            for m in [*range(12), None]:
                here = month // 12 == year if m is None else month == 12 * year + m
                cells.append(float(np.expm1(logs[here].sum())) if here.any() else None)
            row[name] = cells
        found.append(row | {"shades": [shade(value, SHADES) for value in row["ours"]]})
    return found


def _claims(claims: dict[str, dict]) -> list[dict[str, Any]]:
    """Claims with what stands beside them in words."""
    return [
        {
            "name": CLAIMS.get(name, name.replace("_", " ")),
            "decimals": 4 if name in SMALL else 2,
            "beside": [(key.replace("_", " "), value) for key, value in claim.get("beside", {}).items()],
        }
        | {key: claim.get(key) for key in ("claimed", "means", "value", "ci95", "short_by", "why")}
        for name, claim in claims.items()
    ]


def _random(drawn: dict[str, Any], chosen: str) -> dict[str, float] | None:
    """The mean return of random signals that are traded by the same rule: p2.5, p50, p97.5."""
    strategy = next((ending[1:] for ending in RANKED if chosen.endswith(ending)), None)
    return drawn[strategy]["mean_return"] if strategy in drawn else None


def _trial(one: dict[str, Any]) -> dict[str, Any]:
    """With the Sharpe ratio of a year in place of a session's."""
    return one | {"sharpe": None if one["sharpe"] is None else one["sharpe"] * YEAR**0.5}


def _by(instant: str, when: Moment) -> bool:
    return when.instant is None or datetime.fromisoformat(instant).timestamp() * 1e6 <= when.instant
