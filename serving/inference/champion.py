"""The current champion: follows the registry's alias, and takes no version that fails its check."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from pitwise.errors import StoreError
from pitwise.registry.champion import CHAMPION, registered_version, registry_client
from pitwise.registry.model import (
    RegisteredModel,
    RegistryParams,
    load_registered,
    registry_entry,
)
from pitwise.workspace import Workspace
from serving.inference.check import CHECKED_SYMBOLS, as_store_error, check_predictor, short
from serving.inference.predictor import THREADS, OnlineStore, Predictor, load_champion
from serving.state.market import ModelInfo, PartStatus
from serving.supervised import Loop

RETRY_SECONDS = 30.0
"""A refused version that the alias still points to is tried again: the fault may be the store's."""

logger = logging.getLogger("pitwise.serving")


class LiveChampion:
    """The predictor of the current champion; follows the alias `champion`.

    A version that cannot be fetched or fails its check is refused and the current one stays; so it
    does while the registry does not answer or the alias is gone. A version is known by its file: that of
    a registry made anew may have a number that another one had.

    Args:
        symbols: those that the store has windows of.
        seconds: between two checks of the alias.
        swapping: entered with the new predictor before it is the current one, and left when it is; while
            entering raises, the old one stays and it is tried again.

    Raises:
        StoreError: there is no champion, or it is refused.
    """

    def __init__(
        self,
        workspace: Workspace,
        registry: RegistryParams,
        store: OnlineStore,
        symbols: Callable[[], Sequence[str]],
        seconds: float,
        swapping: Callable[[Predictor], AbstractContextManager[object]] = nullcontext,
    ):
        self._name = registry.model
        self._store = store
        self._symbols = symbols
        self._swapping = swapping
        self._predictor = self._checked(lambda: load_champion(workspace, registry))
        self._client = registry_client(workspace, registry)
        self._entry = self._predictor.model.entry
        self.since = datetime.now(UTC)
        """When the current version took over, in this process."""
        self.refused: dict[str, str] = {}
        """Version to why it was refused: the one that the alias points to, or none."""
        self.swaps = 0
        """How often the champion has changed since the start."""
        self._tried: tuple | None = None
        self._retry_at = 0.0
        self._warned: str | None = None
        self._loop = Loop("champion", seconds, self.poll)

    @property
    def predictor(self) -> Predictor:
        """The current one. A caller that holds it keeps it, whatever is swapped in meanwhile."""
        return self._predictor

    @property
    def status(self) -> PartStatus:
        """How following goes: not well while the registry is away or a swap fails. A refused version is
        no failure of it."""
        status = self._loop.status
        if status.ok and self._warned:
            return replace(status, ok=False, detail=f"the registry {self._warned}")
        return status

    def info(self, predictor: Predictor | None = None) -> ModelInfo:
        """What people see of the champion.

        Args:
            predictor: that of a swap under way; by default the current one.
        """
        is_current = predictor is None or predictor is self._predictor
        model = (predictor or self._predictor).model
        return ModelInfo(
            version=model.version,
            identity=model.identity,
            kind=model.kind,
            features=list(model.features),
            window=model.window,
            since=(self.since if is_current else datetime.now(UTC)).isoformat(),
            swaps=self.swaps + (not is_current),
            refused=dict(self.refused) if is_current else {},
            metadata=dict(model.metadata),
        )

    def poll(self) -> None:
        """Check the alias once, and swap if it has moved.

        Raises:
            Exception: what `swapping` raises.
        """
        try:
            found = registered_version(self._client, self._name, CHAMPION)
        except Exception as error:  # whatever a database or a server can throw
            return self._warn_once("does not answer", f"({short(error)})")
        if found is None:
            self._forget_refused()
            return self._warn_once(f"has no version of '{self._name}' with the alias '{CHAMPION}'", "")
        if self._warned:
            logger.info("the registry is back")
            self._warned = None

        entry = registry_entry(found)
        if entry == self._entry:
            self._forget_refused()
        elif entry != self._tried or monotonic() >= self._retry_at:
            self._take(found, entry)
        return None

    def start(self) -> None:
        """Follow the alias in a thread of its own."""
        self._loop.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; one that is fetching a version after `timeout` s ends with the process."""
        self._loop.stop(timeout)

    def _take(self, found: Any, entry: tuple) -> None:
        """Make a version the current one, or note why it is refused."""
        version, current = str(found.version), self._predictor.model
        try:
            predictor = self._checked(lambda: load_registered(self._name, found, THREADS))
        except StoreError as error:
            self.refused = {version: str(error)}
            if entry != self._tried:
                logger.error("version %s refused, version %s stays: %s", version, current.version, error)
            self._tried, self._retry_at = entry, monotonic() + RETRY_SECONDS
            return
        model = predictor.model
        if (model.version, model.identity) != (current.version, current.identity):
            with self._swapping(predictor):
                self._predictor = predictor
            self.swaps += 1
            self.since = datetime.now(UTC)
            logger.info("version %s takes over from version %s", version, current.version)
        self._entry = entry
        self._forget_refused()

    def _forget_refused(self) -> None:
        self.refused = {}
        self._tried = None

    def _checked(self, load: Callable[[], RegisteredModel]) -> Predictor:
        with as_store_error("it"):
            predictor = Predictor(load(), self._store)
            check_predictor(predictor, self._symbols()[:CHECKED_SYMBOLS])
        return predictor

    def _warn_once(self, what: str, why: str) -> None:
        if what != self._warned:
            current = self._predictor.model.version
            logger.warning("the registry %s, version %s stays %s", what, current, why)
            self._warned = what
