"""Factors made of the market's own returns, and what their worst moves would do to a portfolio.

market: the mean of all symbols. momentum and volatility: the third of the symbols with the largest
figure less the third with the smallest, each symbol with the same weight, chosen anew for each session
from what was known before it.
"""

import numpy as np
import pandas as pd

FACTORS = ("market", "momentum", "volatility")
MONTH, YEAR = 21, 252
"""Momentum is the return of a year up to a month ago. Source: Jegadeesh and Titman (1993)."""
QUARTER = 63
"""Sessions behind the standard deviation that symbols are sorted by."""
MOVE = 20
"""Sessions of a shock."""
FEWEST = 9
"""Symbols that are sorted into thirds."""


def factor_returns(returns: pd.DataFrame) -> pd.DataFrame:
    """The factors' returns, from the first session on that has a year before it.

    Args:
        returns: simple returns, sessions x symbols, oldest first; NaN where there is none.

    Returns:
        by session, `FACTORS`; NaN where fewer than `FEWEST` symbols have a history.
    """
    logs = np.log1p(returns.clip(lower=-0.999))
    a_year_to_a_month_ago = logs.rolling(YEAR - MONTH, min_periods=(YEAR - MONTH) // 2).sum()
    spread = returns.rolling(QUARTER, min_periods=QUARTER // 2).std()
    found = {
        "market": returns.mean(axis=1),
        "momentum": _thirds(returns, a_year_to_a_month_ago.shift(MONTH + 1)),
        "volatility": _thirds(returns, spread.shift(1)),
    }
    return pd.DataFrame(found).iloc[YEAR:]


def _thirds(returns: pd.DataFrame, by: pd.DataFrame) -> pd.Series:
    """Mean return of the third with the largest figure less that of the smallest, by session."""
    place = by.where(returns.notna()).rank(axis=1, pct=True)
    enough = place.count(axis=1) >= FEWEST
    spread = returns.where(place > 2 / 3).mean(axis=1) - returns.where(place <= 1 / 3).mean(axis=1)
    return spread.where(enough)


def shocks(portfolio: pd.Series, factors: pd.DataFrame) -> list[dict[str, float | str]]:
    """What each factor's worst `MOVE` sessions would do to a portfolio, the others standing still.

    Args:
        portfolio: simple returns by session.
        factors: see `factor_returns`.

    Returns:
        for each factor: beta, the slope of the portfolio's returns on all of them at once; move, the sum
        of the factor's returns over the sessions that hurt this portfolio most; return, beta times that.
        None of them where fewer than a year of sessions have all.
    """
    known = factors.dropna()
    known = known[known.index.isin(portfolio.index)]
    if len(known) < YEAR:
        return []
    design = np.column_stack([np.ones(len(known)), known.to_numpy(float)])
    slopes = np.linalg.lstsq(design, portfolio[known.index].to_numpy(float), rcond=None)[0][1:]
    moves = known.rolling(MOVE).sum().dropna()
    found: list[dict[str, float | str]] = []
    for name, beta in zip(FACTORS, map(float, slopes), strict=True):
        move = float(moves[name].min() if beta > 0 else moves[name].max())
        found.append({"factor": name, "beta": beta, "move": move, "return": beta * move})
    return found
