"""What portfolios would have earned: decided at a close, traded at the next session, after costs.

One pass over the sessions, each of them a few operations on an array of all symbols. Nothing is traded
at the price that made the decision.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.decisions.portfolios import around_halts
from pitwise.decisions.prices import Array, Prices, last_known
from pitwise.errors import DataError
from pitwise.stage import Params

BASIS_POINT = 1e-4
SESSIONS_A_YEAR = 252


class Costs(Params):
    """What trading and holding costs; all of it comes out of the cash."""

    commission_bp: float = Field(default=0.5, ge=0)
    """Of each dollar traded."""
    half_spread_bp: float = Field(default=2.0, ge=0)
    """Of each dollar traded: the way from the middle to the price that one pays or gets."""
    impact: float = Field(default=0.5, ge=0)
    """Dollars traded move the price by impact x volatility x sqrt(dollars / usual dollar volume).

    Volatility and volume are of the 20 sessions up to the decision. Source: the square-root law, see
    Grinold and Kahn, Active Portfolio Management, chapter 16; 0.5 to 1 is what is found.
    """
    borrow_bp: float = Field(default=50.0, ge=0)
    """A year, of each dollar held short overnight."""
    delisting_haircut: float = Field(default=0.0, ge=0, le=1)
    """Share of its last close that a delisted long loses; a short pays the last close in full."""


PARTS = ("commission", "spread", "impact", "borrow")
FREE = Costs(commission_bp=0, half_spread_bp=0, impact=0, borrow_bp=0)


@dataclass(frozen=True)
class Result:
    """What came of it; all of a session are at its close. Money in US dollars."""

    prices: Prices
    equity: Array
    """(n_sessions,) cash and holdings."""
    cash: Array
    shares: Array
    """(n_sessions, n_symbols) held, negative short."""
    value: Array
    """(n_sessions, n_symbols) shares at their last known price."""
    traded: Array
    """(n_sessions,) dollars bought and sold."""
    costs: Array
    """(n_sessions, 4) see `PARTS`."""
    capital: float

    def returns(self) -> pd.Series:
        """Simple return of each session, costs out; the first is on the capital."""
        before = np.append(self.capital, self.equity[:-1])
        return pd.Series(self.equity / before - 1, index=self.prices.sessions)

    def of_equity(self) -> pd.DataFrame:
        """By session: return, cost, impact and dollars traded over the equity before, and exposures."""
        before = np.append(self.capital, self.equity[:-1])
        return pd.DataFrame(
            {
                "ret": self.equity / before - 1,
                "cost": self.costs.sum(axis=1) / before,
                "impact": self.costs[:, PARTS.index("impact")] / before,
                "traded": self.traded / before,
                "gross": np.abs(self.value).sum(axis=1) / self.equity,
                "net": self.value.sum(axis=1) / self.equity,
            },
            index=self.prices.sessions,
        )


def backtest(
    prices: Prices,
    targets: Array,
    costs: Costs = FREE,
    capital: float = 1e6,
    trade_at: Literal["open", "close"] = "open",
    volatility: Array | None = None,
    usual_volume: Array | None = None,
) -> Result:
    """Trade to the targets and hold in between, while positions drift with their prices.

    In each session, in this order: splits and distributions reach what was held overnight; what is
    delisted is closed; the target of the session before is traded, as dollars of the equity at the
    prices traded at; shorts pay for the night. A symbol without a bar or without volume is not traded,
    and keeps its shares, see `portfolios.around_halts`: its target is not made up for later, unless a
    later target says so. Costs come out of the cash, which may be below zero by as much until the next
    target.

    Args:
        targets: (n_sessions, n_symbols) weights decided at each session's close, as shares of the
            equity; what they leave of 1 is cash. A row that starts with NaN is no decision.
        capital: dollars at the start, all cash.
        trade_at: the next session's open or close.
        volatility, usual_volume: of `prices`, where they are at hand, such as from sessions before its
            first. Where impact has none, its symbol's is the median of the session's.

    Raises:
        DataError: targets of another shape or with gaps, a capital that is not above 0, or all lost.
    """
    _check(prices, targets, capital)
    fills = prices.open if trade_at == "open" else prices.close
    closes = last_known(prices.close)
    tradable = np.isfinite(fills) & np.isfinite(prices.close) & (prices.dollar_volume > 0)
    distributed = np.asarray(prices.distribution.any(axis=1))
    splits = np.asarray((prices.split != 1).any(axis=1))
    delisted = _delisted(prices)
    move = _impact(prices, costs, volatility, usual_volume)
    rate = (costs.commission_bp * BASIS_POINT, costs.half_spread_bp * BASIS_POINT)
    night = costs.borrow_bp * BASIS_POINT / SESSIONS_A_YEAR
    decided = np.isfinite(targets[:, 0])

    n_sessions, n_symbols = closes.shape
    held, cash = np.zeros(n_symbols), float(capital)
    equity, cashes, traded = np.empty(n_sessions), np.empty(n_sessions), np.zeros(n_sessions)
    shares, value, paid = (
        np.empty_like(closes),
        np.empty_like(closes),
        np.zeros((n_sessions, len(PARTS))),
    )
    mark = np.zeros(n_symbols)  # last price of each, 0 before its first
    for i in range(n_sessions):
        if distributed[i]:
            cash += float(held @ prices.distribution[i])
        if splits[i]:
            held = held * prices.split[i]
            mark = mark / prices.split[i]
        if delisted[i].any():
            gone = np.where(delisted[i], held * mark, 0.0)
            cash += gone.sum() - costs.delisting_haircut * np.maximum(gone, 0).sum()
            held = np.where(delisted[i], 0.0, held)
        if i and decided[i - 1]:
            can = tradable[i]
            price = np.where(can, fills[i], mark)
            total = cash + float(held @ price)
            if total <= 0:
                raise DataError(
                    f"{prices.sessions[i]:%Y-%m-%d}: the capital is lost. Lower the exposure."
                )
            weights = around_halts(targets[i - 1], held * price / total, can)
            wanted = np.where(can, weights * total / np.where(can, price, 1.0), held)
            bought = (wanted - held) * price
            dollars = np.abs(bought)
            traded[i] = dollars.sum()
            paid[i, 0], paid[i, 1] = rate[0] * traded[i], rate[1] * traded[i]
            if costs.impact:
                paid[i, 2] = float((move[i - 1] * dollars * np.sqrt(dollars)).sum())
            cash -= float(bought.sum()) + float(paid[i, :3].sum())
            held = wanted
        mark = np.where(np.isfinite(closes[i]), closes[i], 0.0)
        value[i] = held * mark
        paid[i, 3] = night * float(np.maximum(-value[i], 0).sum())
        cash -= paid[i, 3]
        shares[i], cashes[i], equity[i] = held, cash, cash + float(value[i].sum())
    return Result(prices, equity, cashes, shares, value, traded, paid, float(capital))


def _check(prices: Prices, targets: Array, capital: float) -> None:
    if targets.shape != prices.close.shape:
        raise DataError(
            f"targets are {targets.shape}, the prices {prices.close.shape}. Make one for each."
        )
    decided = np.isfinite(targets[:, 0])
    if not np.isfinite(targets[decided]).all():
        row = np.flatnonzero(decided)[~np.isfinite(targets[decided]).all(axis=1)][0]
        raise DataError(
            f"{prices.sessions[row]:%Y-%m-%d}: a target is not a number. 0 is for a symbol not held."
        )
    if not capital > 0:
        raise DataError(f"a capital of {capital}: it has to be above 0.")


def _delisted(prices: Prices) -> Array:
    """(n_sessions, n_symbols) bool: the session after a symbol's last bar."""
    has = np.isfinite(prices.close)
    last = len(has) - 1 - has[::-1].argmax(axis=0)
    result = np.zeros(has.shape, dtype=bool)
    gone = np.flatnonzero(has.any(axis=0) & (last < len(has) - 1))
    result[last[gone] + 1, gone] = True
    return result


def _impact(prices: Prices, costs: Costs, volatility: Array | None, usual_volume: Array | None) -> Array:
    """What dollars ** 1.5 are multiplied with; (n_sessions, n_symbols), empty without impact."""
    if not costs.impact:
        return np.empty(0)
    spread = prices.volatility() if volatility is None else volatility
    volume = prices.usual_dollar_volume() if usual_volume is None else usual_volume
    with np.errstate(divide="ignore", invalid="ignore"):
        move = costs.impact * spread / np.sqrt(volume)
    if np.isfinite(move).all():
        return move
    move[~np.isfinite(move)] = np.nan
    # Without a volatility yet, the session's usual one; before any, that of the first that has.
    usual = pd.DataFrame(move).median(axis=1).bfill().fillna(0.0).to_numpy()
    return np.where(np.isnan(move), usual[:, None], move)
