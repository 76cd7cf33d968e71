"""A look, each second, at whether the online store and the champion still do what the state says."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import cycle

import numpy as np

from pitwise.features.errors import EmptyStoreError, NonFiniteForecastError
from serving.inference.check import MAX_BATCH_EFFECT
from serving.inference.predictor import Predictor
from serving.processes.publisher import Publisher
from serving.state.database import StateWriter
from serving.state.market import SymbolForecast

WAIT_SECONDS = 5.0
"""For a bar that is being taken."""
LOG = logging.getLogger("pitwise.serving")


class Canary:
    """Forecasts one symbol after the other, and mends what it finds.

    Args:
        locked: holds off bars and swaps of the champion for as long as its block lasts.
        rebuild: puts what is published into an online store that has lost it.
    """

    def __init__(
        self,
        predictor: Callable[[], Predictor],
        publisher: Publisher,
        database: StateWriter,
        locked: Callable[[float], AbstractContextManager],
        rebuild: Callable[[], None],
    ):
        self._predictor, self._publisher, self._database = predictor, publisher, database
        self._locked, self._rebuild = locked, rebuild
        self._symbols: Iterator[str] = iter(())
        self._walked = -1
        self.figures = {"rebuilt": 0, "mismatches": 0}
        """Since the start: how often the store was filled again, and held another window than known."""
        self.champion_fault = ""
        """What the champion does wrong; "" where it does nothing."""

    def step(self) -> None:
        """Look at the next symbol.

        Raises:
            EmptyStoreError: the store had lost its data; it has what is published again.
            StoreError: it does not answer, or holds what cannot be read.
        """
        try:
            self._look()
        except EmptyStoreError as error:
            with self._locked(WAIT_SECONDS):
                self.figures["rebuilt"] += 1
                LOG.error("%s It gets what is published again", error)
                self._rebuild()
                self._publisher.publish(self._predictor(), None)
            raise

    def _look(self) -> None:
        if self._publisher.is_behind:
            with self._locked(WAIT_SECONDS):
                self._publisher.publish(self._predictor(), ())
        held = self._next()
        if held is None or self._agrees(held):
            return
        with self._locked(WAIT_SECONDS):
            state = self._database.state
            held = state.forecasts.get(held.symbol) if state else None
            if held is None or self._agrees(held):
                return  # a bar was under way
            self.figures["mismatches"] += 1
            LOG.error("the store's window of %s is another than the one published", held.symbol)
            self._publisher.publish(self._predictor(), None)

    def _agrees(self, held: SymbolForecast) -> bool:
        """Whether store and champion say of a symbol what the state does.

        Raises:
            EmptyStoreError: the store has no window of it.
            StoreError: it does not answer, or holds what cannot be read.
        """
        predictor = self._predictor()
        try:
            found = predictor.forecast([held.symbol])
        except NonFiniteForecastError as error:
            self.champion_fault = str(error)
            return True
        if not found.symbols:
            raise EmptyStoreError(
                f"the online store has no window of {held.symbol}: it has lost its data.", [held.symbol]
            )
        if found.window_hash != [held.window_hash]:
            return False
        state = self._database.state
        if state and found.model_version == state.model.version:  # otherwise a swap is under way
            effect = np.array([found.log_return[0] - held.log_return, found.p_up[0] - held.p_up])
            self.champion_fault = ""
            if not np.abs(effect).max() <= MAX_BATCH_EFFECT:
                self.champion_fault = (
                    f"version {found.model_version} forecasts {held.symbol} otherwise than before, by "
                    f"{np.abs(effect).max():.1e}, from the same window. `pitwise model rollback` makes "
                    "the version before it champion."
                )
        return True

    def _next(self) -> SymbolForecast | None:
        state = self._database.state
        if state is None or not state.forecasts:
            return None
        if self._walked != len(state.forecasts):
            self._walked, self._symbols = len(state.forecasts), cycle(sorted(state.forecasts))
        return state.forecasts.get(next(self._symbols))
