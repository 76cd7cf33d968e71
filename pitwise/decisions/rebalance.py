"""From what is held to what the newest forecasts want: orders, their cost and what they are for."""

from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import BASIS_POINT, Costs
from pitwise.decisions.portfolios import around_halts, equal_weight, within
from pitwise.decisions.prices import Array, Prices, last_known
from pitwise.decisions.strategies import ALLOCATED, RANKED, BacktestParams, allocate
from pitwise.errors import DataError

ORDERS = ["symbol", "side", "shares", "price", "dollars", "before", "after", "cost", "expected", "why"]


def read_holdings(path: Path) -> pd.Series:
    """Shares by symbol, negative short; of a file with the columns symbol and shares.

    Raises:
        DataError: the file is not there, lacks a column, names a symbol twice, or has no number.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Name one with the columns symbol and shares.")
    table = pd.read_csv(path, dtype={"symbol": str}, keep_default_na=False)
    if missing := sorted({"symbol", "shares"} - set(table)):
        raise DataError(f"{path}: has no column {missing[0]}. It needs symbol and shares.")
    shares = pd.to_numeric(table["shares"], errors="coerce")
    if (bad := ~np.isfinite(shares)).any():
        row = int(bad.to_numpy().argmax())
        raise DataError(f"{path}, row {row + 2}: shares are {table['shares'][row]!r}, not a number.")
    if (twice := table["symbol"].duplicated()).any():
        raise DataError(
            f"{path}: {table['symbol'][twice.to_numpy().argmax()]} is there twice. Add them up."
        )
    return pd.Series(shares.to_numpy(float), index=table["symbol"])


def target(
    prices: Prices,
    scores: Array,
    expected: Array,
    strategy: str,
    params: BacktestParams,
    held: Array,
    can: Array,
    sectors: Array | None,
) -> Array:
    """(n_symbols,) weights for the session after the last.

    Args:
        scores: (n_symbols,) what ranks them, NaN without a forecast.
        expected: (n_symbols,) simple return of a session that is forecast.
        held: (n_symbols,) weights now.
        can: (n_symbols,) bool, what can be traded.
        sectors: (n_symbols,) see `portfolios.within`.
    """
    if strategy in RANKED:
        wanted = RANKED[strategy](np.where(can, scores, np.nan), params.k)
    elif strategy in ALLOCATED:
        window = prices.total_returns()[-params.covariance_sessions :]
        usable = np.isfinite(window).all(axis=0) & can & (window.std(axis=0) > 0)
        if strategy == "mean_variance":
            usable &= np.isfinite(expected)
        if usable.sum() < 2:
            raise DataError(
                f"{strategy}: {usable.sum()} symbols have a bar and no gap in the last "
                f"{params.covariance_sessions} sessions; it needs 2. Lower backtest.covariance_sessions."
            )
        wanted = np.zeros(len(expected))
        wanted[usable] = allocate(strategy, window[:, usable], expected[usable], params)
    else:
        wanted = equal_weight(can)
    return within(wanted, params.limits, held, sectors)


def rebalance(
    prices: Prices,
    forecasts: pd.DataFrame,
    holdings: pd.Series,
    cash: float,
    strategy: str,
    params: BacktestParams,
    sectors: Array | None = None,
) -> pd.DataFrame:
    """The orders, in whole shares at the last close; the target is rounded towards 0.

    What they cost is not invested. What has no bar in the last session, or one that is suspect, keeps
    its shares.

    Args:
        prices: up to the session whose close decides.
        forecasts: by symbol, log_return; and where they are there score, which ranks them, horizon, the
            sessions that the log return is over, and suspect, what the newest bar may be.
        holdings: shares by symbol, negative short.
        cash: dollars beside them.
        sectors: (n_symbols of the prices,) see `portfolios.within`.

    Returns:
        a row an order, the largest first: symbol, side, shares, price, dollars; before and after, the
        weight; cost in dollars; expected, what the forecast says that the trade earns in dollars, NaN
        without a forecast; why.

    Raises:
        DataError: a symbol is unknown or has no price, or there is nothing to invest.
    """
    if unknown := sorted(set(holdings.index) - set(prices.symbols)):
        raise DataError(
            f"the holdings have {', '.join(unknown)}, of which there are no bars. Leave it out."
        )
    close = last_known(prices.close)[-1]
    shares = holdings.reindex(prices.symbols, fill_value=0.0).to_numpy()
    total = float(cash + (shares * np.nan_to_num(close)).sum())
    if not total > 0:
        raise DataError(f"holdings and cash are worth {total:,.2f} dollars: there is nothing to invest.")
    said = forecasts.reindex(prices.symbols)
    expected = said["log_return"].to_numpy(float)
    scores = said["score"].to_numpy(float) if "score" in said else expected
    horizon = said["horizon"].to_numpy(float) if "horizon" in said else 1.0
    before = shares * np.nan_to_num(close) / total
    a_session = np.expm1(expected / horizon)
    can = np.isfinite(prices.close[-1])
    if "suspect" in said:
        can &= said["suspect"].isna().to_numpy()
    wanted = target(prices, scores, a_session, strategy, params, before, can, sectors)
    wanted = around_halts(wanted, before, can)
    price = np.where(can, close, 1.0)
    cost = _cost(prices, np.abs(wanted - before) * total * can, params.costs).sum()
    whole = np.where(can, np.trunc(wanted * (total - cost) / price), shares)
    change = whole - shares
    traded = np.flatnonzero(change)
    dollars = np.abs(change * price)
    table = pd.DataFrame(
        {
            "symbol": prices.symbols,
            "side": np.where(change > 0, "buy", "sell"),
            "shares": np.abs(change),
            "price": close,
            "dollars": dollars,
            "before": before,
            "after": whole * np.nan_to_num(close) / total,
            "cost": _cost(prices, dollars, params.costs),
            "expected": np.expm1(expected) * change * price,
        }
    ).iloc[traded]
    table["why"] = _reasons(table, scores, traded, strategy)
    return table.sort_values("dollars", ascending=False, ignore_index=True)[ORDERS]


def _cost(prices: Prices, dollars: Array, costs: Costs) -> Array:
    rate = (costs.commission_bp + costs.half_spread_bp) * BASIS_POINT
    spread, volume = prices.volatility()[-1], prices.usual_dollar_volume()[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        move = costs.impact * spread * np.sqrt(dollars / volume)
    return dollars * (rate + np.where(np.isfinite(move), move, 0.0))


def _reasons(table: pd.DataFrame, scores: Array, traded: Array, strategy: str) -> list[str]:
    rank = pd.Series(scores).rank(ascending=False, method="min")
    n = int(rank.count())
    reasons = []
    for i, before, after in zip(traded, table["before"], table["after"], strict=True):
        if before == 0:
            what = "new"
        elif after == 0:
            what = "closed"
        else:
            what = "more" if abs(after) > abs(before) else "less"
        said = "no forecast" if np.isnan(rank[i]) else f"forecast {int(rank[i])} of {n}"
        reasons.append(f"{what} in {strategy}: {said}")
    return reasons
