"""Stage `backtest`: what the walk-forward's forecasts would have earned after costs, and other rules.

Only forecasts of sessions that their fit has not seen are traded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import BASIS_POINT, SESSIONS_A_YEAR, Costs, Result, backtest
from pitwise.decisions.backtest_sheet import tear_sheet_of
from pitwise.decisions.chance import chance
from pitwise.decisions.claims import Measured, claims, of_forecasts, of_portfolios
from pitwise.decisions.performance import Trials, defined, excess, interval, summary, trials
from pitwise.decisions.prices import Array, Prices, prices
from pitwise.decisions.strategies import (
    ALLOCATED,
    RANKED,
    BacktestParams,
    allocated,
    candidates,
    equal,
    ranked,
    sectors_of,
    wide,
)
from pitwise.errors import DataError
from pitwise.evaluation.luck import track
from pitwise.evaluation.sessions import mean_of_seeds
from pitwise.evaluation.trials import recorded_trials
from pitwise.reports.tear_sheet import TearSheet, tear_sheet
from pitwise.stage import load_params, run_stage
from pitwise.universe import read_sectors
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet

BARS = ["symbol", "date", "open", "close", "volume", "price_factor", "share_factor"]
EVENTS = ["symbol", "date", "kind", "status", "price_ratio"]
REPORT = "metrics/backtest.json"
PAGE = "reports/tear_sheet.html"
SESSIONS = "data/evaluation/backtest.parquet"


@dataclass(frozen=True)
class Outcome:
    document: dict
    """By portfolio its measures; random, claims and setup. What `metrics/backtest.json` has."""
    sheet: TearSheet
    sessions: pd.DataFrame
    """`portfolio`, `date` and what `backtest.Result.of_equity` has; what the dashboard draws."""


def read_prices(workspace: Workspace) -> Prices:
    """The prices of the workspace's clean bars, spin-offs in."""
    return prices(read_parquet(workspace.clean_bars, BARS), read_parquet(workspace.events, EVENTS))


def read_forecasts(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """The walk-forward's forecasts by kind, of the mean of the seeds; kinds that rank nothing stay."""
    said = read_parquet(workspace.walk_forward_forecasts)
    return {str(kind): rows for kind, rows in mean_of_seeds(said).groupby("kind", observed=True)}


def main(workspace: Workspace) -> None:
    document = write(workspace)
    for name in (key for key, one in document.items() if "dsr" in one):
        year, ratio = document[name]["annual_return"]["value"], document[name]["sharpe"]
        shown = "no Sharpe ratio"
        if ratio["ci95"]:
            low, high = ratio["ci95"]
            shown = f"Sharpe {ratio['value']:+.2f} ({low:+.2f} to {high:+.2f})"
        print(f"{name}: {year:+.1%} a year, {shown}")


def write(workspace: Workspace) -> dict:
    """Write the report and the tear sheet of a workspace; the report is returned, see `Outcome`.

    Raises:
        ParamsError, DataError: see `run`.
    """
    params = load_params(workspace, "backtest", BacktestParams)
    history = read_prices(workspace)
    walked = read_json(workspace.walk_forward_report)
    found = run(
        history,
        read_forecasts(workspace),
        params,
        champion=walked.get("champion"),
        horizon=walked["horizon"],
        sectors=sectors_of(read_sectors(workspace), history),
        recorded=[one.sharpe for one in recorded_trials(workspace) if one.sharpe is not None],
    )
    write_json(found.document, workspace.path(REPORT))
    write_parquet(found.sessions, workspace.path(SESSIONS))
    with replacing(workspace.path(PAGE)) as path:
        path.write_text(tear_sheet(found.sheet), encoding="utf-8")
    return found.document


def run(
    history: Prices,
    forecasts: dict[str, pd.DataFrame],
    params: BacktestParams,
    champion: str | None = None,
    horizon: int = 1,
    sectors: Array | None = None,
    recorded: Sequence[float] = (),
) -> Outcome:
    """Trade the forecasts, and what stands beside them.

    Args:
        history: also from before the first forecast, which covariance and usual volume look back on.
        forecasts: by kind, one row a symbol and session.
        champion: kind that `params.kind` None stands for; the first with returns where it has none here.
        horizon: sessions that the forecasts look ahead.
        sectors: of the history, see `strategies.sectors_of`.
        recorded: Sharpe ratios of what was tried before, of one session and before costs.

    Raises:
        DataError: no kind ranks symbols, or `params.kind` is not among the forecasts.
    """
    best = _kind(params.kind, champion, forecasts)
    period = _period(history, wide(forecasts[best], history, "score"), params)
    at = period.at
    scores = {
        kind: wide(table, history, "score")[at] for kind, table in forecasts.items() if _ranks(table)
    }
    expected = np.expm1(wide(forecasts[best], history, "log_return")[at] / horizon)
    usable = candidates(period.prices, scores[best])
    sector = None if sectors is None else sectors[at]
    targets = {
        f"{kind}_{strategy}": ranked(one, strategy, params, horizon, sector)
        for kind, one in scores.items()
        for strategy in RANKED
    }
    for strategy in ALLOCATED:
        first = period.prices.sessions[0]
        targets[strategy] = allocated(history, first, usable, expected, strategy, params, sector)
    beside = {"equal_weight": equal(usable, params), "market": equal(usable, params, once=True)}
    sessions = {
        name: period.trade(one).of_equity().iloc[1:]  # the first is cash
        for name, one in (beside | targets).items()
    }
    tried = trials([*recorded, *(_sharpe_before_costs(sessions[name]) for name in targets)])
    document = {name: _figures(name, sessions, tried, params) for name in sessions}
    drawn = {
        strategy: chance(scores[best], strategy, params, horizon, sector, period.trade)
        for strategy in RANKED
    }
    for kind in scores:
        for strategy, one in drawn.items():
            name = f"{kind}_{strategy}"
            document[name]["above_random"] = one.below(sessions[name])
    document["random"] = {strategy: one.percentiles() for strategy, one in drawn.items()}
    measured = _measured(best, forecasts, sessions, targets, scores[best], params, horizon)
    document["claims"] = claims(measured)
    document["setup"] = _setup(best, period.prices, tried, len(recorded), horizon, params)
    document = defined(document)
    name = f"{best}_top"
    again = partial(period.trade, targets[name])
    sheet = tear_sheet_of(name, document, sessions, forecasts, drawn["top"], again, params)
    table = pd.concat(sessions, names=["portfolio", "date"]).reset_index()
    return Outcome(document, sheet, table)


@dataclass(frozen=True)
class _Period:
    """The sessions that are traded: from the first with forecasts to the one after the last."""

    at: slice
    """In the history."""
    prices: Prices
    volatility: Array
    usual_volume: Array
    params: BacktestParams

    def trade(self, targets: Array, costs: Costs | None = None) -> Result:
        of = self.params
        spent = of.costs if costs is None else costs
        prices, volatility, volume = self.prices, self.volatility, self.usual_volume
        return backtest(prices, targets, spent, of.capital, of.trade_at, volatility, volume)


def _period(history: Prices, scores: Array, params: BacktestParams) -> _Period:
    rows = np.flatnonzero(np.isfinite(scores).any(axis=1))
    # The last decision is traded a session later.
    at = slice(rows[0], min(rows[-1] + 1, len(scores) - 1) + 1)
    prices = history.between(history.sessions[at][0], history.sessions[at][-1])
    volatility, volume = history.volatility()[at], history.usual_dollar_volume()[at]
    return _Period(at, prices, _filled(volatility), _filled(volume), params)


def _figures(
    name: str, sessions: dict[str, pd.DataFrame], tried: Trials, params: BacktestParams
) -> dict:
    """All figures of a portfolio, alone and, where it is another, above equal weight."""
    one, samples, seed = sessions[name], params.bootstrap_samples, params.seed
    found = summary(one, tried, samples, seed)
    alone = excess(one, params.capital, samples, seed)
    found |= {key: alone[key] for key in ("break_even_bp", "capacity")}
    if name != "equal_weight":
        above = excess(one, params.capital, samples, seed, sessions["equal_weight"]["ret"])
        found |= {f"{key}_over_equal_weight": value for key, value in above.items()}
    return found


def _sharpe_before_costs(sessions: pd.DataFrame) -> float:
    """Of one session, as the trials on record have it."""
    of = track(sessions["ret"] + sessions["cost"])
    return np.nan if of is None else of.sharpe


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


def _measured(
    best: str,
    forecasts: dict[str, pd.DataFrame],
    sessions: dict[str, pd.DataFrame],
    targets: dict[str, Array],
    scores: Array,
    params: BacktestParams,
    horizon: int,
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
    found |= of_forecasts(forecasts, best, round_trip, samples, seed, horizon)
    decided = targets[f"{best}_top"]
    decided = decided[np.isfinite(decided[:, 0])]
    if len(decided) > 1:
        forecast = np.isfinite(scores).sum(axis=1)
        symbols = forecast[forecast > 0].mean()
        changed = (np.diff(decided, axis=0) != 0).sum(axis=1)
        looked_at = changed[:, None] / symbols
        low, high = interval(looked_at, lambda drawn: 1 - drawn.mean(axis=0), samples, seed)
        beside = {"symbols_looked_at": changed.mean(), "symbols_forecast": symbols}
        found["analysis_time"] = Measured(1 - looked_at.mean(), low[0], high[0], beside)
    return found


def _setup(
    best: str, traded: Prices, tried: Trials, recorded: int, horizon: int, params: BacktestParams
) -> dict:
    return {
        "kind": best,
        "k": params.k,
        "trade_at": params.trade_at,
        "capital": params.capital,
        "costs": params.costs.model_dump(),
        "horizon": horizon,
        "rebalance_sessions": params.rebalance_sessions or horizon,
        "random_signals": params.random_signals,
        "trials": tried.n,
        "trials_on_record": recorded,
        "expected_max_sharpe": tried.best * SESSIONS_A_YEAR**0.5,
        "first_session": f"{traded.sessions[0]:%Y-%m-%d}",
        "last_session": f"{traded.sessions[-1]:%Y-%m-%d}",
        "n_sessions": len(traded.sessions) - 1,
    }


if __name__ == "__main__":
    run_stage(main)
