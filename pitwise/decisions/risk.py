"""The risk of a portfolio as one document: what can be lost, how sure that is, where it comes from."""

from typing import Any

import numpy as np
import pandas as pd

from pitwise.decisions import contributions, drawdown, factors, stress, var
from pitwise.decisions.backtest_var import judged, past_fits, past_simulated, past_vars
from pitwise.decisions.holdings import checked_weights, held_returns, is_neutral
from pitwise.decisions.volatility import Garch, annual, ewma, fan, fit_garch
from pitwise.errors import DataError

LEVELS = (0.95, 0.99)
HORIZON = 10
"""Sessions of the longer value at risk."""
WINDOW = 500
"""Sessions that a value at risk is estimated from, where the history leaves enough to test it on."""
LEAST = 250
"""Sessions that any figure needs, and periods that a back-test needs."""
AHEAD = 20
"""Sessions of a volatility forecast."""
PATHS = 10_000
PAST_PATHS = 2000
"""Of each block of a back-test."""
FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
MATRIX = 50
"""Symbols up to which the document has the correlation matrix."""
FILTER_FALLBACK = "GARCH(1,1) did not converge: filtered by EWMA"
NEUTRAL = "Longs and shorts cancel: all is told as a share of the gross exposure, the two added."

Document = dict[str, Any]


def risk_report(
    returns: pd.DataFrame,
    weights: pd.Series,
    value: float = 1.0,
    *,
    market: pd.Series | None = None,
    window: int = WINDOW,
    seed: int = 7,
) -> Document:
    """All figures of a portfolio's risk, as `json.dumps(..., allow_nan=False)` takes them.

    The portfolio's past is that of today's weights, as if they were restored at each close. Losses are
    above 0, and fractions of the value; each `..._value` is the same in money.

    Args:
        returns: simple returns of the market, sessions x symbols, oldest first; NaN where there is none.
        weights: of the symbols held, by symbol; below 0 is short; they sum to 1, or to 0: see
            `holdings.checked_weights`.
        value: of the portfolio, in money; its gross exposure where the weights sum to 0.
        market: the market's return in each session; the mean of all symbols by default.
        window: sessions behind a value at risk.
        seed: draws the simulated paths.

    Returns:
        as_of, first_session, sessions, value, holdings, window: what it is of.
        var: for each method, level and horizon `var`, `es`, and either `backtest` or `untested`, which
        says why there is none; `fallback` says what stood in for a method that does not hold here.
        drawdown, volatility (`models` and `fan`), beta, diversification_ratio, correlation,
        contributions, stress (`episodes`, `shocks`, `factors`), notes. The page "Risk" has each key.

    Raises:
        DataError: weights that sum neither to 1 nor to 0, an unknown symbol, too short a history, a
            symbol that no longer trades, or a portfolio whose value never changed.
        StoreError: arch is not installed.
    """
    if not (np.isfinite(value) and value > 0):
        raise DataError(f"value {value}: a portfolio's value is above 0.")
    weights = checked_weights(weights, returns.columns)
    held, absent, shortest = held_returns(returns, weights, LEAST)
    market = returns.mean(axis=1) if market is None else market
    market = market.fillna(0.0)
    array = weights.to_numpy(float)
    portfolio = pd.Series(held.to_numpy() @ array, index=held.index)
    if not np.ptp(portfolio.to_numpy()) > 0:
        raise DataError(
            f"{', '.join(weights.index[:5])}: the value never changed, so there is no risk to tell."
        )
    window = min(window, max(LEAST, len(held) - LEAST))
    rng = np.random.default_rng(seed)
    beta = contributions.betas(held, market[held.index])
    return {
        "as_of": _day(held.index[-1]),
        "first_session": _day(held.index[0]),
        "sessions": len(held),
        "value": float(value),
        "holdings": len(weights),
        "window": window,
        "var": _tails(portfolio.to_numpy(), window, float(value), rng),
        "drawdown": drawdown.as_dict(drawdown.maximum_drawdown(portfolio)),
        "volatility": _volatility(portfolio.to_numpy(), rng),
        "beta": float(beta.to_numpy() @ array),
        **_structure(held, weights, beta),
        "stress": {
            "episodes": [stress.episode(returns, market, weights, beta, of) for of in stress.EPISODES],
            "shocks": [stress.shock(weights, beta, size) for size in stress.SHOCKS],
            "factors": factors.shocks(
                portfolio, factors.factor_returns(returns[-window - factors.YEAR :])
            ),
        },
        "notes": [NEUTRAL] * is_neutral(weights) + _notes(held, absent, shortest, len(returns)),
    }


def _tails(returns: np.ndarray, window: int, value: float, rng: np.random.Generator) -> list[Document]:
    """Value at risk and expected shortfall by every method, each with its back-test."""
    now = returns[-window:]
    fitted = fit_garch(now)
    garch = fitted or ewma(now)
    filter_fallback = None if fitted else FILTER_FALLBACK
    paths = garch.paths(now, HORIZON, PATHS, rng)
    past: dict[tuple[str, float], np.ndarray] = {}
    simulated: dict[float, np.ndarray] = {}
    if len(returns) - window >= LEAST:
        fits = past_fits(returns, window)
        past = past_vars(returns, window, LEVELS, fits=fits)
        if (len(returns) - window) // HORIZON >= LEAST:
            simulated = past_simulated(returns, window, HORIZON, LEVELS, PAST_PATHS, rng, fits)
    found = []
    for level in LEVELS:
        corrected = var.cornish_fisher(now, level)
        a_session: dict[str, tuple[var.Tail, str | None]] = {
            "historical": (var.historical(now, level), None),
            "normal": (var.normal(now, level), None),
            "cornish_fisher": (corrected, None)
            if corrected
            else (var.historical(now, level), "the correction does not hold in this tail: historical"),
            "filtered": (var.filtered(now, level, garch), filter_fallback),
        }
        for method, (tail, fallback) in a_session.items():
            said = past.get((method, level))
            row = _row(method, level, tail, value, fallback)
            found.append(
                row | {"horizon": 1, "by": "estimate"} | _tested(returns, said, window, level, 1)
            )
            row = _row(method, level, var.scaled(tail, HORIZON), value, fallback)
            of_blocks = None if said is None else said[::HORIZON] * HORIZON**0.5
            tested = _tested(returns, of_blocks, window, level, HORIZON)
            found.append(row | {"horizon": HORIZON, "by": "scaling"} | tested)
        row = _row("filtered", level, var.simulated(paths, level), value, filter_fallback)
        tested = _tested(returns, simulated.get(level), window, level, HORIZON)
        found.append(row | {"horizon": HORIZON, "by": "simulation"} | tested)
    return found


def _row(method: str, level: float, tail: var.Tail, value: float, fallback: str | None) -> Document:
    return {
        "method": method,
        "level": level,
        "var": tail.var,
        "es": tail.es,
        "var_value": tail.var * value,
        "es_value": tail.es * value,
        "fallback": fallback,
    }


def _tested(
    returns: np.ndarray, said: np.ndarray | None, window: int, level: float, horizon: int
) -> Document:
    """The back-test over periods that do not overlap, or why there is none.

    Args:
        said: value at risk of each period from the first window on; None where there is none.
    """
    periods = (len(returns) - window) // horizon
    if said is None or periods < LEAST:
        blocks = "sessions" if horizon == 1 else f"blocks of {horizon} sessions"
        why = f"{max(periods, 0)} {blocks} after the first window; a test needs {LEAST}"
        return {"backtest": None, "untested": why}
    blocks_of = returns[window : window + periods * horizon].reshape(periods, horizon)
    losses = 1 - np.prod(1 + blocks_of, axis=1)
    return {
        "backtest": judged(losses > said[:periods], level),
        "untested": None,
    }


def _volatility(returns: np.ndarray, rng: np.random.Generator) -> Document:
    """Volatility a year of the coming sessions by three models, and the fan of the value."""
    models: dict[str, Garch | None] = {
        "ewma": ewma(returns),
        "garch": fit_garch(returns),
        "gjr_t": fit_garch(returns, asymmetric=True),
    }
    rows = []
    for name, model in models.items():
        used = model or ewma(returns)
        ahead = annual(used.forecast(returns, AHEAD))
        rows.append(
            {
                "model": name,
                "annual": [float(each) for each in np.asarray(ahead)],
                "persistence": used.persistence,
                "fallback": None if model else "did not converge: EWMA",
            }
        )
    by = next(name for name in ("gjr_t", "garch", "ewma") if models[name])
    paths = (models[by] or ewma(returns)).paths(returns, AHEAD, PATHS, rng)
    bands = fan(paths, FAN)
    return {
        "models": rows,
        "fan": {"model": by, "quantiles": list(FAN), "returns": [list(map(float, b)) for b in bands]},
    }


def _structure(held: pd.DataFrame, weights: pd.Series, beta: pd.Series) -> Document:
    """Correlations, clusters, and what each holding adds."""
    values, array = held.to_numpy(float), weights.to_numpy(float)
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    correlations = contributions.correlation(held)
    n = len(array)
    pairs = correlations.to_numpy()[np.triu_indices(n, 1)]
    share = contributions.volatility_contributions(covariance, array)
    shortfalls = {level: contributions.shortfall_contributions(values, array, level) for level in LEVELS}
    rows = [
        {
            "symbol": str(symbol),
            "weight": float(array[i]),
            "volatility": float(annual(covariance[i, i])),
            "beta": float(beta.iloc[i]),
            "to_volatility": float(annual(1.0) * share[i]),
            "share": float(share[i] / share.sum()),
            **{f"to_es_{level:.0%}".rstrip("%"): float(shortfalls[level][i]) for level in LEVELS},
        }
        for i, symbol in enumerate(weights.index)
    ]
    return {
        "diversification_ratio": contributions.diversification_ratio(covariance, array),
        "correlation": {
            "symbols": list(map(str, weights.index)) if n <= MATRIX else None,
            "matrix": correlations.to_numpy().tolist() if n <= MATRIX else None,
            "mean": float(pairs.mean()) if n > 1 else None,
            "clusters": contributions.clusters(correlations),
            "singular_covariance": bool(_rank(covariance) < n),
        },
        "contributions": sorted(rows, key=lambda row: -row["share"]),
    }


def _rank(covariance: np.ndarray) -> int:
    """Rank by eigenvalues, with numpy's tolerance."""
    own = np.linalg.eigvalsh(covariance)
    return int((own > own[-1] * len(own) * np.finfo(float).eps).sum())


def _notes(held: pd.DataFrame, absent: dict[str, int], shortest: str, history: int) -> list[str]:
    """What a reader must know of the data."""
    notes = []
    if len(held) < history - 1:
        notes.append(
            f"The history starts at {_day(held.index[0])}, the first return of {shortest}: "
            f"{len(held)} of {history} sessions."
        )
    if absent:
        named = ", ".join(f"{symbol} {n}" for symbol, n in list(absent.items())[:5])
        more = f" and {len(absent) - 5} symbols more" if len(absent) > 5 else ""
        notes.append(
            f"Sessions without a return count as 0 (halted, set aside, or spun off): {named}{more}."
        )
    return notes


def _day(session: object) -> str:
    return str(pd.Timestamp(session).date())
