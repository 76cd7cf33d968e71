"""The API's surroundings, made of numpy: what it answers can be worked out by hand."""

import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from serving import serve
from serving.desk import Service
from serving.keys import Keys
from serving.predictor import Forecasts
from serving.serve import ServeParams

FRIDAY = np.datetime64("2013-11-01T20:00:00", "us")
"""A session's close in summer time; the next session is Monday, 2013-11-04."""
PARAMS = {
    "host": "127.0.0.1",
    "port": 0,
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
        self.newest = max(market.values())
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
            )
            for bar in bars.itertuples()
        ]

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


def fake_service(folder: Path, market=None, **params) -> Service:
    market = MARKET if market is None else market
    champion = SimpleNamespace(
        predictor=FakePredictor(market),
        refused={"8": "p_up is not finite"},
        swaps=2,
        since=datetime(2013, 11, 1, 21, 0, tzinfo=UTC),
        stopped=False,
    )
    champion.stop = lambda: setattr(champion, "stopped", True)
    path = folder / "keys.json"
    return Service(
        ServeParams(**{**PARAMS, "keys": path, **params}),
        champion,
        FakeServed(),
        FakeLive(market),
        FakeStore(market),
        Keys(path),
    )


def main() -> None:
    """`pitwise serve` in the current folder, over fakes; a forecast takes the argument's seconds."""

    def build(params, keys):
        service = fake_service(Path(), **params.model_dump(exclude={"keys"}))
        service.champion.predictor.seconds = float(sys.argv[1])
        close = service.live.close
        service.live.close = lambda: (close(), print("closed", flush=True))
        return service

    serve.build_service = build
    serve.run(None, None)


if __name__ == "__main__":
    main()
