"""Seeded random markets for the tests: clean bars on real NYSE sessions."""

import exchange_calendars
import numpy as np
import pandas as pd

from pitwise.bars.schema import COLUMNS, PRICES
from pitwise.simulation.market import SyntheticParams, synthetic_market


def bars(
    symbols: int,
    sessions: int,
    seed: int,
    gaps: float = 0.0,
    lives: bool = False,
    start: str = "2014-01-02",
) -> pd.DataFrame:
    """Clean bars of a random walk, as stage `clean` leaves them; symbols are S000, S001, ...

    Args:
        sessions: how many of the calendar's sessions from `start` the market spans.
        gaps: share of a symbol's sessions without a bar.
        lives: list each symbol late and delist it early, at random.
    """
    rng = np.random.default_rng(seed)
    calendar = exchange_calendars.get_calendar("XNYS", start="1999-01-01").sessions
    days = calendar[calendar >= start][:sessions]
    parts = []
    for i in range(symbols):
        first, last = sorted(rng.integers(0, sessions + 1, 2)) if lives else (0, sessions)
        on = (
            (rng.random(sessions) >= gaps)
            & (np.arange(sessions) >= first)
            & (np.arange(sessions) < last)
        )
        close = rng.uniform(5, 500) * np.exp(rng.normal(0, 0.02, sessions).cumsum())
        opening = close * np.exp(rng.normal(0, 0.01, sessions))
        part = {
            "symbol": f"S{i:03d}",
            "date": days,
            "open": opening,
            "high": np.maximum(opening, close) * (1 + rng.uniform(0, 0.01, sessions)),
            "low": np.minimum(opening, close) * (1 - rng.uniform(0, 0.01, sessions)),
            "close": close,
            "volume": rng.integers(0, 10_000_000, sessions).astype("float64"),
            "price_factor": 1.0,
            "share_factor": 1.0,
            "segment": np.int32(0),
        }
        parts.append(pd.DataFrame(part)[on])
    market = pd.concat(parts, ignore_index=True)
    return market.astype({"symbol": "string", "date": "datetime64[us]"})


def raw_market(seed: int, symbols: int = 24, sessions: int = 640) -> pd.DataFrame:
    """Bars with splits, spin-offs, bad prints and the like among the last 60 sessions."""
    settings = {"symbols": symbols, "start": "2014-01-02", "sessions": sessions, "seed": seed}
    raw = synthetic_market(SyntheticParams(**settings, signal=0, faults={})).bars[COLUMNS]
    raw = raw.sort_values(["symbol", "date"], ignore_index=True)
    whole = raw.groupby("symbol")["date"].transform("size") == sessions
    raw = raw[whole].reset_index(drop=True)
    days = np.sort(raw["date"].unique())
    rng = np.random.default_rng(seed)
    for _ in range(25):
        symbol, day = rng.choice(raw["symbol"].unique()), rng.choice(days[-60:])
        since = (raw["symbol"] == symbol) & (raw["date"] >= day)
        that = (raw["symbol"] == symbol) & (raw["date"] == day)
        match rng.integers(7):
            case 0:
                raw.loc[since, PRICES] /= 2
                raw.loc[since, "volume"] *= 2
            case 1:
                raw.loc[since, PRICES] *= 0.8
            case 2:
                raw.loc[that, ["high", "close"]] *= 1.3
            case 3:
                raw.loc[that, PRICES] *= 100
            case 4:
                raw.loc[that, "volume"] *= 1000
            case 5:
                raw.loc[that, "high"] *= 1.4
            case 6:
                raw = raw[~(since & (raw["date"] < day + pd.Timedelta(4, "D")))]
    return raw.reset_index(drop=True)


def synthetic_params(**changes) -> SyntheticParams:
    """40 stocks of 1,000 sessions from 2012-01-03, without faults or signal, and these changes."""
    settings = {"symbols": 40, "start": "2012-01-03", "sessions": 1000, "seed": 7, "signal": 0.0}
    return SyntheticParams.model_validate({**settings, "faults": {}, **changes})
