"""What the API answers with, from the market's state. Forecasts are logged before they are sent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from logging import getLogger
from time import perf_counter
from typing import Any, Literal

import orjson

from serving.http.asked import Asked
from serving.http.metrics import Metrics
from serving.http.problems import Problem, cause
from serving.http.rendered import Rendered, Renderer
from serving.http.service import BarOutcome, Service
from serving.http.signals import Signals
from serving.log.served_log import Answered, Shown
from serving.settings import ServeParams
from serving.state.errors import AwayError, BusyError
from serving.state.market import MarketState

logger = getLogger("pitwise.serving")
WORST_FIRST = ("stale-features", "suspect-bar", "no-forecast", "unknown-symbol")
"""Why no symbol of a request has a forecast: the first of these that one of them has."""
NOTHING_TO_RANK = {
    "suspect-bar": "No symbol of the market is fresh and beyond doubt.",
    "stale-features": "No symbol of the market has fresh features.",
    "no-forecast": "The champion has a forecast of no symbol.",
}
"""Why the market has no strongest forecast: the first of these that a symbol has."""
RETRY = {"Retry-After": "1"}
AGAIN = "Send the bars again later: those that were kept are `repeated`."
By = Literal["p_up", "log_return", "score"]


@contextmanager
def unavailable_if_failing(part: str, meaning: str) -> Iterator[None]:
    """Whatever a part raises in the block becomes Problem (503); our log has all of it.

    Args:
        meaning: what follows for the client.
    """
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        logger.exception("the %s does not answer", part)
        detail = f"The {part} does not answer ({cause(error)}). {meaning}"
        raise Problem("unavailable", detail, headers=RETRY) from error


class Answers:
    """Answers of the API as JSON. None of these waits for more than a file of this machine."""

    def __init__(self, service: Service, params: ServeParams, metrics: Metrics):
        self._service, self._metrics = service, metrics
        self._renderer = Renderer(params, service.suspect)
        self._strongest: dict[By, tuple[int, int, list[Rendered]]] = {}

    def state(self) -> MarketState:
        """The market now.

        Raises:
            Problem: it cannot be read (503).
        """
        with unavailable_if_failing("market's state", "Try again."):
            return self._service.states.current()

    def predict(self, symbols: Sequence[str], asked: Asked, route: str) -> bytes:
        """`PredictAnswer`: the forecast of each symbol; those without one are in `errors`.

        Raises:
            Problem: no symbol has one (404, 409, 500), or the state or the log does not answer (503).
        """
        state = self.state()
        rows, problems = self._some_of(state, symbols)
        return self._answered(state, rows, problems, asked, route)

    def signals(self, symbols: Sequence[str], by: Signals, asked: Asked, route: str) -> bytes:
        """`SignalsAnswer`: what to do with each symbol; those without a forecast are in `errors`.

        Raises:
            Problem: as `predict`, or there are no rules of signals (409).
        """
        state, report = self.state(), by.report()
        rows, problems = self._some_of(state, symbols)
        errors = self._noted(state, rows, problems, asked, route)
        return _signals(state, report.record, by.of(state, rows), errors)

    def update(self, state: MarketState, symbols: Sequence[str], asked: Asked, route: str) -> bytes:
        """`PredictAnswer` of these symbols in a state, where all of them may be in `errors`.

        It is one of many answers to a request: in the log each has an instant of its own.

        Raises:
            Problem: the log does not answer (503).
        """
        rows, problems = self._looked_up(state, symbols)
        # They are a part of what was asked for: their places in it say nothing.
        problems = [("symbols", symbol, problem) for _, symbol, problem in problems]
        event = replace(asked, started=perf_counter(), received_at=datetime.now(UTC))
        body = self._answered(state, rows, problems, event, route)
        asked.symbols, asked.state = event.symbols, event.state
        return body

    def strongest(self, top: int, by: By, asked: Asked, route: str) -> bytes:
        """`ForecastsAnswer`: the `top` forecasts of the whole market, the strongest first.

        Raises:
            Problem: nothing is fresh or beyond doubt (409), the champion has no forecast (500), or the
                state or log does not answer (503).
        """
        state = self.state()
        rows = self._ranked(state, by)[:top]
        self._record(state, rows, asked, route)
        return b'{"model_version":%b,"by":"%b","forecasts":[%b]}' % (
            orjson.dumps(state.model.version),
            by.encode(),
            b",".join([row.document for row in rows]),
        )

    def strongest_signals(self, top: int, by: Signals, asked: Asked, route: str) -> bytes:
        """`SignalsAnswer` of the whole market, BUY and SELL first; `errors` is empty.

        Raises:
            Problem: as `strongest`, or there are no rules of signals (409).
        """
        state, report = self.state(), by.report()
        found = by.ranked(state, self._ranked(state, "p_up"))[:top]
        self._record(state, [row for row, _ in found], asked, route)
        return _signals(state, report.record, [document for _, document in found], b"[]")

    def forecasts(
        self, symbols: Sequence[str] | None
    ) -> tuple[MarketState, list[Rendered], list[tuple[str, str]]]:
        """The state, the forecasts of these symbols (None: of all) in it, and why others have none.

        What is shown of them has to be written down before it is sent, see `show`.

        Raises:
            Problem: the state does not answer (503).
        """
        state = self.state()
        rows, problems = self._looked_up(state, list(state.forecasts) if symbols is None else symbols)
        return state, rows, [(symbol, problem.detail) for _, symbol, problem in problems]

    def show(self, state: MarketState, rows: list[Rendered], asked: Asked, route: str) -> None:
        """Write down these forecasts of a state: then they may be sent.

        Raises:
            Problem: the log does not answer (503).
        """
        if rows:
            self._record(state, rows, asked, route)

    def features(self, symbol: str, asked: Asked, route: str) -> bytes:
        """`FeaturesAnswer`: the newest session's bar and indicators of a symbol.

        Raises:
            Problem: the store has none (404), or the state or the log does not answer (503).
        """
        state = self.state()
        features = state.features.get(symbol)
        if features is None:
            raise Problem(
                "unknown-symbol", "The store has no features of it.", [("symbol", "is unknown")]
            )
        self.audit([Shown(symbol, features.as_of)], asked, route, state.number)
        return orjson.dumps(
            {
                "symbol": symbol,
                "as_of": features.as_of,
                "feature_age_sessions": max(self._renderer.reference(state) - features.session, 0),
                "provisional": features.provisional,
                "features": features.values,
            }
        )

    def audit(self, shown: Sequence[Shown], asked: Asked, route: str, state: int | None = None) -> None:
        """Write down who is told of these, which are no new forecasts: then they may be sent.

        Args:
            shown: what is answered, features or forecasts of the past.
            state: number of the market state it is of; None where it is of the past.

        Raises:
            Problem: the log does not answer (503).
        """
        self._write_down(Answered(*_who(asked, route), "", state or 0, [], shown))
        asked.symbols, asked.state = len({one.symbol for one in shown}), state

    def model(self) -> bytes:
        """`ModelAnswer`: the champion that answers now.

        Raises:
            Problem: the state does not answer (503).
        """
        model = self.state().model
        metadata = {k: v for k, v in model.metadata.items() if k not in ("features", "window")}
        document = {
            "version": model.version,
            "kind": model.kind,
            "features": model.features,
            "window": model.window,
            "since": model.since,
            "swaps": model.swaps,
            "refused": model.refused,
            "metadata": metadata,
        }
        return orjson.dumps(document, default=str)

    def take_bars(self, bars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`BarsAnswer`: what became of each bar. On return forecasts know them. It waits: use a thread.

        Raises:
            Problem: they could not be taken (503).
        """
        with _bars_problems():
            outcomes = self._service.bars.take(bars)
        return self._became(outcomes)

    def withdraw_bar(self, symbol: str, date: str) -> dict[str, Any]:
        """`BarsAnswer`: what became of the withdrawal of a bar. It waits: use a thread.

        Raises:
            Problem: it could not be withdrawn (503).
        """
        with _bars_problems():
            outcome = self._service.bars.withdraw(symbol, date)
        return self._became([outcome])

    def _became(self, outcomes: Iterable[BarOutcome]) -> dict[str, Any]:
        documents = [
            {
                "symbol": o.symbol,
                "date": o.date,
                "outcome": o.outcome,
                "reason": o.reason,
                "provisional": o.provisional,
            }
            for o in outcomes
        ]
        counts = Counter(str(document["outcome"]) for document in documents)
        for outcome, n in counts.items():
            self._metrics.bars.labels(outcome).inc(n)
        return {"outcomes": documents, "counts": counts}

    def _looked_up(
        self, state: MarketState, symbols: Sequence[str]
    ) -> tuple[list[Rendered], list[tuple[str, str, Problem]]]:
        """The forecasts of symbols; and of those without one its field, the symbol and why."""
        reference = self._renderer.reference(state)
        rows: list[Rendered] = []
        problems = []
        for i, symbol in enumerate(symbols):
            found = self._renderer.of(state, symbol, reference)
            if isinstance(found, Problem):
                problems.append((f"symbols[{i}]", symbol, found))
            else:
                rows.append(found)
        return rows, problems

    def _some_of(
        self, state: MarketState, symbols: Sequence[str]
    ) -> tuple[list[Rendered], list[tuple[str, str, Problem]]]:
        """`_looked_up`; Problem (404, 409, 500) where no symbol has a forecast."""
        rows, problems = self._looked_up(state, symbols)
        if not rows:
            kinds = {problem.kind for _, _, problem in problems}
            raise Problem(
                next(kind for kind in WORST_FIRST if kind in kinds),
                "None of the symbols has a forecast; see the errors.",
                [(field, problem.detail) for field, _, problem in problems],
            )
        return rows, problems

    def _answered(
        self,
        state: MarketState,
        rows: list[Rendered],
        problems: list[tuple[str, str, Problem]],
        asked: Asked,
        route: str,
    ) -> bytes:
        errors = self._noted(state, rows, problems, asked, route)
        return b'{"model_version":%b,"forecasts":[%b],"errors":%b}' % (
            orjson.dumps(state.model.version),
            b",".join([row.document for row in rows]),
            errors,
        )

    def _noted(
        self,
        state: MarketState,
        rows: list[Rendered],
        problems: list[tuple[str, str, Problem]],
        asked: Asked,
        route: str,
    ) -> bytes:
        """The `errors` of an answer, JSON; the problems are counted then, and the rows logged."""
        errors = b"[]"
        if problems:
            for kind, n in Counter(problem.kind for _, _, problem in problems).items():
                self._metrics.problems.labels(kind).inc(n)
            errors = orjson.dumps(
                [
                    problem.described() | {"symbol": symbol, "field": field}
                    for field, symbol, problem in problems
                ]
            )
        if rows:
            self._record(state, rows, asked, route)
        return errors

    def _ranked(self, state: MarketState, by: By) -> list[Rendered]:
        """The market's forecasts that may be shown, the strongest first; sorted once a state."""
        reference = self._renderer.reference(state)
        number, kept_reference, rows = self._strongest.get(by, (-1, -1, []))
        if (number, kept_reference) == (state.number, reference):
            return rows
        rows, problems = self._looked_up(state, list(state.forecasts))
        if not rows:
            kinds = {problem.kind for _, _, problem in problems}
            kind = next((kind for kind in NOTHING_TO_RANK if kind in kinds), "no-forecast")
            raise Problem(kind, NOTHING_TO_RANK[kind])
        rows.sort(key=lambda row: -getattr(row.forecast, by))
        self._strongest[by] = (state.number, reference, rows)
        return rows

    def _record(self, state: MarketState, rows: list[Rendered], asked: Asked, route: str) -> None:
        """Write these down: then they may be sent."""
        version = state.model.version
        forecasts = [row.forecast for row in rows]
        self._write_down(Answered(*_who(asked, route), version, state.number, forecasts))
        asked.symbols += len(rows)
        asked.state = state.number
        self._metrics.predictions.labels(version).inc(len(rows))
        self._metrics.served_age.set(max([row.age for row in rows]))

    def _write_down(self, answered: Answered) -> None:
        started = perf_counter()
        with unavailable_if_failing("prediction log", "Nothing is sent that it does not have."):
            self._service.served.record(answered)
        self._metrics.log_seconds.observe(perf_counter() - started)


def _signals(state: MarketState, record: bytes, signals: list[bytes], errors: bytes) -> bytes:
    """`SignalsAnswer`, JSON."""
    return b'{"model_version":%b,"record":%b,"signals":[%b],"errors":%b}' % (
        orjson.dumps(state.model.version),
        record,
        b",".join(signals),
        errors,
    )


def _who(asked: Asked, route: str) -> tuple[str, str, str, datetime, float]:
    """The first fields of `Answered`."""
    caller = asked.key.name if asked.key else ""
    return asked.request_id, caller, route, asked.received_at, asked.milliseconds


@contextmanager
def _bars_problems() -> Iterator[None]:
    """What the way to the writer raises, each with its cause and what to do."""
    try:
        yield
    except BusyError as error:
        detail = f"Too many posts of bars wait, or it took too long. {AGAIN}"
        raise Problem("busy", detail, headers={"Retry-After": "5"}) from error
    except AwayError as error:
        detail = f"The process that takes bars is away, and is being started. Forecasts go on. {AGAIN}"
        raise Problem("unavailable", detail, headers={"Retry-After": "2"}) from error
    except Exception as error:
        logger.exception("bars could not be taken")
        detail = f"The store does not answer ({cause(error)}). {AGAIN}"
        raise Problem("unavailable", detail, headers=RETRY) from error
