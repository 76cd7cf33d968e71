"""Seeded random markets for the tests: clean bars on real NYSE sessions."""

import exchange_calendars
import numpy as np
import pandas as pd


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
            "segment": np.int32(0),
        }
        parts.append(pd.DataFrame(part)[on])
    market = pd.concat(parts, ignore_index=True)
    return market.astype({"symbol": "string", "date": "datetime64[us]"})
