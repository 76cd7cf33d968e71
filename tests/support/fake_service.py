"""The API's surroundings, made by hand: what it answers can be worked out on paper."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI

from pitwise.workspace import Workspace
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.http.service import BarOutcome, Service
from serving.log.history import PastForecast
from serving.log.served_log import Answered
from serving.settings import ServeParams
from serving.state.market import MarketState, ModelInfo, PartStatus, SymbolFeatures, SymbolForecast

FRIDAY = "2013-11-01T20:00:00Z"
"""A session's close in summer time; the next session is Monday, 2013-11-04."""
BAR = {
    "symbol": "AAPL",
    "date": "2013-11-04",
    "open": 10,
    "high": 12,
    "low": 9,
    "close": 11.5,
    "volume": 100,
}
"""Of that next session, as the API takes it."""
PARAMS = {
    "host": "127.0.0.1",
    "port": 0,
    "hosts": ["testserver", "127.0.0.1"],
    "workers": 1,
    "keys": "keys.json",
    "requests_per_minute": 1_000_000,
    "max_symbols": 1000,
    "max_bars": 3,
    "max_body_bytes": 100_000,
    "max_waiting": 16,
    "bars_seconds": 30,
    "ttl_sessions": 5,
    "clock": "market",
    "champion_seconds": 5,
    "drain_seconds": 10,
    "correction_sessions": 10,
}
NEWEST = 1000
"""Number of Friday's session."""
JUST_NOW = math.inf
"""When the parts were last looked at, however long a test takes."""
MARKET = {
    "AAPL": (FRIDAY, NEWEST),
    "MSFT": (FRIDAY, NEWEST),
    "LAGS": ("2013-10-25T20:00:00Z", NEWEST - 5),
    "OLD": ("2013-10-24T20:00:00Z", NEWEST - 6),
}
"""Symbol to the close and the number of its newest session."""
MODEL = ModelInfo(
    version="7",
    identity="1" * 64,
    kind="lstm",
    features=["close", "volume"],
    window=30,
    since="2013-11-01T21:00:00Z",
    swaps=2,
    refused={"8": "p_up is not finite"},
    metadata={"kind": "lstm", "features": ["close"], "window": 30, "seed": 7},
)


def forecast_of(symbol: str, i: int, as_of: str, session: int) -> SymbolForecast:
    """Symbol i of a market closed at 100 + i; its log return is i / 100, its p_up 0.5 + i / 1000, its
    score -i, its scale 0.02."""
    return SymbolForecast(
        symbol,
        as_of,
        "2013-11-04",
        horizon=1,
        session=session,
        missing=0,
        last_close=100.0 + i,
        score=-float(i),
        log_return=i / 100,
        price=(100 + i) * math.exp(i / 100),
        p_up=0.5 + i / 1000,
        scale=0.02,
        window_hash="0" * 16,
        provisional=False,
        unusual=None,
        suspect=None,
    )


def features_of(symbol: str, as_of: str, session: int) -> SymbolFeatures:
    return SymbolFeatures(symbol, as_of, session, False, {"close": 100.0, "rsi_14": math.nan})


def market_state(market=None, number: int = 50) -> MarketState:
    market = MARKET if market is None else market
    return MarketState(
        number,
        MODEL,
        NEWEST,
        FRIDAY,
        {s: forecast_of(s, i, *seen) for i, (s, seen) in enumerate(market.items())},
        {s: features_of(s, *seen) for s, seen in market.items()},
        dict.fromkeys(market, number),
    )


class FakeStates:
    """Holds a state, which a test may change."""

    def __init__(self, state: MarketState):
        self.state = state
        self.parts = {
            part: PartStatus(True, "", 0, JUST_NOW) for part in ("store", "champion", "live_bars")
        }
        self.parts["live_bars"] = replace(self.parts["live_bars"], figures={"waiting": 2.0})
        self.fault: Exception | None = None

    def current(self) -> MarketState:
        if self.fault:
            raise self.fault
        return self.state

    def statuses(self) -> dict[str, PartStatus]:
        if self.fault:
            raise self.fault
        return self.parts

    def change(self, symbol: str, **values) -> None:
        """Make a new state in which a symbol's forecast is another."""
        state, number = self.state, self.state.number + 1
        forecast = replace(state.forecasts[symbol], **values)
        self.state = replace(
            state,
            number=number,
            forecasts={**state.forecasts, symbol: forecast},
            changed={**state.changed, symbol: number},
        )


class FakeServed:
    def __init__(self):
        self.recorded: list[Answered] = []
        self.pending = 3
        self.probes = 0
        self.fault: Exception | None = None

    def record(self, answered: Answered) -> None:
        if self.fault:
            raise self.fault
        self.recorded.append(answered)

    def writable(self) -> None:
        self.probes += 1
        if self.fault:
            raise self.fault

    @property
    def symbols(self) -> list[list[str]]:
        """Of each answer."""
        return [[f.symbol for f in answered.forecasts] for answered in self.recorded]


class FakeBars:
    """Takes every bar but those above 1000 dollars; of none below 1 dollar features can be made."""

    def __init__(self, symbols):
        self.symbols = list(symbols)
        self.withdrawn: list = []
        self.taken: list = []
        self.threads: set[int] = set()
        self.fault: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def take(self, bars) -> list[BarOutcome]:
        self.threads.add(threading.get_ident())
        self.go_on.wait()
        if self.fault:
            raise self.fault
        self.taken.append(bars)
        return [self._outcome(bar) for bar in bars]

    def _outcome(self, bar) -> BarOutcome:
        if bar["close"] > 1000:
            return BarOutcome(bar["symbol"], bar["date"], "quarantined", "bad_print", False)
        if bar["close"] < 1:
            return BarOutcome(bar["symbol"], bar["date"], "failed", "ValueError: no range", False)
        return BarOutcome(bar["symbol"], bar["date"], "new", "", True)

    def withdraw(self, symbol: str, date: str) -> BarOutcome:
        if self.fault:
            raise self.fault
        if symbol not in self.symbols:
            return BarOutcome(symbol, date, "refused", "unknown_symbol", False)
        self.withdrawn.append((symbol, date))
        return BarOutcome(symbol, date, "withdrawn", "", False)


def past_forecast(symbol: str, day: str, log_return: float, realised: float | None) -> PastForecast:
    return PastForecast(
        symbol=symbol,
        as_of=FRIDAY,
        for_session=day,
        horizon=1,
        model_version="6",
        window_hash="0" * 16,
        price=100 * math.exp(log_return),
        score=-log_return,
        log_return=log_return,
        p_up=0.5 + log_return,
        scale=None,
        served_at="2013-11-01T22:00:00Z",
        matured=realised is not None,
        realised=realised,
    )


class FakeHistory:
    """AAPL was forecast for two sessions, of which the first has matured."""

    def __init__(self):
        self.past = [
            past_forecast("AAPL", "2013-11-01", 0.01, -0.02),
            past_forecast("AAPL", "2013-11-04", 0.02, None),
        ]
        self.asked: list = []
        self.fault: Exception | None = None

    def _ask(self, *question) -> None:
        self.asked.append(question)
        if self.fault:
            raise self.fault

    def of(self, symbol, first, last, most) -> list[PastForecast]:
        self._ask("of", symbol, first, last, most)
        return [
            past
            for past in self.past
            if past.symbol == symbol
            and (first is None or past.for_session >= first.isoformat())
            and (last is None or past.for_session <= last.isoformat())
        ][:most]

    def market(self, day, most) -> list[PastForecast]:
        self._ask("market", day, most)
        return [past_forecast(s, "2013-11-04", i / 100, None) for i, s in enumerate(("AAPL", "MSFT"))]

    def features(self, symbol, at) -> SymbolFeatures | None:
        self._ask("features", symbol, at)
        return features_of(symbol, FRIDAY, NEWEST) if symbol == "AAPL" else None


def fake_service(market=None, suspect="mark") -> Service:
    state = market_state(market)
    return Service(FakeStates(state), FakeBars(state.forecasts), FakeServed(), FakeHistory(), suspect)


@contextmanager
def opened(service: Service) -> Iterator[Service]:
    yield service


def fake_app(folder: Path, service: Service | None = None, **params) -> FastAPI:
    """The API over fakes; its keys are in `keys.json` of the folder."""
    service = service or fake_service()
    keys = Keys(Workspace(folder).path(PARAMS["keys"]))
    return create_app(ServeParams(**PARAMS | params), keys, lambda: opened(service))
