"""The parts of a running service, and what the HTTP layer needs of each."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import pandas as pd

from pitwise.features.incremental import Outcome
from pitwise.registry.model import RegisteredModel
from serving.inference.marks import Marks
from serving.inference.predictor import Forecasts, OnlineStore
from serving.settings import Suspect


class Predictor(Protocol):
    """One version of the model on the online store: `serving.inference.predictor.Predictor`."""

    @property
    def model(self) -> RegisteredModel: ...

    def forecast(
        self, symbols: Sequence[str], seconds: Callable[[str, float], None] | None = None
    ) -> Forecasts:
        """Forecasts of the symbols' next session; `seconds` receives the time of each step."""


class Champion(Protocol):
    """The champion, which may change at any time: `serving.inference.champion.LiveChampion`."""

    @property
    def predictor(self) -> Predictor:
        """The current one. A request takes it once and keeps it."""

    @property
    def since(self) -> datetime: ...

    @property
    def swaps(self) -> int: ...

    @property
    def refused(self) -> dict[str, str]:
        """Version to why it was refused."""

    def stop(self) -> None: ...


class ServedLog(Protocol):
    """The log of answered forecasts: `serving.log.served_log.ServedLog`."""

    @property
    def pending(self) -> int:
        """Rows that the database does not have yet."""

    def record(self, forecasts: Forecasts) -> None: ...

    def close(self) -> None: ...


class LiveBars(Protocol):
    """The market, with the bars that came in since the last run: `serving.live.live_bars.LiveBars`."""

    @property
    def symbols(self) -> list[str]: ...

    @property
    def newest(self) -> np.datetime64:
        """Close of the market's newest session, UTC."""

    @property
    def sealed(self) -> np.datetime64:
        """Close of the newest sealed session, UTC."""

    @property
    def missing_sessions(self) -> Mapping[str, int]:
        """Symbol to how many sessions its newest window leaves out, where it leaves out any."""

    @property
    def marks(self) -> Marks:
        """What is known of the symbols' newest bars."""

    def take(self, bars: pd.DataFrame) -> list[Outcome]: ...

    def withdraw(self, symbol: str, date: pd.Timestamp) -> Outcome: ...

    def seal(self, date: pd.Timestamp) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Service:
    """What the API runs on."""

    champion: Champion
    served: ServedLog
    live: LiveBars
    store: OnlineStore
    suspect: Suspect

    def close(self) -> None:
        """Stop following the registry, take no more bars, log what is left; each in any case."""
        with ExitStack() as ends:
            ends.callback(self.served.close)
            ends.callback(self.live.close)
            ends.callback(self.champion.stop)
