"""A client of the service, `pitwise serve`: forecasts, signals, risk, live bars and more in Python.

Needs httpx: `pip install 'pitwise[client]'`.

    from pitwise.client import Client

    with Client("http://127.0.0.1:8600") as client:
        for forecast in client.predict(["AAPL", "MSFT"]).forecasts:
            print(forecast.symbol, forecast.for_session, forecast.price)
"""

from pitwise.client.answers import (
    BarOutcome,
    BarsTaken,
    Features,
    Forecast,
    Forecasts,
    Model,
    PastForecast,
    PastForecasts,
    Readiness,
    Risk,
    Signal,
    Signals,
    SignalsRecord,
    SymbolProblem,
    Update,
    ValueAtRisk,
)
from pitwise.client.client import Client
from pitwise.client.errors import AnswerError, ClientError, ProblemError, UnreachableError

__all__ = [
    "AnswerError",
    "BarOutcome",
    "BarsTaken",
    "Client",
    "ClientError",
    "Features",
    "Forecast",
    "Forecasts",
    "Model",
    "PastForecast",
    "PastForecasts",
    "ProblemError",
    "Readiness",
    "Risk",
    "Signal",
    "Signals",
    "SignalsRecord",
    "SymbolProblem",
    "UnreachableError",
    "Update",
    "ValueAtRisk",
]
