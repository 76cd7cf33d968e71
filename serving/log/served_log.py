"""Every answer, written down before it is sent.

An answer goes to a write-ahead file of its process; `serving.log.mover` brings it to the database. What
was sent survives the end of the process, `kill -9` too, and a database that is away.
"""

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pitwise.errors import StoreError
from serving.log.write_ahead import WriteAhead
from serving.state.market import PartStatus, SymbolForecast
from serving.supervised import Loop

REMEMBERED = 200_000  # keys; some 50 MB, and hundreds of sessions of the whole S&P 500


class Shown(NamedTuple):
    """Something of a symbol that was answered and is no new forecast."""

    symbol: str
    as_of: str
    """Close of the last session seen, ISO 8601 in UTC with Z."""
    window_hash: str = ""
    """Of a forecast of the past."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer that is about to be sent."""

    request_id: str
    caller: str
    """Name of the key it was asked with; "" without one."""
    route: str
    received_at: datetime
    """Aware."""
    latency_ms: float
    """From then to now."""
    model_version: str
    """"" where it has no forecast of the champion now."""
    state: int
    """Number of the market state it was answered from; 0 where it is of the past."""
    forecasts: Sequence[SymbolForecast]
    shown: Sequence[Shown] = ()
    """What else it has: features, or forecasts of the past."""


class ServedLog:
    """The write-ahead of one process, in a folder of its own.

    The log may hold an answer that never reached its client, killed in between; never the reverse.

    Args:
        seconds: after which what was written is handed to the mover.

    Raises:
        StoreError: the folder cannot be written, or another process writes there.
    """

    def __init__(self, folder: Path, seconds: float = 0.5):
        self._write_ahead = WriteAhead(folder)
        self._recording = threading.Lock()
        self._seen: set[tuple] = set()
        self._loop = Loop("served-log", seconds, self._write_ahead.close_file).start()

    @property
    def pending(self) -> int:
        """Answers of this process that the database does not have yet."""
        return self._write_ahead.pending

    @property
    def status(self) -> PartStatus:
        return replace(self._loop.status, figures={"pending": float(self.pending)})

    def record(self, answered: Answered) -> None:
        """Write down what is about to be sent; on return it survives `kill -9`.

        A forecast that this process has written down before is in the log already; that it was asked for
        again is written down.

        Raises:
            StoreError: it cannot be written, or is not a finite number; nothing may be sent then.
        """
        version, forecasts = answered.model_version, answered.forecasts
        with self._recording:
            keys = [(f.symbol, f.as_of, version, f.window_hash) for f in forecasts]
            new = [f for f, key in zip(forecasts, keys, strict=True) if key not in self._seen]
            _require_finite(new, version)
            told = [Shown(f.symbol, f.as_of, f.window_hash) for f in forecasts] + [*answered.shown]
            self._write_ahead.append(
                {
                    "request_id": answered.request_id,
                    "caller": answered.caller,
                    "route": answered.route,
                    "received_at": answered.received_at,
                    "latency_ms": answered.latency_ms,
                    "model_version": version,
                    "state": answered.state,
                    "as_of": min((f.as_of for f in told), default=None),
                    "n": len(told),
                    "windows": " ".join([f"{f.symbol}:{f.window_hash}".rstrip(":") for f in told]),
                    "forecasts": [_row(f) for f in new],
                }
            )
            if new:
                if len(self._seen) > REMEMBERED:
                    self._seen.clear()  # written once more, they are still in the log once
                self._seen.update(keys)

    def writable(self) -> None:
        """Write as much as some answers take, and take it away again.

        Raises:
            StoreError: it cannot be written.
        """
        self._write_ahead.probe()

    def close(self, timeout: float = 5.0) -> None:
        """Hand over what was written and release the folder, within `timeout` seconds."""
        self._loop.stop(timeout)
        self._write_ahead.release()


def _row(forecast: SymbolForecast) -> dict[str, Any]:
    return {
        "symbol": forecast.symbol,
        "as_of": forecast.as_of,
        "window_hash": forecast.window_hash,
        "for_session": forecast.for_session,
        "horizon": forecast.horizon,
        "score": forecast.score,
        "log_return": forecast.log_return,
        "price": forecast.price,
        "p_up": forecast.p_up,
        "scale": forecast.scale,
    }


def _require_finite(forecasts: Iterable[SymbolForecast], version: str) -> None:
    for forecast in forecasts:
        # A sum is finite only where each of its terms is.
        if not math.isfinite(forecast.score + forecast.log_return + forecast.price + forecast.p_up):
            raise StoreError(
                f"model version {version} returns a forecast of {forecast.symbol} that is no finite "
                "number. Make the version before it champion again: `pitwise model rollback`."
            )
