"""From live bars, the champion and the online store to the market state that the readers answer from."""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pitwise.errors import StoreError, one_line
from pitwise.features.errors import (
    EmptyStoreError,
    NonFiniteForecastError,
    NonFiniteWindowError,
    some_of,
)
from pitwise.features.history import CREATED
from serving.inference.freshness import sessions_at
from serving.inference.marks import Marks
from serving.inference.predictor import Forecasts, OnlineStore, Predictor
from serving.state.database import StateWriter
from serving.state.market import MarketState, ModelInfo, SymbolFeatures, SymbolForecast

DAILY_VIEW = "daily"
LOG = logging.getLogger("pitwise.serving")


class Live(Protocol):
    """What a state needs of `serving.live.live_bars.LiveBars`."""

    @property
    def symbols(self) -> list[str]: ...

    @property
    def newest(self) -> np.datetime64: ...

    @property
    def sealed(self) -> np.datetime64: ...

    @property
    def missing_sessions(self) -> Mapping[str, int]: ...

    @property
    def marks(self) -> Marks: ...


class DailyRows:
    """The store that live bars write to, which remembers the daily rows that it took online.

    Feast makes a message of each value that it reads: 250 us of a symbol's row, and of a whole session's
    more than the forecasts. What it took is what it has, to the bit: float64 stay float64.

    Args:
        store: a `feast.FeatureStore`.
    """

    def __init__(self, store: Any):
        self._store = store
        self._rows: dict[str, tuple[pd.Timestamp, dict[str, float]]] = {}

    def write_to_offline_store(self, view: str, rows: pd.DataFrame) -> None:
        self._store.write_to_offline_store(view, rows)

    def write_to_online_store(self, view: str, rows: pd.DataFrame) -> None:
        self._store.write_to_online_store(view, rows)
        if view == DAILY_VIEW:
            values = rows.drop(columns=["symbol", "event_timestamp", CREATED]).to_dict("records")
            closes = zip(rows["event_timestamp"], values, strict=True)
            self._rows |= zip(rows["symbol"], closes, strict=True)

    def take(self, symbols: Iterable[str]) -> dict[str, tuple[pd.Timestamp, dict[str, float]]]:
        """Symbol to its session's close and values, where one was written since the last `forget`."""
        return {symbol: self._rows[symbol] for symbol in symbols if symbol in self._rows}

    def forget(self) -> None:
        """Of what was written so far, let the store itself be asked."""
        self._rows.clear()


class Publisher:
    """Computes forecasts once for all readers, of what the online store has, and commits them.

    Every method is to be called while no bar is being taken.

    Args:
        written: the store that live bars write to.
        info: describes the model of a predictor.
    """

    def __init__(
        self,
        live: Live,
        store: OnlineStore,
        written: DailyRows,
        database: StateWriter,
        info: Callable[[Predictor], ModelInfo],
    ):
        self._live, self._store, self._database, self._info = live, store, database, info
        self._written = written
        self._names = [field.name for field in store.get_feature_view(DAILY_VIEW).features]
        self._due: set[str] | None = set()
        """Symbols that a failure has left behind; None: all."""
        self._lock = threading.RLock()

    @property
    def is_behind(self) -> bool:
        """Whether a change could not be committed yet."""
        return self._due is None or bool(self._due)

    def publish(self, predictor: Predictor, symbols: Collection[str] | None) -> MarketState:
        """Commit what has changed of these symbols, and of those that a failure has left behind.

        Args:
            symbols: None: of the whole market.

        Raises:
            EmptyStoreError: the store has lost windows. The symbols are due, as below.
            StoreError: it does not answer, or the state cannot be written.
        """
        with self._lock:
            state, info = self._database.state, self._info(predictor)
            # A state is of one model: after another's, each forecast is to be made anew.
            is_another = state is not None and state.model.identity != info.identity
            whole = symbols is None or self._due is None or is_another
            due = None if whole else {*(symbols or ()), *(self._due or ())}
            self._due = due
            if whole:
                self._written.forget()
            named = self._live.symbols if due is None else sorted(due)
            forecasts, faults = self._forecasts(predictor, named)
            features = self._features(named)
            if state and whole:
                _require_all(named, {*forecasts, *faults}, state)
            elif state:
                held_forecasts, held_features = self._known_anew(state, {*named})
                forecasts, features = forecasts | held_forecasts, features | held_features
                faults = {s: f for s, f in state.faults.items() if s not in named} | faults
            state = self._database.commit(info, *self._newest(), forecasts, features, faults, whole)
            self._due = set()
            self._written.forget()
            return state

    def describe(self, predictor: Predictor) -> None:
        """Commit what has changed in the description of the model alone, such as who is refused."""
        with self._lock:
            state = self._database.state
            info = self._info(predictor)
            if state and not self.is_behind and info.identity == state.model.identity != info:
                self._database.commit(info, state.newest, state.newest_close, {}, {}, {}, False)

    def _newest(self) -> tuple[int, str]:
        (session,) = sessions_at(np.array([self._live.newest]))
        return session.number, session.as_of

    def _forecasts(
        self, predictor: Predictor, symbols: Sequence[str]
    ) -> tuple[dict[str, SymbolForecast], dict[str, str]]:
        """The forecasts of those that have one, and why those with a window have none."""
        faults: dict[str, str] = {}
        left = list(symbols)
        while left:
            try:
                return self._described(predictor.forecast(left)), faults
            except (NonFiniteWindowError, NonFiniteForecastError) as error:
                for symbol in error.symbols:
                    faults[symbol] = str(error)
                left = [symbol for symbol in left if symbol not in faults]
                LOG.error("no forecast of %s: %s", ", ".join(error.symbols), error)
        return {}, faults

    def _described(self, found: Forecasts) -> dict[str, SymbolForecast]:
        live, marks = self._live, self._live.marks
        missing = live.missing_sessions
        columns = zip(
            found.symbols,
            sessions_at(found.as_of, found.horizon),
            (found.as_of > live.sealed).tolist(),
            found.last_close.tolist(),
            found.score.tolist(),
            found.log_return.tolist(),
            found.price.tolist(),
            found.p_up.tolist(),
            found.scale.tolist(),
            found.window_hash,
            marks.unusual_at(found.symbols, found.as_of),
            marks.suspected(found.symbols),
            strict=True,
        )
        return {
            symbol: SymbolForecast(
                symbol=symbol,
                as_of=session.as_of,
                for_session=session.ahead,
                horizon=found.horizon,
                session=session.number,
                missing=missing.get(symbol, 0),
                last_close=last_close,
                score=score,
                log_return=log_return,
                price=price,
                p_up=p_up,
                scale=_finite(scale),
                window_hash=window_hash,
                provisional=provisional,
                unusual=unusual,
                suspect=suspect,
            )
            for (
                symbol,
                session,
                provisional,
                last_close,
                score,
                log_return,
                price,
                p_up,
                scale,
                window_hash,
                unusual,
                suspect,
            ) in columns
        }

    def _known_anew(
        self, state: MarketState, named: Collection[str]
    ) -> tuple[dict[str, SymbolForecast], dict[str, SymbolFeatures]]:
        """Forecasts and features that stand, of whose symbols something else is known now: a seal and
        a verdict bear upon more than what was computed anew."""
        live, sealed = self._live, _as_text(self._live.sealed)
        held = [forecast for symbol, forecast in state.forecasts.items() if symbol not in named]
        symbols = [forecast.symbol for forecast in held]
        as_of = np.array([forecast.as_of.rstrip("Z") for forecast in held], "datetime64[us]")
        marks, missing = live.marks, live.missing_sessions
        known = zip(held, marks.unusual_at(symbols, as_of), marks.suspected(symbols), strict=True)
        forecasts = {
            forecast.symbol: replace(
                forecast,
                provisional=forecast.as_of > sealed,
                unusual=unusual,
                suspect=suspect,
                missing=missing.get(forecast.symbol, 0),
            )
            for forecast, unusual, suspect in known
        }
        features = {
            symbol: replace(row, provisional=row.as_of > sealed)
            for symbol, row in state.features.items()
            if symbol not in named
        }
        return forecasts, features

    def _features(self, symbols: Sequence[str]) -> dict[str, SymbolFeatures]:
        rows = self._written.take(symbols)
        rows |= self._looked_up([symbol for symbol in symbols if symbol not in rows])
        closes = np.array([close.to_datetime64() for close, _ in rows.values()], "datetime64[us]")
        provisional = (closes > self._live.sealed).tolist()
        return {
            symbol: SymbolFeatures(
                symbol,
                session.as_of,
                session.number,
                is_open,
                {name: _finite(values[name]) for name in self._names},
            )
            for (symbol, (_, values)), session, is_open in zip(
                rows.items(), sessions_at(closes), provisional, strict=True
            )
        }

    def _looked_up(self, symbols: Sequence[str]) -> dict[str, tuple[pd.Timestamp, dict[str, Any]]]:
        """Each symbol's daily row in the online store: its session's close and its values."""
        if not symbols:
            return {}
        try:
            answer: dict[str, list[Any]] = self._store.get_online_features(
                features=[f"{DAILY_VIEW}:{name}" for name in self._names],
                entity_rows={"symbol": list(symbols)},
            ).to_dict(include_event_timestamps=True)
        except Exception as error:  # any error of any online store
            raise StoreError(
                f"the online store does not answer ({type(error).__name__}: {one_line(error)})."
            ) from error
        return {
            symbol: (
                pd.Timestamp(answer["close__ts"][i], unit="s"),
                {name: answer[name][i] for name in self._names},
            )
            for i, symbol in enumerate(symbols)
            if answer["close"][i] is not None
        }


def _require_all(symbols: Sequence[str], found: Collection[str], state: MarketState) -> None:
    """EmptyStoreError where the store has no window of symbols that it had one of."""
    lost = [symbol for symbol in symbols if symbol in state.forecasts and symbol not in found]
    if lost:
        raise EmptyStoreError(
            f"the online store has no window of {some_of(lost)}: it has lost its data.", lost
        )


def _as_text(instant: np.datetime64) -> str:
    """An instant in UTC as a state has it; of one length, so that they compare as texts."""
    return f"{instant.astype('datetime64[s]')}Z"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
