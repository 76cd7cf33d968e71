"""The API's surroundings, made of numpy: what it answers can be worked out by hand."""

import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fastapi import FastAPI

from pitwise.errors import StoreError
from pitwise.stage import run_stage
from pitwise.workspace import Workspace
from serving.http import build, server
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.http.service import Service
from serving.inference.marks import Marks
from serving.inference.predictor import Forecasts
from serving.settings import ServeParams

FRIDAY = np.datetime64("2013-11-01T20:00:00", "us")
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
    "keys": "keys.json",
    "requests_per_minute": 1_000_000,
    "max_symbols": 1000,
    "max_bars": 3,
    "max_body_bytes": 100_000,
    "ttl_sessions": 5,
    "clock": "market",
    "champion_seconds": 5,
    "drain_seconds": 10,
    "correction_sessions": 10,
}
MARKET = {
    "AAPL": FRIDAY,
    "MSFT": FRIDAY,
    "LAGS": np.datetime64("2013-10-25T20:00:00", "us"),  # 5 sessions before
    "OLD": np.datetime64("2013-10-24T20:00:00", "us"),  # 6 sessions before
}


class FakePredictor:
    """Symbol i of the market closed at 100 + i; its log return is i / 100, its p_up 0.5 + i / 1000."""

    def __init__(self, market):
        self.market = market
        self.order = {symbol: i for i, symbol in enumerate(market)}
        self.model = SimpleNamespace(
            version="7",
            kind="lstm",
            features=("close", "volume"),
            window=30,
            metadata={"kind": "lstm", "features": ["close"], "window": 30, "seed": 7},
        )
        self.fault: Exception | None = None
        self.seconds = 0.0

    def forecast(self, symbols, seconds=None) -> Forecasts:
        if self.fault:
            raise self.fault
        time.sleep(self.seconds)
        if seconds:
            seconds("lookup", 0.001)
            seconds("model", 0.002)
        found = [symbol for symbol in symbols if symbol in self.order]
        i = np.array([self.order[symbol] for symbol in found], float)
        return Forecasts(
            self.model.version,
            found,
            np.array([self.market[symbol] for symbol in found], "datetime64[us]"),
            100 + i,
            i / 100,
            (100 + i) * np.exp(i / 100),
            0.5 + i / 1000,
            ["0" * 16] * len(found),
            [symbol for symbol in symbols if symbol not in self.order],
        )


class FakeServed:
    def __init__(self):
        self.recorded: list[Forecasts] = []
        self.pending = 3
        self.closed = False
        self.fault: Exception | None = None

    def record(self, forecasts):
        if self.fault:
            raise self.fault
        self.recorded.append(forecasts)

    def close(self):
        self.closed = True


class FakeLive:
    """Takes every bar but those above 1000 dollars."""

    def __init__(self, market):
        self.symbols = list(market)
        self.newest = self.sealed = max(market.values())
        self.missing_sessions: dict[str, int] = {}
        self.marks = Marks({}, {})
        self.withdrawn: list = []
        self.taken: list = []
        self.threads: set[int] = set()
        self.closed = False
        self.fault: Exception | None = None

    def take(self, bars):
        if self.fault:
            raise self.fault
        self.taken.append(bars)
        self.threads.add(threading.get_ident())
        return [
            SimpleNamespace(
                symbol=bar.symbol,
                date=f"{bar.date:%Y-%m-%d}",
                outcome="new" if bar.close < 1000 else "quarantined",
                reason="" if bar.close < 1000 else "bad_print",
                provisional=bar.close < 1000,
            )
            for bar in bars.itertuples()
        ]

    def withdraw(self, symbol, date):
        if self.fault:
            raise self.fault
        known = symbol in self.symbols
        if known:
            self.withdrawn.append((symbol, date))
        return SimpleNamespace(
            symbol=symbol,
            date=f"{date:%Y-%m-%d}",
            outcome="withdrawn" if known else "refused",
            reason="" if known else "unknown_symbol",
            provisional=False,
        )

    def close(self):
        self.closed = True


class FakeStore:
    """Feast's answers of the view `daily`."""

    def __init__(self, market):
        self.market = market

    def get_feature_view(self, name):
        assert name == "daily"
        return SimpleNamespace(features=[SimpleNamespace(name="close"), SimpleNamespace(name="rsi_14")])

    def get_online_features(self, features, entity_rows):
        assert features == ["daily:close", "daily:rsi_14"]
        (symbol,) = entity_rows["symbol"]
        known = symbol in self.market
        seconds = int(self.market[symbol].astype("datetime64[s]").astype(int)) if known else 0
        answer = {
            "symbol": [symbol],
            "close": [100.0 if known else None],
            "rsi_14": [float("nan") if known else None],
            "close__ts": [seconds],
        }
        return SimpleNamespace(to_dict=lambda include_event_timestamps: answer)


def fake_service(market=None, suspect="mark") -> Service:
    market = MARKET if market is None else market
    champion = SimpleNamespace(
        predictor=FakePredictor(market),
        refused={"8": "p_up is not finite"},
        swaps=2,
        since=datetime(2013, 11, 1, 21, 0, tzinfo=UTC),
        stopped=False,
    )
    champion.stop = lambda: setattr(champion, "stopped", True)
    return Service(champion, FakeServed(), FakeLive(market), FakeStore(market), suspect)


def fake_app(folder: Path, service: Service | None = None, **params) -> FastAPI:
    """The API over fakes; its keys are in `keys.json` of the folder."""
    service = service or fake_service()
    keys = Keys(Workspace(folder).path(PARAMS["keys"]))
    return create_app(ServeParams(**PARAMS | params), keys, lambda: service)


def main() -> None:
    """`pitwise serve` in the workspace of argument 1, over fakes.

    Argument 2 is how it behaves: the seconds of a forecast; `broken`, a part is missing at the start;
    `slow`, the start takes a minute.
    """
    folder, behaviour = sys.argv[1:]

    def build_service(workspace, params):
        if behaviour == "broken":
            raise StoreError("the champion is not there.")
        if behaviour == "slow":
            print("building", flush=True)
            time.sleep(60)
        service = fake_service()
        service.champion.predictor.seconds = float(behaviour)
        close = service.live.close
        service.live.close = lambda: (close(), print("closed", flush=True))
        return service

    build.build_service = build_service
    run_stage(lambda _: server.run(Workspace(folder), None, None))


if __name__ == "__main__":
    main()
