"""A seeded synthetic market of any size: daily bars of stocks that never were.

Log returns follow a market factor, eleven sector factors and each stock's own shocks. The market is
calm, a bull or in a crash: a Markov chain, each state with its own drift and volatility (Hamilton,
1989). Each factor's shocks are Student t with four degrees of freedom and cluster as in GARCH(1,1)
(Bollerslev, 1986). A session's path is a Brownian bridge, so its open, high, low and close agree with
each other. Log volume is autoregressive and rises with the size of the return. Some stocks are listed
late, some are delisted early, and one that falls below a dollar is delisted.

What can go wrong with such bars is planted by `pitwise.simulation.faults`, and listed in the truth.
"""

from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, field_validator

from pitwise.bars.calendar import is_session
from pitwise.bars.schema import COLUMNS, PRICES
from pitwise.errors import DataError
from pitwise.simulation.faults import KINDS, TRUTH_COLUMNS, Grid, plant
from pitwise.stage import Params

# State of the market: drift of the market a session, and scale of the market's and of the other factors'
# volatility. A crash moves the market most, so correlations rise in it.
REGIMES = {"calm": (0.0002, 0.9, 1.0), "bull": (0.0008, 0.7, 0.9), "crash": (-0.004, 2.8, 1.5)}
TRANSITIONS = np.array([[0.985, 0.012, 0.003], [0.0125, 0.985, 0.0025], [0.04, 0.01, 0.95]])
SECTORS = 11
MARKET_VOLATILITY = 0.0085
SECTOR_VOLATILITY = 0.0045
OWN_VOLATILITY = 0.013  # median over the stocks
GARCH = (0.06, 0.92)  # weight of the last squared shock, and of the last variance
MAX_VARIANCE = 5.0  # of a factor, in its long-run variances
MAX_T = 8.0  # a draw of the Student t is cut here ...
T_DEVIATION = 1.3823  # ... which leaves it this standard deviation
OVERNIGHT = 0.25  # share of a session's variance that falls between the closes and the opens
DELISTING_PRICE = 1.0
MOMENTUM_SESSIONS = 5


class SyntheticParams(Params):
    symbols: int = Field(ge=1, le=20_000)
    start: date = Field(ge=date(1970, 1, 1))
    sessions: int = Field(ge=2, le=15_000)
    seed: NonNegativeInt
    signal: float = Field(ge=0, le=0.5)
    """Correlation, over a symbol's sessions, of the known predictor with the next log return.

    The predictor is short-term reversal (Lehmann, 1990): minus the sign of the log return over the last
    five sessions. The return is `signal * s * predictor + sqrt(1 - signal^2) * shock`, with `s` the
    shock's standard deviation over the market's life, so the volatility does not depend on `signal`.
    """
    faults: dict[str, NonNegativeInt]
    """How many of each of `pitwise.simulation.faults.KINDS` to plant; the bars have no other fault."""

    @field_validator("faults")
    @classmethod
    def _known(cls, faults: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(faults) - set(KINDS)):
            raise ValueError(f"{', '.join(unknown)}: no such kind; kinds are {', '.join(KINDS)}")
        return faults


class Market(NamedTuple):
    bars: pd.DataFrame
    """Raw bars, sorted by symbol and date. Prices are in whole cents, but for a `scale_error`."""
    truth: pd.DataFrame
    """What was planted: symbol, date, kind, price_ratio, sessions (see `faults.KINDS`)."""


def synthetic_market(params: SyntheticParams) -> Market:
    """The market that `params` describes; the same params give the same bytes.

    The faults are drawn apart from the market: the same params with no `faults` give the market beneath,
    in which every move is true.

    Raises:
        DataError: the exchange's calendar ends too early, or there is no room for the faults.
    """
    days = _sessions(params.start, params.sessions)
    names = _names(params.symbols)
    market_seed, fault_seed = np.random.SeedSequence(params.seed).spawn(2)
    grid = _grid(params, days, np.random.default_rng(market_seed))
    planted = plant(grid, params.faults, np.random.default_rng(fault_seed))
    truth = pd.DataFrame(planted, columns=TRUTH_COLUMNS).astype(
        {"date": "datetime64[us]", "kind": "string", "price_ratio": "float64", "sessions": "int64"}
    )
    truth["symbol"] = pd.array(names[truth["symbol"].to_numpy("int64")], dtype="string")
    return Market(_bars(grid, names), truth.sort_values(["symbol", "date"], ignore_index=True))


def _sessions(start: date, count: int) -> np.ndarray:
    days = pd.date_range(start, periods=2 * count + 10, unit="us")
    days = days[is_session(days.to_series())][:count]
    if len(days) < count:
        raise DataError(
            f"synthetic: the exchange calendar ends {len(days):,} sessions after {start}; choose fewer "
            f"than {count:,} sessions or an earlier start."
        )
    return days.to_numpy()


def _names(symbols: int) -> np.ndarray:
    """SYN1, SYN2, ... in a width that sorts."""
    width = len(str(symbols))
    return np.array([f"SYN{i:0{width}d}" for i in range(1, symbols + 1)], dtype=object)


def _regimes(sessions: int, rng: np.random.Generator) -> np.ndarray:
    """Drift, market scale and own scale of each session; (sessions, 3)."""
    ladder = TRANSITIONS.cumsum(axis=1)
    draws = rng.random(sessions)
    states = np.zeros(sessions, dtype=int)
    for t in range(1, sessions):
        states[t] = np.searchsorted(ladder[states[t - 1]], draws[t], side="right").clip(max=2)
    return np.array(list(REGIMES.values()))[states]


class _Stocks(NamedTuple):
    """What does not change with time; (symbols,) each."""

    beta: np.ndarray
    sector: np.ndarray
    own_volatility: np.ndarray
    start_price: np.ndarray
    log_shares: np.ndarray
    """Log of the volume of an ordinary session."""
    listed: np.ndarray
    """First session."""
    delisted: np.ndarray
    """First session after the last."""


def _stocks(n: int, sessions: int, rng: np.random.Generator) -> _Stocks:
    start_price = 45.0 * np.exp(rng.normal(0.0, 0.7, n)).clip(0.2, 20.0)
    late = rng.integers(0, sessions, n) * 6 // 10
    early = sessions - rng.integers(0, sessions, n) // 4
    return _Stocks(
        beta=rng.normal(1.0, 0.25, n).clip(0.3, 1.8),
        sector=rng.integers(0, SECTORS, n),
        own_volatility=OWN_VOLATILITY * np.exp(rng.normal(0.0, 0.35, n)),
        start_price=start_price,
        log_shares=np.log(2e7 / start_price) + rng.normal(0.0, 1.2, n),
        listed=np.where(rng.random(n) < 0.15, late, 0),
        delisted=np.where(rng.random(n) < 0.10, early, sessions),
    )


def _by_stock(factors: np.ndarray, loading: np.ndarray, sector: np.ndarray) -> np.ndarray:
    """The market's part, the sector's and the stock's own, added up; factors (1 + SECTORS + n,)."""
    return loading * factors[0] + factors[1 : 1 + SECTORS][sector] + factors[1 + SECTORS :]


def _grid(params: SyntheticParams, days: np.ndarray, rng: np.random.Generator) -> Grid:
    """Simulate all symbols together, session by session."""
    n, sessions = params.symbols, params.sessions
    regimes = _regimes(sessions, rng)
    stocks = _stocks(n, sessions, rng)
    beta, sector = stocks.beta, stocks.sector
    usual = np.concatenate(
        [[MARKET_VOLATILITY], np.full(SECTORS, SECTOR_VOLATILITY), stocks.own_volatility]
    )
    is_market = np.arange(len(usual)) == 0
    mean_square = np.where(is_market, *np.square(regimes[:, 1:]).mean(axis=0))
    long_run = np.sqrt(_by_stock(np.square(usual) * mean_square, np.square(beta), sector))

    # Logs of the bars; the prices' origin is set at the listing below.
    logs = {name: np.empty((sessions, n), dtype=np.float32) for name in (*PRICES, "volume")}
    close = np.zeros(n)
    trail = [close] * (MOMENTUM_SESSIONS + 1)  # the last six closes
    variance = np.ones(len(usual))
    activity = rng.normal(0.0, 0.3, n)
    news, memory = GARCH
    for t, (drift, market_scale, own_scale) in enumerate(regimes):
        scale = usual * np.where(is_market, market_scale, own_scale)
        draws = rng.standard_t(4, len(usual)).clip(-MAX_T, MAX_T) / T_DEVIATION
        shocks = draws * np.sqrt(variance)
        volatility = np.sqrt(_by_stock(np.square(scale) * variance, np.square(beta), sector))
        variance = 1 - news - memory + news * np.square(shocks) + memory * variance
        variance = variance.clip(max=MAX_VARIANCE)

        predictor = -np.sign(trail[-1] - trail[0])
        change = np.sqrt(1 - params.signal**2) * _by_stock(scale * shocks, beta, sector)
        change += beta * drift + params.signal * long_run * predictor
        bridge = np.sqrt(OVERNIGHT * (1 - OVERNIGHT)) * volatility
        overnight = OVERNIGHT * change + bridge * rng.standard_normal(n)
        # The highest and the lowest point of a Brownian bridge from open to close.
        intraday = change - overnight
        spread = 2 * np.square(volatility) * (1 - OVERNIGHT)
        up, down = np.sqrt(np.square(intraday) + spread * rng.standard_exponential((2, n)))
        activity = 0.8 * activity + 0.18 * rng.standard_normal(n)

        opened, close = close + overnight, close + change
        trail = [*trail[1:], close]
        logs["open"][t] = opened
        logs["high"][t] = opened + (intraday + up) / 2
        logs["low"][t] = opened + (intraday - down) / 2
        logs["close"][t] = close
        size = np.minimum(np.abs(change) / long_run, 6.0)
        logs["volume"][t] = stocks.log_shares + activity + 0.3 * size

    origin = np.log(stocks.start_price) - logs["close"][stocks.listed, np.arange(n)]
    values = {name: _exp(logs.pop(name), origin) for name in PRICES}
    values["volume"] = _exp(logs.pop("volume"), np.zeros(n))
    session = np.arange(sessions)
    alive = (session >= stocks.listed[:, None]) & (session < stocks.delisted[:, None])
    alive &= ~np.logical_or.accumulate((values["low"] < DELISTING_PRICE) & alive, axis=1)
    return Grid(days, alive, **values)


def _exp(logs: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(sessions, symbols) of logs to (symbols, sessions) of values."""
    return np.exp(logs.T + origin[:, None], order="C", dtype=np.float64)


def _bars(grid: Grid, names: np.ndarray) -> pd.DataFrame:
    """The grid's cells as rows, and behind its cell each row that a fault added."""
    cells = np.flatnonzero(grid.alive)
    extra = sorted(grid.extra, key=lambda row: row[0])
    behind = np.searchsorted(cells, [row[0] for row in extra], side="right")
    symbol, session = np.divmod(cells, len(grid.days))
    columns = {
        "symbol": pd.array(names[np.insert(symbol, behind, symbol[behind - 1])], dtype="string"),
        "date": np.insert(grid.days[session], behind, [row[1] for row in extra]),
    }
    del symbol, session
    for k, name in enumerate(COLUMNS[2:], start=2):
        values = getattr(grid, name).ravel()[cells]
        columns[name] = np.insert(values, behind, [row[k] for row in extra]) if extra else values
    return pd.DataFrame(columns, copy=False)
