"""Stage `backtest`: what the walk-forward's forecasts would have earned after costs, and other rules.

Only forecasts of sessions that their fit has not seen are traded.
"""

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import BASIS_POINT, Result, backtest
from pitwise.decisions.claims import Measured, claims, of_forecasts, of_portfolios
from pitwise.decisions.performance import (
    Trials,
    break_even_bp,
    capacity,
    defined,
    interval,
    summary,
    trials,
)
from pitwise.decisions.prices import Array, Prices, prices
from pitwise.decisions.strategies import (
    ALLOCATED,
    RANKED,
    BacktestParams,
    allocated,
    equal,
    random_scores,
    ranked,
    read_sectors,
    wide,
)
from pitwise.errors import DataError
from pitwise.evaluation.luck import track
from pitwise.evaluation.sessions import mean_of_seeds
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, write_json

BARS = ["symbol", "date", "open", "close", "volume", "price_factor", "share_factor"]
EVENTS = ["symbol", "date", "kind", "status", "price_ratio"]
REPORT = "metrics/backtest.json"
PERCENTILES = (2.5, 25, 50, 75, 97.5)


def read_prices(workspace: Workspace) -> Prices:
    """The prices of the workspace's clean bars, spin-offs in."""
    return prices(read_parquet(workspace.clean_bars, BARS), read_parquet(workspace.events, EVENTS))


def read_forecasts(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """The walk-forward's forecasts by kind, of the mean of the seeds; kinds that rank nothing stay."""
    said = read_parquet(workspace.walk_forward_forecasts)
    return {str(kind): rows for kind, rows in mean_of_seeds(said).groupby("kind", observed=True)}


def report(workspace: Workspace) -> dict:
    """The report of a workspace, see `run`; what `main` writes.

    Raises:
        ParamsError, DataError: see `run`.
    """
    params = load_params(workspace, "backtest", BacktestParams)
    history = read_prices(workspace)
    path = workspace.path(params.sectors) if params.sectors else None
    sectors = read_sectors(path, history.symbols)
    champion = read_json(workspace.walk_forward_report).get("champion")
    return run(history, read_forecasts(workspace), params, champion, sectors)


def main(workspace: Workspace) -> None:
    document = report(workspace)
    write_json(document, workspace.path(REPORT))
    for name in (key for key, one in document.items() if "dsr" in one):
        year, ratio = document[name]["annual_return"]["value"], document[name]["sharpe"]
        shown = "no Sharpe ratio"
        if ratio["ci95"]:
            low, high = ratio["ci95"]
            shown = f"Sharpe {ratio['value']:+.2f} ({low:+.2f} to {high:+.2f})"
        print(f"{name}: {year:+.1%} a year, {shown}")


def run(
    history: Prices,
    forecasts: dict[str, pd.DataFrame],
    params: BacktestParams,
    champion: str | None = None,
    sectors: list[str | None] | None = None,
) -> dict:
    """The report: by strategy its measures; claims, random, and setup.

    Args:
        history: also from before the first forecast, which covariance and usual volume look back on.
        forecasts: by kind, one row a symbol and session.
        champion: kind that `params.kind` None stands for; the first with returns where it has none here.
        sectors: of each symbol, for the limit by sector.

    Raises:
        DataError: no kind ranks symbols, or `params.kind` is not among the forecasts.
    """
    best = _kind(params.kind, champion, forecasts)
    days = wide(forecasts[best], history, "score")
    rows = np.flatnonzero(np.isfinite(days).any(axis=1))
    first, last = (
        rows[0],
        min(rows[-1] + 1, len(days) - 1),
    )  # the last decision is traded a session later
    traded = history.between(history.sessions[first], history.sessions[last])
    period = slice(first, last + 1)
    volatility = _filled(history.volatility()[period])
    volume = _filled(history.usual_dollar_volume()[period])

    def trade(targets: Array) -> Result:
        return backtest(
            traded, targets, params.costs, params.capital, params.trade_at, volatility, volume
        )

    scores = {
        kind: wide(table, history, "score")[period] for kind, table in forecasts.items() if _ranks(table)
    }
    results = {
        "equal_weight": trade(equal(traded, params)),
        "market": trade(equal(traded, params, True)),
    }
    targets = {
        f"{kind}_{strategy}": ranked(one, strategy, params, sectors)
        for kind, one in scores.items()
        for strategy in RANKED
    }
    expected = np.expm1(wide(forecasts[best], history, "log_return")[period])
    for strategy in ALLOCATED:
        targets[strategy] = allocated(history, traded.sessions[0], expected, strategy, params)
    results |= {name: trade(one) for name, one in targets.items()}
    sessions = {
        name: result.of_equity().iloc[1:] for name, result in results.items()
    }  # the first is cash

    tried = trials([_sharpe(sessions[name]) for name in targets])
    other = sessions["equal_weight"]["ret"]
    document: dict = {}
    for name, one in sessions.items():
        document[name] = summary(one, tried, params.bootstrap_samples, params.seed)
        document[name] |= {
            "break_even_bp": break_even_bp(one),
            "capacity": capacity(one, params.capital),
        }
        if name != "equal_weight":
            document[name] |= {
                "break_even_bp_over_equal_weight": break_even_bp(one, other),
                "capacity_over_equal_weight": capacity(one, params.capital, other),
            }
    chance = {strategy: _chance(scores[best], strategy, params, trade, sectors) for strategy in RANKED}
    for kind in scores:
        for strategy, drawn in chance.items():
            document[f"{kind}_{strategy}"]["above_random"] = _above(
                sessions[f"{kind}_{strategy}"], drawn
            )
    document["random"] = {strategy: _percentiles(drawn) for strategy, drawn in chance.items()}
    document["claims"] = claims(_measured(best, forecasts, sessions, targets, scores[best], params))
    document["setup"] = _setup(best, traded, tried, params)
    return defined(document)


def _kind(wanted: str | None, champion: str | None, forecasts: dict[str, pd.DataFrame]) -> str:
    ranking = [kind for kind, table in forecasts.items() if _ranks(table) and table["log_return"].any()]
    if wanted is not None and wanted not in ranking:
        raise DataError(
            f"backtest.kind: {wanted} has no forecasts that rank and have returns; "
            f"there are {', '.join(ranking) or 'none'}."
        )
    if not ranking:
        raise DataError("no kind of the walk-forward ranks symbols: there is nothing to trade on.")
    return wanted or (champion if champion in ranking else ranking[0])


def _filled(values: Array) -> Array:
    """With the session's median where there is none, once for all portfolios."""
    return np.where(np.isfinite(values), values, np.nanmedian(values, axis=1, keepdims=True))


def _ranks(table: pd.DataFrame) -> bool:
    """Some session has symbols with different scores."""
    of_session = table.groupby("event_timestamp")["score"]
    return bool((of_session.max() > of_session.min()).any())


def _sharpe(sessions: pd.DataFrame) -> float:
    of = track(sessions["ret"])
    return np.nan if of is None else of.sharpe


def _chance(scores: Array, strategy: str, params: BacktestParams, trade, sectors) -> pd.DataFrame:
    """Annual return, the same before costs, and Sharpe ratio of random signals; a row each."""
    rng = np.random.default_rng(params.seed)
    rows = []
    for _ in range(params.random_signals):
        result = trade(ranked(random_scores(scores, rng), strategy, params, sectors))
        rows.append(_short(result.of_equity().iloc[1:]))
    return pd.DataFrame(rows)


def _short(sessions: pd.DataFrame) -> dict[str, float]:
    """What random signals are compared by; means are of a year of 252 sessions, not compounded."""
    mean = 252 * sessions[["ret", "cost"]].mean()
    return {
        "mean_return": mean["ret"],
        "mean_return_before_costs": mean["ret"] + mean["cost"],
        "sharpe": _sharpe(sessions) * np.sqrt(252),
    }


def _above(sessions: pd.DataFrame, drawn: pd.DataFrame) -> dict[str, float]:
    """Share of the random signals that a strategy is above."""
    ours = _short(sessions)
    return {name: float((drawn[name] < value).mean()) for name, value in ours.items()}


def _percentiles(drawn: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {
        name: {f"p{at:g}": float(np.percentile(drawn[name], at)) for at in PERCENTILES} for name in drawn
    }


def _measured(
    best: str,
    forecasts: dict[str, pd.DataFrame],
    sessions: dict[str, pd.DataFrame],
    targets: dict[str, Array],
    scores: Array,
    params: BacktestParams,
) -> dict[str, Measured]:
    samples, seed = params.bootstrap_samples, params.seed
    names = ("risk_adjusted_return", "max_drawdown", "sharpe")
    top, other = sessions[f"{best}_top"]["ret"], sessions["equal_weight"]["ret"]
    found = of_portfolios(top, other, names, samples, seed)
    efficiency = of_portfolios(
        sessions["mean_variance"]["ret"], sessions["minimum_variance"]["ret"], ("sharpe",), samples, seed
    )
    if efficiency:
        found["portfolio_efficiency"] = efficiency["sharpe"]
    round_trip = 2 * (params.costs.commission_bp + params.costs.half_spread_bp) * BASIS_POINT
    found |= of_forecasts(forecasts, best, round_trip, samples, seed)
    decided = targets[f"{best}_top"]
    decided = decided[np.isfinite(decided[:, 0])]
    if len(decided) > 1:
        forecast = np.isfinite(scores).sum(axis=1)
        looked_at = (np.diff(decided, axis=0) != 0).sum(axis=1) / forecast[forecast > 0].mean()
        low, high = interval(looked_at[:, None], lambda drawn: 1 - drawn.mean(axis=0), samples, seed)
        found["analysis_time"] = Measured(1 - looked_at.mean(), low[0], high[0], {"equal_weight": 1.0})
    return found


def _setup(best: str, traded: Prices, tried: Trials, params: BacktestParams) -> dict:
    return {
        "kind": best,
        "k": params.k,
        "trade_at": params.trade_at,
        "capital": params.capital,
        "costs": params.costs.model_dump(),
        "trials": tried.n,
        "first_session": f"{traded.sessions[0]:%Y-%m-%d}",
        "last_session": f"{traded.sessions[-1]:%Y-%m-%d}",
        "n_sessions": len(traded.sessions) - 1,
    }


if __name__ == "__main__":
    run_stage(main)
