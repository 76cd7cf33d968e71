"""A market that crashes: nothing is wrong with its bars, and every move was traded."""

from datetime import date

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_date, session_number
from pitwise.bars.schema import COLUMNS, PRICES

CRASH_SESSIONS = 12
CALM = 0.008  # the market's standard deviation a session before the crash
MOVES = (0.05, 0.12)  # of the market in a session of the crash, up or down
BETAS = (0.5, 2.0)
VOLUMES = (2.0, 4.0)  # times ordinary
APART = 3  # sessions from one to the next, at most


def crash_market(symbols: int, sessions: int, seed: int, start: date = date(2018, 1, 2)) -> pd.DataFrame:
    """Bars of `symbols` stocks, of whose `sessions` twelve bring market moves of 5 to 12%, up or down.

    They come 1 to 3 sessions apart, beginning at about two thirds of the way. Betas are from 0.5 to 2,
    and the median stock moves as the market. Each has noise of its own (Student t, 5 degrees of
    freedom), up to three times as wide in a session of the crash. Volumes are 2 to 4 times ordinary
    then. Ranges widen with the moves, and a part of each move, drawn by session, falls before the open.

    Returns:
        raw bars by symbol and date, in cents and whole shares.
    """
    rng = np.random.default_rng(seed)
    at = crash_sessions(sessions, seed)
    market = rng.normal(0.0003, CALM, sessions)
    near = np.zeros(sessions)
    near[at[0] : at[-1] + 1] = 1.0
    market[near > 0] *= 2.5
    size = rng.uniform(*MOVES, CRASH_SESSIONS)
    # As in 2008 and 2020, rises follow falls, so that the stocks do not all end at nothing.
    market[at] = np.log1p(size * np.where(np.arange(CRASH_SESSIONS) % 2 == 0, -1, 1))

    beta = rng.uniform(*BETAS, symbols)[:, None]
    market[at] /= np.median(beta)  # so that the median stock moves as the market is said to
    own = 0.012 * np.exp(rng.normal(0.0, 0.35, (symbols, 1)))
    wider = 1 + 0.5 * near + 18 * np.abs(np.where(np.isin(np.arange(sessions), at), market, 0.0))
    wider = np.minimum(wider, 3.0)
    noise = own * wider * rng.standard_t(5, (symbols, sessions)).clip(-6, 6) / np.sqrt(5 / 3)
    change = beta * market + noise

    before_open = rng.uniform(0.2, 0.7, sessions) * change + 0.3 * own * wider * rng.normal(
        size=change.shape
    )
    within = change - before_open
    spread = 2 * np.square(own * wider + 0.3 * beta * np.abs(market))
    up, down = np.sqrt(np.square(within) + spread * rng.standard_exponential((2, *change.shape)))
    close = np.log(rng.uniform(20, 200, (symbols, 1))) + change.cumsum(axis=1)
    opened = close - within
    activity = rng.normal(0.0, 0.25, change.shape) + 0.25 * np.minimum(np.abs(noise) / own, 6)
    busy = np.where(near > 0, rng.uniform(1.2, 2.0, sessions), 1.0)
    busy[at] = rng.uniform(*VOLUMES, CRASH_SESSIONS)
    volume = np.exp(rng.normal(14.0, 1.0, (symbols, 1)) + activity) * busy

    high, low = opened + (within + up) / 2, opened + (within - down) / 2
    logs = dict(zip(PRICES, (opened, high, low, close), strict=True))
    first = int(session_number(pd.Series([pd.Timestamp(start)]))[0])
    days = session_date(np.arange(first, first + sessions)).to_numpy()
    width = len(str(symbols))
    names = np.array([f"CR{i:0{width}d}" for i in range(1, symbols + 1)], dtype=object)
    columns = {
        "symbol": pd.array(names.repeat(sessions), dtype="string"),
        "date": np.tile(days, symbols),
        **{name: np.round(np.exp(values), 2).clip(0.01).ravel() for name, values in logs.items()},
        "volume": np.round(volume).ravel(),
    }
    return pd.DataFrame(columns)[COLUMNS]


def crash_sessions(sessions: int, seed: int) -> np.ndarray:
    """(12,) which of the sessions `crash_market` lets the market fall or rise in."""
    rng = np.random.default_rng([seed, 1])
    return sessions * 2 // 3 + np.cumsum(rng.integers(1, APART + 1, CRASH_SESSIONS))
