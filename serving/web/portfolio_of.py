"""The figures of a portfolio at a moment, told in a process of their own, as those of `/v1/risk` are.

Only what names the question is imported here; what does the work is imported by the worker.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from serving.http.risk_of import FIELD, NICENESS
from serving.memory import give_back

if TYPE_CHECKING:
    import pandas as pd

    from pitwise.decisions.holdings import Market
    from pitwise.decisions.prices import Prices

SAMPLES, SEED = 1000, 7
"""Of the bootstrap behind a 95% interval."""
METHOD = "filtered"
"""Whose value at risk is drawn session by session."""
COLUMNS = ["open", "close", "volume", "price_factor", "share_factor", "segment"]
Strategy = Literal[
    "none",
    "top",
    "long_short",
    "equal_weight",
    "minimum_variance",
    "hierarchical_risk_parity",
    "mean_variance",
]


class Asked(NamedTuple):
    """What a person wants to know."""

    held: tuple[tuple[str, float], ...]
    """Symbol and amount; below 0 is short."""
    kind: Literal["weight", "shares"]
    value: float
    """US dollars, of weights."""
    cash: float
    """US dollars beside the holdings, to invest."""
    strategy: Strategy
    """To rebalance to."""
    instant: int | None
    """As known at, microseconds since 1970; None for now."""


def portfolio_in_worker(root: str, asked: Asked, forecasts: Mapping[str, tuple]) -> bytes:
    """`portfolio_of` as JSON, in a process that does nothing else."""
    os.nice(max(0, NICENESS - os.nice(0)))
    return json.dumps(portfolio_of(root, asked, forecasts), allow_nan=False).encode()


def portfolio_of(root: str, asked: Asked, forecasts: Mapping[str, tuple]) -> dict[str, Any]:
    """All that the page tells of a portfolio.

    Args:
        root: of the workspace.
        forecasts: by symbol log return, score, horizon in sessions, and what its bar is suspected of.

    Returns:
        risk: see `pitwise.decisions.risk.risk_report`. holdings: symbol, shares, price, value, weight.
        ours, market: see `_measured`, of the portfolio and of equal weights of the whole market over the
        same sessions. intervals: of ours, [low, high], 95%. tested: by session the return and the value
        at risk that was said before it; None where there is no test. proposal: see `_proposal`, or `why`
        there is none; None where none is asked for.

    Raises:
        DataError: the portfolio is none whose risk can be told; the message says why.
        StoreError: the workspace has no bars, or arch is not installed.
    """
    import pandas as pd

    from pitwise.decisions.holdings import held_returns, weights_of
    from pitwise.decisions.risk import LEAST, risk_report
    from pitwise.errors import DataError

    market, prices = _known(root, _changed(root), asked.instant)
    amounts = pd.Series(dict(asked.held), dtype=float).rename_axis("symbol")
    weights, worth = weights_of(amounts, asked.kind, market.close, FIELD[asked.kind])
    value = worth or asked.value
    report = risk_report(market.returns, weights, value)
    held, _, _ = held_returns(market.returns, weights, LEAST)
    ours = (held @ weights).to_numpy(float)
    others = market.returns.mean(axis=1).fillna(0.0)[held.index].to_numpy(float)
    price = market.close[weights.index]
    shares = amounts[weights.index] if asked.kind == "shares" else weights * value / price
    document: dict[str, Any] = {
        "risk": report,
        "holdings": [
            {"symbol": str(s), "shares": n, "price": p, "value": n * p, "weight": w}
            for s, n, p, w in zip(weights.index, shares, price, weights, strict=True)
        ],
        "ours": _measured(ours[-report["window"] :]),
        "intervals": _intervals(ours[-report["window"] :]),
        "market": _measured(others[-report["window"] :]),
        "tested": _tested(held.index, ours, report["window"]),
        "proposal": None,
    }
    if asked.strategy != "none":
        try:
            document["proposal"] = _proposal(root, asked, market, prices, shares, forecasts)
        except DataError as error:
            document["proposal"] = {"why": str(error)}
    return document


def _changed(root: str) -> tuple[int, ...]:
    from pitwise.errors import StoreError
    from pitwise.workspace import Workspace

    workspace = Workspace(Path(root))
    try:
        return tuple(path.stat().st_mtime_ns for path in (workspace.daily_features, workspace.events))
    except OSError as error:
        raise StoreError(f"{error.filename}: is not there. Run `pitwise run`.") from error


@lru_cache(maxsize=4)
def _known(root: str, changed: tuple[int, ...], instant: int | None) -> "tuple[Market, Prices]":
    """What `holdings.market` and `backtest_stage.read_prices` would have made at an instant.

    The newest versions of all bars that were known then are what the clean bars were.
    """
    import pandas as pd

    from pitwise.bars.calendar import session_days
    from pitwise.bars.returns import returns as bar_returns
    from pitwise.decisions.holdings import Market
    from pitwise.decisions.prices import prices
    from pitwise.errors import DataError
    from pitwise.workspace import Workspace, read_parquet

    workspace = Workspace(Path(root))
    keys = ["symbol", "event_timestamp", "created_timestamp"]
    bars = read_parquet(workspace.daily_features, [*keys, *COLUMNS])
    if instant is not None:
        bars = bars[bars["created_timestamp"] <= pd.Timestamp(instant, unit="us", tz="UTC")]
    bars = bars.sort_values(keys).drop_duplicates(keys[:2], keep="last")
    bars = bars[bars["close"].notna()]  # a withdrawn bar has none
    if bars.empty:
        raise DataError("no bar was known then.")
    bars = bars.assign(symbol=bars["symbol"].astype(str), date=session_days(bars["event_timestamp"]))
    adjusted = bars.assign(close=bars["close"] * bars["price_factor"])
    wide = bars.assign(change=bar_returns(adjusted)).pivot(
        index="date", columns="symbol", values="change"
    )
    market = Market(wide.sort_index(), bars.groupby("symbol")["close"].last())
    traded = prices(bars, _known_events(workspace, instant))
    del bars, adjusted, wide
    give_back()
    return market, traded


def _measured(returns: Any) -> dict[str, float]:
    """Historical value at risk and expected shortfall of a session, and the volatility of a year."""
    from pitwise.decisions import var
    from pitwise.decisions.risk import LEVELS
    from pitwise.decisions.volatility import annual

    found = {"volatility": float(annual(returns.var(ddof=1)))}
    for level in LEVELS:
        tail = var.historical(returns, level)
        found |= {f"var_{level:.0%}": tail.var, f"es_{level:.0%}": tail.es}
    return found


def _intervals(returns: Any) -> dict[str, list[float]]:
    """Of each figure of `_measured`."""
    import numpy as np

    from pitwise.decisions.performance import interval

    def figures(drawn: Any) -> Any:
        return np.array(list(_measured(drawn[:, 0]).values()))

    low, high = interval(returns[:, None], figures, SAMPLES, SEED)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(_measured(returns))}


def _tested(days: "pd.DatetimeIndex", returns: Any, window: int) -> dict[str, Any] | None:
    """What was said of each session after the first window, from those before it, and what came."""
    from pitwise.decisions.backtest_var import past_vars
    from pitwise.decisions.risk import LEAST, LEVELS

    if len(returns) - window < LEAST:
        return None
    said = past_vars(returns, window, LEVELS)
    return {
        "day": [f"{day:%Y-%m-%d}" for day in days[window:]],
        "ret": returns[window:].tolist(),
        **{f"{level:.0%}": said[METHOD, level].tolist() for level in LEVELS},
    }


def _proposal(
    root: str,
    asked: Asked,
    market: "Market",
    prices: "Prices",
    shares: "pd.Series",
    forecasts: Mapping[str, tuple],
) -> dict[str, Any]:
    """The orders from what is held to what a strategy wants, by section backtest of params.yaml.

    Returns:
        orders: see `pitwise.decisions.rebalance.rebalance`. total: dollars of holdings and cash.
        dollars, cost, expected: sums over the orders. horizon: sessions that the forecasts look ahead.
    """
    import pandas as pd

    from pitwise.decisions.rebalance import rebalance
    from pitwise.decisions.strategies import BacktestParams, sectors_of
    from pitwise.errors import DataError
    from pitwise.stage import load_params
    from pitwise.universe import read_sectors
    from pitwise.workspace import Workspace

    if not forecasts:
        raise DataError("there are no forecasts to rebalance by.")
    workspace = Workspace(Path(root))
    params = load_params(workspace, "backtest", BacktestParams)
    columns = ["log_return", "score", "horizon", "suspect"]
    said = pd.DataFrame.from_dict(dict(forecasts), orient="index", columns=columns)
    sectors = sectors_of(read_sectors(workspace), prices)
    sector = None if sectors is None else sectors[-1]
    orders = rebalance(prices, said, shares, asked.cash, asked.strategy, params, sector)
    return {
        "orders": orders.astype(object).where(orders.notna(), None).to_dict("records"),
        "total": asked.cash + float((shares * market.close[shares.index]).sum()),
        **{name: float(orders[name].sum()) for name in ("dollars", "cost", "expected")},
        "horizon": int(said["horizon"].iloc[0]),
    }


def _known_events(workspace: Any, instant: int | None) -> "pd.DataFrame":
    """Events with what was known of them at an instant; those that only came later are left out."""
    import pandas as pd

    from pitwise.workspace import read_parquet

    known = ["first_known", "confirmed_at", "withdrawn_at"]
    columns = ["symbol", "date", "kind", "status", "price_ratio"]
    events = read_parquet(workspace.events, columns if instant is None else [*columns, *known])
    if instant is None:
        return events
    by = pd.Timestamp(instant, unit="us", tz="UTC")
    events = events[events["first_known"] <= by]
    confirmed = (events["confirmed_at"] <= by) & ~(events["withdrawn_at"] <= by)
    return events.assign(status=confirmed.map({True: "confirmed", False: "provisional"}))
