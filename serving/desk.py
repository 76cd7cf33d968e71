"""What the API answers with: forecasts, features, and what became of live bars."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from logging import getLogger
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd

from serving.freshness import Session, reference, sessions_at
from serving.keys import Keys
from serving.metrics import Metrics
from serving.predictor import Forecasts
from serving.problems import Problem, described
from serving.schemas import BarsRequest
from serving.serve import ServeParams

logger = getLogger("pitwise.serving")


@dataclass(frozen=True)
class Service:
    """What the API runs on."""

    params: ServeParams
    champion: Any
    """serving.champion.LiveChampion"""
    served: Any
    """serving.served_log.ServedLog"""
    live: Any
    """serving.live.LiveBars"""
    store: Any
    """feast.FeatureStore"""
    keys: Keys

    def close(self) -> None:
        """Stop following the registry, take no more bars, log what is left; each in any case."""
        with ExitStack() as ends:
            ends.callback(self.served.close)
            ends.callback(self.live.close)
            ends.callback(self.champion.stop)


@contextmanager
def asking(part: str) -> Iterator[None]:
    """Whatever a database's client raises, the part did not answer; our log has why."""
    try:
        yield
    except Exception as error:
        logger.exception("%s does not answer", part)
        raise Problem(
            "unavailable", f"The {part} does not answer. Try again.", headers={"Retry-After": "1"}
        ) from error


def _some(forecasts: Forecasts, rows: Sequence[int]) -> Forecasts:
    arrays = ("as_of", "last_close", "log_return", "price", "p_up")
    return replace(
        forecasts,
        symbols=[forecasts.symbols[i] for i in rows],
        window_hash=[forecasts.window_hash[i] for i in rows],
        **{name: getattr(forecasts, name)[list(rows)] for name in arrays},
    )


def _items(forecasts: Forecasts, sessions: Sequence[Session], newest: int) -> list[dict[str, Any]]:
    columns = zip(
        forecasts.symbols,
        sessions,
        forecasts.last_close.tolist(),
        forecasts.price.tolist(),
        forecasts.log_return.tolist(),
        forecasts.p_up.tolist(),
        strict=True,
    )
    return [
        {
            "symbol": symbol,
            "as_of": session.as_of,
            "for_session": session.next,
            "last_close": last_close,
            "price": price,
            "log_return": log_return,
            "p_up": p_up,
            "feature_age_sessions": newest - session.number,
        }
        for symbol, session, last_close, price, log_return, p_up in columns
    ]


class Desk:
    """Fresh forecasts, logged before they are given out."""

    def __init__(self, service: Service, metrics: Metrics):
        self._service = service
        self._metrics = metrics
        self.newest()  # loads the exchange's calendar, or the first request would wait for it

    def newest(self) -> int:
        """Number of the session that ages count from."""
        return reference(self._service.params.clock, self._service.live.newest)

    def look(self, symbols: Sequence[str]) -> tuple[Forecasts, list[Session], int, list[int]]:
        """Forecasts, the session each saw last, the one to count from, and the rows that are fresh."""
        with asking("feature store"):
            forecasts = self._service.champion.predictor.forecast(symbols, self._metrics.step)
        sessions, newest = sessions_at(forecasts.as_of), self.newest()
        ttl = self._service.params.ttl_sessions
        return (
            forecasts,
            sessions,
            newest,
            [i for i, s in enumerate(sessions) if newest - s.number <= ttl],
        )

    def give(
        self, forecasts: Forecasts, sessions: list[Session], newest: int, rows: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Log these rows, and say them."""
        chosen = _some(forecasts, rows) if list(rows) != list(range(len(sessions))) else forecasts
        started = perf_counter()
        with asking("prediction log"):
            self._service.served.record(chosen)
        self._metrics.step("log", perf_counter() - started)
        self._metrics.predictions.labels(forecasts.model_version).inc(len(rows))
        items = _items(chosen, [sessions[i] for i in rows], newest)
        self._metrics.served_age.set(max(item["feature_age_sessions"] for item in items))
        return items

    def predict(self, symbols: list[str]) -> dict[str, Any]:
        started = perf_counter()
        forecasts, sessions, newest, fresh = self.look(symbols)
        position = {symbol: i for i, symbol in enumerate(symbols)}
        errors = [("unknown-symbol", "The store has no window of it.", s) for s in forecasts.missing]
        ttl = self._service.params.ttl_sessions
        for i in sorted(set(range(len(sessions))) - set(fresh)):
            age = newest - sessions[i].number
            told = (
                f"The newest session is of {sessions[i].as_of[:10]}, {age} sessions ago; {ttl} may be."
            )
            errors.append(("stale-features", told, forecasts.symbols[i]))
        errors.sort(key=lambda error: position[error[2]])
        if not fresh:
            kind = "stale-features" if sessions else "unknown-symbol"
            raise Problem(
                kind,
                "None of the symbols has a forecast; see the errors.",
                [(f"symbols[{position[symbol]}]", detail) for _, detail, symbol in errors],
            )
        for kind, *_ in errors:
            self._metrics.problems.labels(kind).inc()
        document = {
            "model_version": forecasts.model_version,
            "forecasts": self.give(forecasts, sessions, newest, fresh),
            "errors": [
                described(kind, detail) | {"symbol": symbol, "field": f"symbols[{position[symbol]}]"}
                for kind, detail, symbol in errors
            ],
        }
        self._metrics.step("total", perf_counter() - started)
        return document

    def strongest(self, top: int, by: Literal["p_up", "log_return"]) -> dict[str, Any]:
        forecasts, sessions, newest, fresh = self.look(self._service.live.symbols)
        if not fresh:
            raise Problem("stale-features", "No symbol of the market has fresh features.")
        values = getattr(forecasts, by)[fresh]
        rows = [fresh[i] for i in np.argsort(-values, kind="stable")[:top]]
        items = self.give(forecasts, sessions, newest, rows)
        return {"model_version": forecasts.model_version, "by": by, "forecasts": items}

    def features(self, symbol: str) -> dict[str, Any]:
        store = self._service.store
        with asking("feature store"):
            names = [field.name for field in store.get_feature_view("daily").features]
            answer = store.get_online_features(
                features=[f"daily:{name}" for name in names], entity_rows={"symbol": [symbol]}
            ).to_dict(include_event_timestamps=True)
        if answer["close"][0] is None:
            raise Problem(
                "unknown-symbol", "The store has no features of it.", [("symbol", "is unknown")]
            )
        (session,) = sessions_at(np.array(answer["close__ts"], "int64").astype("datetime64[s]"))
        return {
            "symbol": symbol,
            "as_of": session.as_of,
            "feature_age_sessions": self.newest() - session.number,
            "features": {name: answer[name][0] for name in names},
        }

    def take(self, bars: BarsRequest) -> dict[str, Any]:
        frame = pd.DataFrame([bar.model_dump() for bar in bars.bars])
        frame["date"] = np.array(frame["date"].tolist(), "datetime64[us]")
        if frame["adj_close"].isna().all():
            frame = frame.drop(columns="adj_close")
        numbers = frame.columns.difference(["symbol", "date"])
        frame[numbers] = frame[numbers].astype("float64")
        with asking("store"):
            outcomes = self._service.live.take(frame)
        counts = Counter(outcome.outcome for outcome in outcomes)
        for outcome, n in counts.items():
            self._metrics.bars.labels(outcome).inc(n)
        return {
            "outcomes": [
                {"symbol": o.symbol, "date": o.date, "outcome": o.outcome, "reason": o.reason}
                for o in outcomes
            ],
            "counts": counts,
        }
