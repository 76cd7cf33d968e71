"""A workspace whose files the dashboard reads, small enough to work its pages out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
from support.decision_files import write_decisions

from pitwise.bars.calendar import session_close
from pitwise.workspace import Workspace, write_json, write_parquet

DAYS = pd.bdate_range("2013-09-23", "2013-11-01").astype("datetime64[us]")
"""30 sessions; the last is the Friday of `support.fake_service`."""


def features_of(symbol: str, closes: np.ndarray, days: pd.DatetimeIndex = DAYS) -> pd.DataFrame:
    """Rows of `data/features/daily.parquet`: bars that were known from their close on."""
    instants = session_close(pd.Series(days))
    return pd.DataFrame(
        {
            "symbol": symbol,
            "event_timestamp": instants,
            "created_timestamp": instants,
            "open": closes,
            "high": closes * 1.01,
            "low": closes * 0.99,
            "close": closes,
            "volume": 1000.0,
            "price_factor": 1.0,
            "share_factor": 1.0,
            "segment": np.int32(0),
            "rsi_14": 50.0,
        }
    )


def walked_of(symbol: str, kind: str, seed: int, said: dict[str, float]) -> pd.DataFrame:
    """Rows of the walk-forward: log return by session."""
    days = pd.Series(pd.to_datetime(list(said)))
    values = list(said.values())
    return pd.DataFrame(
        {
            "symbol": symbol,
            "event_timestamp": session_close(days),
            "kind": kind,
            "fold": 0,
            "seed": seed,
            "score": values,
            "log_return": values,
            "p_up": [0.5 + value for value in values],
            "label": 0.01,
            "label_open": 0.01,
        }
    )


def web_workspace(root: Path) -> Workspace:
    """AAPL climbs 1% a session, MSFT swings; the walk-forward has them at 2013-10-30 and 31."""
    workspace = Workspace(root)
    n = len(DAYS)
    climbs, swings = 100 * np.exp(0.01 * np.arange(n)), 50 * np.exp(0.02 * (np.arange(n) % 2))
    write_parquet(
        pd.concat([features_of("AAPL", climbs), features_of("MSFT", swings)]), workspace.daily_features
    )
    said = {"2013-10-30": 0.01, "2013-10-31": -0.02}
    write_parquet(
        pd.concat(
            [
                walked_of("AAPL", "lstm", 7, said),
                walked_of("AAPL", "lstm", 8, {day: 3 * value for day, value in said.items()}),
                walked_of("MSFT", "lstm", 7, {"2013-10-30": 0.03}),
                walked_of("AAPL", "ridge", 7, {"2013-10-30": 0.3}),
            ]
        ),
        workspace.walk_forward_forecasts,
    )
    unproven = {"kind": "unproven", "verdict": "warning", "figures": {"champion": "7"}}
    write_json({"champion": "7", "findings": [unproven]}, workspace.registration_report)
    write_decisions(workspace, DAYS)
    return workspace
