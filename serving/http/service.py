"""What the HTTP layer needs of the service's parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pitwise.workspace import Workspace
from serving.settings import Suspect
from serving.state.market import MarketState, PartStatus, SymbolFeatures

if TYPE_CHECKING:
    from serving.log.history import PastForecast
    from serving.log.served_log import Answered


class States(Protocol):
    """The market as the writer has committed it: `serving.state.database.StateReader`."""

    def current(self) -> MarketState:
        """The newest state; its cost is that of a look where nothing has changed.

        Raises:
            StoreError: none has been committed, or it cannot be read.
        """

    def statuses(self) -> Mapping[str, PartStatus]:
        """How the writer's parts do, by name.

        Raises:
            StoreError: it cannot be read.
        """


class BarOutcome(NamedTuple):
    """What became of one live bar: an `Outcome` of `pitwise.features.incremental`, without pandas."""

    symbol: str
    date: str
    """ISO 8601."""
    outcome: str
    """new | late | repeated | corrected | withdrawn | quarantined | refused | failed"""
    reason: str
    provisional: bool


class Bars(Protocol):
    """The way to the writer: `serving.processes.remote.RemoteBars`. A call waits; make it in a thread.

    Its calls are bounded in number and in time. Whoever calls it from an event loop bounds the threads.
    """

    def take(self, bars: Sequence[Mapping[str, Any]]) -> list[BarOutcome]:
        """What became of live bars, in their order. On return `current` knows them.

        Args:
            bars: symbol, date (ISO 8601), open, high, low, close, volume and, optionally, adj_close.

        Raises:
            AwayError: the writer does not answer; the bars may be kept, and then are `repeated`.
            BusyError: `serve.max_waiting` wait already, or it took longer than `serve.bars_seconds`.
            StoreError: they are kept, and follow when the store is back, or the disk took nothing.
        """

    def withdraw(self, symbol: str, date: str) -> BarOutcome:
        """What became of the withdrawal of a bar; it raises as `take` does.

        Args:
            date: ISO 8601.
        """


class ServedLog(Protocol):
    """The log of answered forecasts: `serving.log.served_log.ServedLog`."""

    @property
    def pending(self) -> int:
        """Rows that the database does not have yet."""

    def record(self, answered: "Answered") -> None:
        """Write down what is about to be answered.

        Raises:
            StoreError: it cannot be written; nothing may be answered then.
        """

    def writable(self) -> None:
        """Write something of no account.

        Raises:
            StoreError: it cannot be written.
        """


class History(Protocol):
    """Past forecasts and features: `serving.log.history.History`. Each call waits for a database.

    Raises:
        StoreError: it does not answer.
    """

    def of(self, symbol: str, first: date | None, last: date | None, most: int) -> "list[PastForecast]":
        """The forecasts served of a symbol, for sessions `first` to `last`; None: unbounded.

        Returns:
            at most `most`, the oldest session first, then the first served.
        """

    def market(self, day: date, most: int) -> "list[PastForecast]":
        """The last served forecast of each symbol from the newest session closed on `day` or before.

        Returns:
            at most `most`, by symbol.
        """

    def features(self, symbol: str, at: datetime) -> SymbolFeatures | None:
        """A symbol's newest session, as it was known at an instant (aware); None where it had none."""


@dataclass(frozen=True)
class Service:
    """What the API runs on."""

    states: States
    bars: Bars
    served: ServedLog
    history: History
    suspect: Suspect
    pids: Path | None = None
    """JSON file of the service's processes, name to id; None where there is this one alone."""
    workspace: Workspace | None = None
    """Whose files the dashboard shows; None: it shows the service alone."""
