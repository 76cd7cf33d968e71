"""The current champion: follows the registry's alias, and takes no version that fails its check."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic

import numpy as np

from pitwise.errors import StoreError, one_line
from pitwise.registry.champion import CHAMPION, registered_version, registry_client
from pitwise.registry.contract import INPUT, OUTPUTS
from pitwise.registry.model import RegisteredModel, RegistryParams, load_registered
from pitwise.workspace import Workspace
from serving.inference.predictor import THREADS, OnlineStore, Predictor, load_champion

CHECKED_SYMBOLS = 50
"""Symbols a version must forecast before it replaces the champion."""
MAX_LOG_RETURN = 1.0
"""No forecast of one session moves a price by a factor of e."""
MAX_BATCH_EFFECT = 1e-5
"""onnxruntime sums in another order in another batch; a model of float32 moves by less than this."""
RETRY_SECONDS = 30.0
"""A refused version that the alias still points to is tried again: the fault may be the store's."""

logger = logging.getLogger("pitwise.serving")


@contextmanager
def as_store_error(version: str) -> Iterator[None]:
    """Any error of fetching or running a version is a StoreError: a foreign file fails in many ways."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{version} cannot be fetched or run ({_short(error)})") from error


def check_predictor(predictor: Predictor, symbols: Sequence[str]) -> None:
    """Check a version's forecasts of real windows, all together and one by one.

    Raises:
        StoreError: it breaks the contract of `pitwise.registry.contract`, or a forecast cannot be right.
            A file that does not run at all raises onnxruntime's own error.
    """
    _check_contract(predictor.model)
    together = predictor.forecast(symbols)
    outputs = np.stack([together.log_return, together.p_up])
    if not together.symbols:
        raise StoreError(f"the online store has no window of {', '.join(symbols)} to check it on")
    # Each claim is written so that a NaN fails it.
    claims = {
        "outputs that are not finite": np.isfinite(outputs).all(axis=0),
        "a p_up outside 0 to 1": (together.p_up >= 0) & (together.p_up <= 1),
        f"a log_return beyond {MAX_LOG_RETURN:g}": np.abs(together.log_return) <= MAX_LOG_RETURN,
    }
    for claim, holds in claims.items():
        if not holds.all():
            raise StoreError(f"it returns {claim} for {together.symbols[int(np.argmin(holds))]}")
    for i, symbol in enumerate(together.symbols):
        alone = predictor.forecast([symbol])
        if alone.window_hash != [together.window_hash[i]]:
            continue  # a bar came in between
        effect = np.abs(np.array([alone.log_return[0], alone.p_up[0]]) - outputs[:, i]).max()
        if not effect <= MAX_BATCH_EFFECT:
            raise StoreError(f"its forecast of {symbol} depends on the batch, by {effect:.1e}")


def _check_contract(model: RegisteredModel) -> None:
    """StoreError where the inputs and outputs of the file are not those of the contract."""
    inputs = {node.name: [node.type, *node.shape[1:]] for node in model.session.get_inputs()}
    wanted = {INPUT: ["tensor(float)", model.window, len(model.features)]}
    if inputs != wanted:
        raise StoreError(f"its inputs are {inputs}, its contract wants {wanted}")
    dimensions = {node.name: len(node.shape) for node in model.session.get_outputs()}
    wrong = [name for name in OUTPUTS if dimensions.get(name) != 1]
    if wrong:
        raise StoreError(f"it has no output {' and no '.join(wrong)} of one value a symbol")


class LiveChampion:
    """The predictor of the current champion; follows the alias `champion`.

    A version that cannot be fetched or fails its check is refused and the current one stays; so it
    does while the registry does not answer or the alias is gone.

    Args:
        symbols: those that the store has windows of.
        seconds: between two checks of the alias.

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
    ):
        self._name = registry.model
        self._store = store
        self._symbols = symbols
        self._seconds = seconds
        self._predictor = self._checked(lambda: load_champion(workspace, registry))
        self._client = registry_client(workspace, registry)
        self.since = datetime.now(UTC)
        """When the current version took over, in this process."""
        self.refused: dict[str, str] = {}
        """Version to why it was refused."""
        self.swaps = 0
        """How often the champion has changed since the start."""
        self._tried: str | None = None
        self._retry_at = 0.0
        self._warned: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)

    @property
    def predictor(self) -> Predictor:
        """The current one. A caller that holds it keeps it, whatever is swapped in meanwhile."""
        return self._predictor

    def poll(self) -> None:
        """Check the alias once, and swap if it has moved. Never raises."""
        try:
            found = registered_version(self._client, self._name, CHAMPION)
        except Exception as error:  # whatever a database or a server can throw
            return self._warn_once("does not answer", f"({_short(error)})")
        if found is None:
            return self._warn_once(f"has no version of '{self._name}' with the alias '{CHAMPION}'", "")
        if self._warned:
            logger.info("the registry is back")
            self._warned = None

        version = str(found.version)
        if version == self._predictor.model.version:
            self._tried = None
        elif version != self._tried or monotonic() >= self._retry_at:
            self._swap(version, lambda: load_registered(self._name, found, THREADS))
        return None

    def start(self) -> None:
        """Follow the alias in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that is fetching a version is left to end with the process."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._seconds)

    def _swap(self, version: str, load: Callable[[], RegisteredModel]) -> None:
        """Make a version the current one, or note why it is refused."""
        current = self._predictor.model.version
        try:
            self._predictor = self._checked(load)
        except StoreError as error:
            self.refused[version] = str(error)
            if version != self._tried:
                logger.error("version %s refused, version %s stays: %s", version, current, error)
            self._tried, self._retry_at = version, monotonic() + RETRY_SECONDS
        else:
            self.swaps += 1
            self.since = datetime.now(UTC)
            self.refused.pop(version, None)
            self._tried = None
            logger.info("version %s takes over from version %s", version, current)

    def _follow(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.poll()

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


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"[:300]
