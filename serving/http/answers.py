"""What the API answers with: forecasts, features, and what became of live bars."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import getLogger
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd

from pitwise.features.incremental import Outcome
from serving.http.aged import Aged, aged
from serving.http.metrics import Metrics
from serving.http.problems import Problem
from serving.http.schemas import BarsRequest
from serving.http.service import Service
from serving.inference.freshness import reference, sessions_at
from serving.inference.marks import named
from serving.settings import ServeParams

logger = getLogger("pitwise.serving")
WORST_FIRST = ("stale-features", "suspect-bar", "unknown-symbol")
"""Why no symbol of a request has a forecast: the first of these that one of them has."""


@contextmanager
def unavailable_if_failing(part: str) -> Iterator[None]:
    """Whatever a database's client raises in the block becomes Problem (503); our log has why."""
    try:
        yield
    except Exception as error:
        logger.exception("%s does not answer", part)
        raise Problem(
            "unavailable", f"The {part} does not answer. Try again.", headers={"Retry-After": "1"}
        ) from error


class Answers:
    """Answers of the API as documents. Forecasts are logged before they are returned."""

    def __init__(self, service: Service, params: ServeParams, metrics: Metrics):
        self._service, self._params, self._metrics = service, params, metrics
        self._newest()  # loads the exchange's calendar, or the first request would wait for it

    def forecasts(self, symbols: list[str]) -> dict[str, Any]:
        """The next session of each symbol; those without a forecast are in `errors`.

        Raises:
            Problem: no symbol has one (404, 409), or the store or the log does not answer (503).
        """
        started = perf_counter()
        found = self._forecast(symbols)
        problems = self._problems(found)
        rows = _without(found, problems)
        failed = [(symbol, f"symbols[{i}]") for i, symbol in enumerate(symbols) if symbol in problems]
        if not rows:
            kinds = {problem.kind for problem in problems.values()}
            raise Problem(
                next(kind for kind in WORST_FIRST if kind in kinds),
                "None of the symbols has a forecast; see the errors.",
                [(field, problems[symbol].detail) for symbol, field in failed],
            )
        for problem in problems.values():
            self._metrics.problems.labels(problem.kind).inc()
        document = {
            "model_version": found.forecasts.model_version,
            "forecasts": self._logged(found.rows(rows)),
            "errors": [
                problems[symbol].described() | {"symbol": symbol, "field": field}
                for symbol, field in failed
            ],
        }
        self._metrics.step("total", perf_counter() - started)
        return document

    def strongest(self, top: int, by: Literal["p_up", "log_return"]) -> dict[str, Any]:
        """The `top` forecasts of the whole market, the strongest first.

        Raises:
            Problem: nothing is fresh or beyond doubt (409), or the store or log does not answer (503).
        """
        found = self._forecast(self._service.live.symbols)
        problems = self._problems(found)
        allowed = _without(found, problems)
        if not allowed:
            if any(problem.kind == "suspect-bar" for problem in problems.values()):
                raise Problem("suspect-bar", "No symbol of the market is fresh and beyond doubt.")
            raise Problem("stale-features", "No symbol of the market has fresh features.")
        values = getattr(found.forecasts, by)[allowed]
        rows = [allowed[i] for i in np.argsort(-values, kind="stable")[:top]]
        items = self._logged(found.rows(rows))
        return {"model_version": found.forecasts.model_version, "by": by, "forecasts": items}

    def features(self, symbol: str) -> dict[str, Any]:
        """The newest session's bar and indicators of a symbol.

        Raises:
            Problem: the store has none (404) or does not answer (503).
        """
        store = self._service.store
        with unavailable_if_failing("feature store"):
            names = [field.name for field in store.get_feature_view("daily").features]
            answer = store.get_online_features(
                features=[f"daily:{name}" for name in names], entity_rows={"symbol": [symbol]}
            ).to_dict(include_event_timestamps=True)
        if answer["close"][0] is None:
            raise Problem(
                "unknown-symbol", "The store has no features of it.", [("symbol", "is unknown")]
            )
        as_of = np.array(answer["close__ts"], "int64").astype("datetime64[s]")
        (session,) = sessions_at(as_of)
        return {
            "symbol": symbol,
            "as_of": session.as_of,
            "feature_age_sessions": max(self._newest() - session.number, 0),
            "provisional": bool(as_of[0] > self._service.live.sealed),
            "features": {name: answer[name][0] for name in names},
        }

    def take_bars(self, bars: BarsRequest) -> dict[str, Any]:
        """What became of each bar. On return their windows are online.

        Raises:
            Problem: the store does not answer (503).
        """
        frame = _frame(bars)
        with unavailable_if_failing("store"):
            outcomes = self._service.live.take(frame)
        return self._became(outcomes)

    def withdraw_bar(self, symbol: str, date: str) -> dict[str, Any]:
        """What became of the withdrawal of a bar. On return the online store has the row before it.

        Raises:
            Problem: the store does not answer (503).
        """
        with unavailable_if_failing("store"):
            outcome = self._service.live.withdraw(symbol, pd.Timestamp(date))
        return self._became([outcome])

    def _became(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        counts = Counter(outcome.outcome for outcome in outcomes)
        for outcome, n in counts.items():
            self._metrics.bars.labels(outcome).inc(n)
        return {
            "outcomes": [
                {
                    "symbol": o.symbol,
                    "date": o.date,
                    "outcome": o.outcome,
                    "reason": o.reason,
                    "provisional": o.provisional,
                }
                for o in outcomes
            ],
            "counts": counts,
        }

    def _newest(self) -> int:
        return reference(self._params.clock, self._service.live.newest)

    def _forecast(self, symbols: Sequence[str]) -> Aged:
        with unavailable_if_failing("feature store"):
            forecasts = self._service.champion.predictor.forecast(symbols, self._metrics.step)
        live = self._service.live
        return aged(forecasts, self._newest(), live.missing_sessions, live.sealed, live.marks)

    def _problems(self, found: Aged) -> dict[str, Problem]:
        """Symbol to why it has no forecast."""
        problems = {
            symbol: Problem("unknown-symbol", "The store has no window of it.")
            for symbol in found.forecasts.missing
        }
        ttl = self._params.ttl_sessions
        withholds = self._service.suspect == "withhold"
        for symbol, session, age, kind in zip(
            found.forecasts.symbols, found.sessions, found.ages, found.suspect, strict=True
        ):
            if age > ttl:
                day = session.as_of[:10]
                problems[symbol] = Problem(
                    "stale-features",
                    f"The newest session is of {day}; {age} sessions since or before it are missing, "
                    f"{ttl} may be.",
                )
            elif kind and withholds:
                problems[symbol] = Problem(
                    "suspect-bar",
                    f"One of its newest bars may be {named(kind)}; forecasts are withheld until later "
                    "bars have settled it (predict.suspect).",
                )
        return problems

    def _logged(self, chosen: Aged) -> list[dict[str, Any]]:
        """Log these forecasts: then they may be sent."""
        started = perf_counter()
        with unavailable_if_failing("prediction log"):
            self._service.served.record(chosen.forecasts)
        self._metrics.step("log", perf_counter() - started)
        self._metrics.predictions.labels(chosen.forecasts.model_version).inc(len(chosen.ages))
        self._metrics.served_age.set(max(chosen.ages))
        return chosen.documents()


def _without(found: Aged, problems: Mapping[str, Problem]) -> list[int]:
    """The rows whose symbols have no problem."""
    return [row for row, symbol in enumerate(found.forecasts.symbols) if symbol not in problems]


def _frame(bars: BarsRequest) -> pd.DataFrame:
    frame = pd.DataFrame([bar.model_dump() for bar in bars.bars])
    frame["date"] = np.array(frame["date"].tolist(), "datetime64[us]")
    if frame["adj_close"].isna().all():
        frame = frame.drop(columns="adj_close")
    numbers = frame.columns.difference(["symbol", "date"])
    frame[numbers] = frame[numbers].astype("float64")
    return frame
