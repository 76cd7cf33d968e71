"""The figures of a back-tested portfolio's tear sheet, which `pitwise.reports.tear_sheet` draws."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import BASIS_POINT, SESSIONS_A_YEAR, Costs, Result
from pitwise.decisions.backtest_var import judged, past_vars
from pitwise.decisions.chance import Chance
from pitwise.decisions.drawdown import deepest, drawdowns
from pitwise.decisions.performance import annual_return
from pitwise.decisions.strategies import BacktestParams
from pitwise.evaluation.figures import block_length, block_means
from pitwise.evaluation.sessions import SESSION, by_session
from pitwise.reports.tear_sheet import TearSheet

FALLS = 5
ROLLING = 126
"""Sessions of a rolling Sharpe ratio: half a year; a quarter of the track where that is less."""
MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Of the costs, that the portfolio is traded at again."""
VAR_WINDOW = 250
LEVELS = (0.95, 0.99)
METHODS = ("historical", "filtered")
QUANTILES = 10


def tear_sheet_of(
    name: str,
    document: dict,
    sessions: dict[str, pd.DataFrame],
    forecasts: dict[str, pd.DataFrame],
    chance: Chance,
    trade: Callable[[Costs], Result],
    params: BacktestParams,
) -> TearSheet:
    """The sheet of one portfolio, by rank of the forecasts of `document["setup"]["kind"]`.

    Args:
        name: of the portfolio, in the document and the sessions.
        document: see `backtest_stage.Outcome`.
        sessions: by portfolio, see `backtest.Result.of_equity`.
        forecasts: by kind, see `backtest_stage.run`.
        chance: of the same strategy.
        trade: the portfolio's targets at other costs.
    """
    ours, equal = sessions[name], sessions["equal_weight"]
    kind, horizon = document["setup"]["kind"], document["setup"]["horizon"]
    returns = pd.DataFrame({"ours": ours["ret"], "equal": equal["ret"]})
    before_costs = (1 + ours["ret"] + ours["cost"]).cumprod()
    window = min(ROLLING, max(len(ours) // 4, 2))
    rolling = returns.rolling(window)
    quantiles = quantile_returns(forecasts[kind])
    tails, tests = value_at_risk(ours["ret"])
    return TearSheet(
        name=name,
        document=document,
        equity=(1 + returns)
        .cumprod()
        .assign(before_costs=before_costs, low=chance.band[0], high=chance.band[1]),
        drawdown=returns.apply(drawdowns),
        falls=deepest(ours["ret"], FALLS),
        rolling=window,
        sharpe=(rolling.mean() / rolling.std() * SESSIONS_A_YEAR**0.5).dropna(how="all"),
        monthly=compounded(returns, "M"),
        annual=compounded(returns, "Y"),
        rank_ic=rank_ics(forecasts, kind, horizon),
        quantiles=means(quantiles / horizon, horizon, params.bootstrap_samples, params.seed),
        spread=(quantiles.iloc[:, -1] - quantiles.iloc[:, 0]) / horizon,
        activity=ours[["traded", "gross", "net"]],
        costs=by_costs(trade, params.costs),
        tails=tails,
        tests=tests,
    )


def compounded(returns: pd.DataFrame, period: str) -> pd.DataFrame:
    """Simple returns of each calendar period ("M", "Y"), of its sessions that are there."""
    return (1 + returns).groupby(returns.index.to_period(period)).prod() - 1


def rank_ics(forecasts: dict[str, pd.DataFrame], kind: str, horizon: int) -> pd.DataFrame:
    """By session the rank IC of the kind and, where it is there, reversal, of the price to be traded."""
    kinds = dict.fromkeys([kind, "reversal"] if "reversal" in forecasts else [kind])
    found = {one: by_session(forecasts[one], horizon, "label_open")["rank_ic"] for one in kinds}
    return pd.DataFrame(found)


def quantile_returns(forecasts: pd.DataFrame) -> pd.DataFrame:
    """By session what each tenth by score earned above the mean of all, from the next open on.

    Where some session has fewer symbols than ten, there are as many parts as it has symbols.

    Args:
        forecasts: of one kind: `event_timestamp`, `symbol`, `score`, `label_open`.

    Returns:
        sessions x parts, 1 has the smallest scores; simple returns over the horizon.
    """
    known = forecasts[forecasts["score"].notna() & forecasts["label_open"].notna()]
    of_session = known.groupby(SESSION)["score"]
    n = of_session.transform("size")
    parts = int(min(QUANTILES, n.min()))
    part = np.ceil(parts * (of_session.rank() - 0.5) / n).astype(int)
    earned = np.expm1(known["label_open"])
    earned -= earned.groupby(known[SESSION]).transform("mean")
    return earned.groupby([known[SESSION], part]).mean().unstack()


def means(columns: pd.DataFrame, horizon: int, samples: int, seed: int) -> pd.DataFrame:
    """The mean of each column with a 95% interval over blocks of sessions: mean, low, high."""
    block = block_length(len(columns), horizon)
    rows = {}
    for name, values in columns.items():
        known = values.dropna().to_numpy(float)
        low, high = np.percentile(block_means(known, block, samples, seed), [2.5, 97.5])
        rows[name] = {"mean": known.mean(), "low": low, "high": high}
    return pd.DataFrame(rows).T


def by_costs(trade: Callable[[Costs], Result], costs: Costs) -> pd.DataFrame:
    """Annual return at multiples of the costs: `multiple`, `paid_bp` of each dollar traded, `ret`."""
    rows = []
    for multiple in MULTIPLES:
        scaled = {key: multiple * value for key, value in costs if key != "delisting_haircut"}
        sessions = trade(costs.model_copy(update=scaled)).of_equity().iloc[1:]
        paid = sessions["cost"].sum() / max(sessions["traded"].sum(), 1e-12) / BASIS_POINT
        rows.append((multiple, paid, annual_return(sessions["ret"].to_numpy(float))))
    return pd.DataFrame(rows, columns=["multiple", "paid_bp", "ret"])


def value_at_risk(returns: pd.Series) -> tuple[pd.DataFrame, list[dict]]:
    """What value at risk said of each session from those before it, and whether that was right.

    Returns:
        by session from the `VAR_WINDOW`-th on: `ret`, and for each level the filtered value at risk, a
        loss above 0; a row for each method and level, see `backtest_var.judged`. Both are empty where as
        many sessions again are not there to test it on.
    """
    if len(returns) < 2 * VAR_WINDOW:
        return pd.DataFrame(), []
    values = returns.to_numpy(float)
    said = past_vars(values, VAR_WINDOW, LEVELS)
    came = values[VAR_WINDOW:]
    table = pd.DataFrame({"ret": came}, index=returns.index[VAR_WINDOW:])
    for level in LEVELS:
        table[level] = said["filtered", level]
    tests = [
        {"method": method, "level": level, **judged(-came > said[method, level], level)}
        for method in METHODS
        for level in LEVELS
    ]
    return table, tests
