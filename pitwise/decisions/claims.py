"""The claims of the notebook that this grew from, each defined in one line and measured.

Portfolios are compared over the same sessions, after costs. A change is ratio - 1, for the deepest fall
too: below 0 is less deep. None is a figure that the forecasts do not give.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.decisions.performance import interval, max_drawdown, sharpe, sortino, stated
from pitwise.decisions.prices import Array


class Claim(NamedTuple):
    claimed: float
    """What the notebook says."""
    means: str
    """What is measured, in one line."""


CLAIMS = {
    "risk_adjusted_return": Claim(0.25, "Sortino ratio of the top-k portfolio over equal weight's, - 1"),
    "max_drawdown": Claim(-0.20, "deepest fall of the top-k portfolio over equal weight's, - 1"),
    "sharpe": Claim(0.15, "Sharpe ratio of the top-k portfolio over equal weight's, - 1"),
    "portfolio_efficiency": Claim(
        0.15, "Sharpe ratio of mean-variance with forecasts over minimum variance without, - 1"
    ),
    "buy_recall": Claim(
        0.67,
        "of returns open to open above a round trip's cost, the share with a probability above half",
    ),
    "analysis_time": Claim(
        0.90, "1 - symbols that the top-k portfolio buys or sells at a decision / symbols forecast"
    ),
    "net_better": Claim(0.43, "1 - lstm's / ann's mean squared error of the log return"),
    "mape_lstm": Claim(9.6, "lstm: mean absolute error of the next close, in percent of it"),
    "mape_ann": Claim(52.3, "ann: mean absolute error of the next close, in percent of it"),
    "r2_lstm": Claim(-4.7, "lstm: 1 - squared error of the log return over its variance"),
    "r2_ann": Claim(-145.5, "ann: 1 - squared error of the log return over its variance"),
    "price_accuracy": Claim(90.4, "100 - the mean absolute percentage error of the next close"),
}


class Measured(NamedTuple):
    """A figure that a claim is held against, and what stands beside it."""

    value: float
    low: float
    high: float
    beside: dict[str, float]


def claims(found: dict[str, Measured]) -> dict[str, dict]:
    """All claims: claimed, means, value, ci95, beside, and short_by, by how much it is not reached.

    A claim that is not in `found` has None for a value, and says why it is not measured.
    """
    result = {}
    for name, claim in CLAIMS.items():
        one: dict = {"claimed": claim.claimed, "means": claim.means}
        if name not in found:
            result[name] = one | {"value": None, "ci95": None, "why": "the forecasts do not have it"}
            continue
        figure = found[name]
        one |= stated(figure.value, figure.low, figure.high)
        less_is_better = name in ("max_drawdown", "mape_lstm", "mape_ann")
        gap = figure.value - claim.claimed if less_is_better else claim.claimed - figure.value
        one["short_by"] = float(max(gap, 0.0)) if np.isfinite(gap) else None
        one["beside"] = {key: float(value) for key, value in figure.beside.items() if np.isfinite(value)}
        result[name] = one
    return result


def of_portfolios(
    ours: pd.Series, equal: pd.Series, names: tuple[str, ...], samples: int, seed: int
) -> dict[str, Measured]:
    """Changes of Sortino, fall and Sharpe of one portfolio against another, drawn together.

    A ratio says nothing where the other's figure is not above 0 (for the fall, below): it is left out.

    Args:
        ours, equal: simple returns by session, of the same sessions.
        names: which of risk_adjusted_return, max_drawdown, sharpe.
    """
    figures = {"risk_adjusted_return": sortino, "max_drawdown": max_drawdown, "sharpe": sharpe}
    both = np.column_stack([ours.to_numpy(float), equal.to_numpy(float)])
    usable = {}
    for name in names:
        other = figures[name](both[:, 1])
        if np.isfinite(other) and (other < 0 if name == "max_drawdown" else other > 0):
            usable[name] = figures[name]
    if not usable:
        return {}

    def changes(drawn: Array) -> Array:
        return np.array([_change(one(drawn[:, 0]), one(drawn[:, 1])) for one in usable.values()])

    low, high = interval(both, changes, samples, seed)
    return {
        name: Measured(
            value=changes(both)[i],
            low=low[i],
            high=high[i],
            beside={"ours": one(both[:, 0]), "other": one(both[:, 1])},
        )
        for i, (name, one) in enumerate(usable.items())
    }


def _change(ours: float, other: float) -> float:
    return ours / other - 1 if other != 0 else np.nan


def of_forecasts(
    tables: dict[str, pd.DataFrame],
    best: str,
    cost: float,
    samples: int,
    seed: int,
    horizon: int = 1,
) -> dict[str, Measured]:
    """What forecasts alone say: errors of two nets, and opportunities that were called.

    Args:
        tables: by kind, forecasts of which seeds are averaged, see `evaluation.sessions`.
        best: the kind whose signals are judged.
        cost: of a round trip, as a share of what is bought.
        horizon: sessions that the forecasts look ahead.
    """

    def interval_of(sums: pd.DataFrame, figure) -> tuple[float, float, float]:
        """A figure of sums by session, and its interval over blocks of sessions."""
        values = sums.to_numpy(float)
        low, high = interval(values, lambda drawn: np.array([figure(drawn)]), samples, seed, horizon)
        return float(figure(values)), float(low[0]), float(high[0])

    found = {}
    sums = {
        kind: _errors(tables[kind]) for kind in dict.fromkeys(("lstm", "ann", best)) if kind in tables
    }
    no_change = _errors(tables[best].assign(log_return=0.0)).to_numpy()
    none = _mape(no_change)
    for kind, table in sums.items():
        mape, r2 = interval_of(table, _mape), interval_of(table, _r2)
        if f"mape_{kind}" in CLAIMS:
            found[f"mape_{kind}"] = Measured(*mape, {"no_change": none})
            found[f"r2_{kind}"] = Measured(*r2, {"no_change": _r2(no_change)})
        if kind == best:
            value, low, high = mape
            found["price_accuracy"] = Measured(
                100 - value, 100 - high, 100 - low, {"no_change": 100 - none}
            )
    if {"lstm", "ann"} <= set(sums):
        both = sums["lstm"].join(sums["ann"], rsuffix="_ann")
        ratio = interval_of(both, lambda drawn: 1 - drawn[:, 2].sum() / drawn[:, 7].sum())
        mapes = {f"mape_{kind}": _mape(sums[kind].to_numpy()) for kind in ("lstm", "ann")}
        found["net_better"] = Measured(*ratio, mapes)
    table = tables[best]
    table = table[table["label_open"].notna() & table["p_up"].notna()]
    if len(table):
        up, called = np.expm1(table["label_open"]) > cost, table["p_up"] > 0.5
        paying = up & called & (np.expm1(table["log_return"]) > cost)
        counts = pd.DataFrame({"called": up & called, "up": up, "all": called, "paying": paying, "n": 1})
        daily = counts.groupby(table["event_timestamp"]).sum()
        recall = interval_of(daily, lambda drawn: drawn[:, 0].sum() / drawn[:, 1].sum())
        total = daily.sum()
        found["buy_recall"] = Measured(
            *recall,
            {
                "share_of_all_called": total["all"] / total["n"],
                "expected_to_pay_its_cost": total["paying"] / total["up"],
                "precision": total["called"] / total["all"] if total["all"] else np.nan,
                "precision_of_all": total["up"] / total["n"],
                "equal_weight": 1.0,
            },
        )
    return found


def _errors(table: pd.DataFrame) -> pd.DataFrame:
    """By session: sums of absolute percentage error, rows, squared error, return and its square."""
    rows = table[table["label"].notna() & table["log_return"].notna()]
    label, said = rows["label"].to_numpy(float), rows["log_return"].to_numpy(float)
    columns = {
        "percent": 100 * np.abs(np.exp(said - label) - 1),
        "n": 1.0,
        "squared": (label - said) ** 2,
        "label": label,
        "label_squared": label**2,
    }
    return pd.DataFrame(columns, index=rows.index).groupby(rows["event_timestamp"]).sum()


def _mape(sums: Array) -> float:
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _r2(sums: Array) -> float:
    total = sums.sum(axis=0)
    return float(1 - total[2] / (total[4] - total[3] ** 2 / total[1]))
