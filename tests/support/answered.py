"""Answers that are about to be sent, and what the log has of them."""

from datetime import UTC, datetime

import pandas as pd
import sqlalchemy as sa

from pitwise.registry.prediction_log import PREDICTIONS, REQUESTS, open_log
from serving.log.served_log import Answered
from serving.state.market import SymbolForecast

FRIDAY = "2024-01-12T21:00:00Z"
TUESDAY = "2024-01-16"
"""The session after it: Monday is Martin Luther King's day."""
RECEIVED = datetime(2024, 1, 12, 22, 30, 15, 123456, tzinfo=UTC)


def forecast(symbol: str, **changed) -> SymbolForecast:
    fields = {
        "symbol": symbol,
        "as_of": FRIDAY,
        "for_session": TUESDAY,
        "horizon": 1,
        "session": 13_629,
        "missing": 0,
        "last_close": 100.0,
        "score": 2.5,
        "log_return": 1 / 300,
        "price": 100.1,
        "p_up": 0.5,
        "scale": 0.02,
        "window_hash": "0f",
        "provisional": False,
        "unusual": None,
        "suspect": None,
    }
    return SymbolForecast(**fields | changed)


def answered(symbols: str | list[str], request_id: str = "r", version: str = "1", **changed) -> Answered:
    """One of these symbols' forecasts; other arguments are changes of each."""
    forecasts = [forecast(symbol, **changed) for symbol in symbols]
    return Answered(request_id, "desk", "/v1/predict", RECEIVED, 1.5, version, 2**60, forecasts)


def logged(url: str) -> pd.DataFrame:
    """The forecasts in the log."""
    keys = ["symbol", "window_hash", "model_version"]
    return _table(url, PREDICTIONS).sort_values(keys, ignore_index=True)


def requests(url: str) -> pd.DataFrame:
    """The requests in the log."""
    return _table(url, REQUESTS).sort_values("request_id", ignore_index=True)


def _table(url: str, table: sa.Table) -> pd.DataFrame:
    engine = open_log(url)
    try:
        return pd.read_sql(sa.select(table), engine)
    finally:
        engine.dispose()
