"""The champion in office: follows the registry's alias, and lets no version in that fails its check."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import numpy as np

from feature_repo.errors import StoreError
from feature_repo.model import (
    INPUT,
    OUTPUTS,
    RegisteredModel,
    RegistryParams,
    load_registered,
    registered_version,
)
from serving.predictor import THREADS, Predictor, load_champion

PROBED = 50
"""Symbols a version must answer for before it takes office."""
MAX_LOG_RETURN = 1.0
"""No forecast of one session moves a price by a factor of e."""
MAX_BATCH_EFFECT = 1e-5
"""onnxruntime sums in another order in another batch; a model of float32 moves by less than this."""
RETRY_SECONDS = 30.0
"""A refused version that the alias still points to is tried again: the fault may be the store's."""

logger = logging.getLogger("pitwise.serving")


@contextmanager
def one_reason(version: str) -> Iterator[None]:
    """Any error of fetching or running a version is a StoreError: a foreign file fails in many ways."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{version} cannot be fetched or run ({_one_line(error)})") from error


def self_check(predictor: Predictor, symbols: Sequence[str]) -> None:
    """Ask a version for forecasts of real windows, together and one by one.

    Raises:
        StoreError: it breaks the contract of `feature_repo.model`, or its answers cannot be right.
            A file that does not run at all raises what onnxruntime says of it.
    """
    session, model = predictor.model.session, predictor.model
    takes = {node.name: [node.type, *node.shape[1:]] for node in session.get_inputs()}
    wanted = {INPUT: ["tensor(float)", model.window, len(model.features)]}
    if takes != wanted:
        raise StoreError(f"it takes {takes}, its contract says {wanted}")
    gives = {node.name: len(node.shape) for node in session.get_outputs()}
    wrong = [name for name in OUTPUTS if gives.get(name) != 1]
    if wrong:
        raise StoreError(f"it gives no {' and no '.join(wrong)} of one value a symbol")

    together = predictor.forecast(symbols)
    answers = np.stack([together.log_return, together.p_up])
    if not together.symbols:
        raise StoreError(f"the online store has no window of {', '.join(symbols)} to check it on")
    # Each claim is written so that a NaN fails it.
    claims = {
        "outputs that are not finite": np.isfinite(answers).all(axis=0),
        "a p_up outside 0 to 1": (together.p_up >= 0) & (together.p_up <= 1),
        f"a log_return beyond {MAX_LOG_RETURN:g}": np.abs(together.log_return) <= MAX_LOG_RETURN,
    }
    for claim, holds in claims.items():
        if not holds.all():
            raise StoreError(f"it gives {claim} for {together.symbols[int(np.argmin(holds))]}")
    for i, symbol in enumerate(together.symbols):
        alone = predictor.forecast([symbol])
        if alone.window_hash != [together.window_hash[i]]:
            continue  # a bar came in between
        effect = np.abs(np.array([alone.log_return[0], alone.p_up[0]]) - answers[:, i]).max()
        if not effect <= MAX_BATCH_EFFECT:
            raise StoreError(f"its answer for {symbol} depends on the batch, by {effect:.1e}")


class LiveChampion:
    """The predictor in office; follows the alias `champion`.

    A version that cannot be fetched or fails its self-check is refused and the old one stays; so it
    does while the registry does not answer or the alias is gone.

    Args:
        store: as `serving.predictor.open_store` gives it.
        probe: symbols that the store has windows of.
        seconds: between two looks at the alias.

    Raises:
        StoreError: there is no champion, or it cannot take office.
    """

    def __init__(
        self, registry: RegistryParams, store: Any, probe: Callable[[], list[str]], seconds: float
    ):
        import mlflow

        self._name = registry.model
        self._store = store
        self._probe = probe
        self._seconds = seconds
        self._predictor = self._admitted(lambda: load_champion(registry.tracking_uri, registry.model))
        self._client = mlflow.MlflowClient()
        self.since = datetime.now(UTC)
        """When the version in office took it, in this process."""
        self.refused: dict[str, str] = {}
        """Version to why it was refused."""
        self.swaps = 0
        """How often the champion has changed since the start."""
        self._tried: str | None = None
        self._retry_at = 0.0
        self._told: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)

    @property
    def predictor(self) -> Predictor:
        """The one in office now. Who takes it keeps it, whatever is swapped in meanwhile."""
        return self._predictor

    def poll(self) -> None:
        """One look at the alias, and the swap if it has moved. Never raises."""
        try:
            found = registered_version(self._client, self._name, "champion")
        except Exception as error:  # whatever a database or a server can throw
            return self._warn_once("does not answer", f"({_one_line(error)})")
        if found is None:
            return self._warn_once(f"has no version of '{self._name}' with the alias 'champion'", "")
        if self._told:
            logger.info("the registry is back")
            self._told = None

        version, office = str(found.version), self._predictor.model.version
        if version == office:
            self._tried = None
        elif version != self._tried or monotonic() >= self._retry_at:
            try:
                self._predictor = self._admitted(lambda: load_registered(self._name, found, THREADS))
            except StoreError as error:
                self.refused[version] = str(error)
                if version != self._tried:
                    logger.error("version %s refused, version %s stays: %s", version, office, error)
                self._tried, self._retry_at = version, monotonic() + RETRY_SECONDS
            else:
                self.swaps += 1
                self.since = datetime.now(UTC)
                self.refused.pop(version, None)
                self._tried = None
                logger.info("version %s takes over from version %s", version, office)
        return None

    def start(self) -> None:
        """Follow the alias in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that is fetching a version is left to end with the process."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._seconds)

    def _follow(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.poll()

    def _admitted(self, load: Callable[[], RegisteredModel]) -> Predictor:
        with one_reason("it"):
            predictor = Predictor(load(), self._store)
            self_check(predictor, self._probe()[:PROBED])
        return predictor

    def _warn_once(self, what: str, why: str) -> None:
        if what != self._told:
            office = self._predictor.model.version
            logger.warning("the registry %s, version %s stays %s", what, office, why)
            self._told = what


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
