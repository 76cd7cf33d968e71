"""The service's addresses as methods."""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import date
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from pitwise.client.answers import (
    BarOutcome,
    BarsTaken,
    Features,
    Forecasts,
    HistoryPage,
    Model,
    PastForecast,
    PastForecasts,
    Readiness,
    Risk,
    Signals,
    Update,
)
from pitwise.client.bars import day_text, documents_of, parts
from pitwise.client.connection import AGAIN, FIRST_PAUSE, LONGEST_PAUSE, Connection
from pitwise.client.errors import AnswerError, ClientError, ProblemError, UnreachableError
from pitwise.client.events import Event, events

if TYPE_CHECKING:
    import pandas as pd

By = Literal["p_up", "log_return", "score"]
Day = date | str
BARS_SECONDS = 30.0
"""The service may let bars wait so long for others (serve.bars_seconds)."""
RISK_SECONDS = 60.0
"""A report of a portfolio's risk may take so long, and wait for others."""


class Client:
    """A service. Threads may share it; as a context manager it closes its connections in the end.

    What fails on the way, or is answered with 429, 502 or 503, is sent again where that is safe: all but
    `withdraw`, which is sent again only where it was certainly not carried out. The service's
    Retry-After is kept to, up to a minute.

    Args:
        url: of the service.
        key: of its API, where it needs one.
        timeout: seconds to wait for an answer to begin; for one to bars 30 more, for a risk 60.
        retries: how often a request is sent again at most.
        traceparent: called for each request: the W3C trace context that it belongs to, or None.

    Raises:
        ClientError: the url or the key is none. Methods raise ProblemError for what the service answers
            with an error, UnreachableError where it does not answer, and AnswerError where its answer is
            not one of this version.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8600",
        key: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        traceparent: Callable[[], str | None] | None = None,
    ):
        self._connection = Connection(url, key, timeout, retries, traceparent)
        self._bars_timeout = timeout + BARS_SECONDS
        self._risk_timeout = timeout + RISK_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def predict(self, symbols: Iterable[str]) -> Forecasts:
        """Forecasts from each symbol's newest session on, in the order of the symbols.

        Args:
            symbols: each once, at most serve.max_symbols.

        Raises:
            ProblemError: none of them has one; where some have, the others are in `errors`.
        """
        document, request_id = self._connection.ask(
            "POST", "/v1/predict", document={"symbols": list(symbols)}
        )
        return Forecasts.read(document, request_id=request_id)

    def forecasts(self, top: int = 10, by: By = "p_up") -> Forecasts:
        """The strongest forecasts of the whole market, the strongest first."""
        document, request_id = self._connection.ask("GET", "/v1/forecasts", {"top": top, "by": by})
        return Forecasts.read(document, errors=[], request_id=request_id)

    def past_forecasts(self, day: Day, top: int = 10, by: By = "p_up") -> PastForecasts:
        """The strongest of the forecasts that were served from the last close up to the end of a day."""
        asked = {"top": top, "by": by, "as_of": day_text(day, "day")}
        document, _ = self._connection.ask("GET", "/v1/forecasts", asked)
        return PastForecasts.read(document)

    def history(self, symbol: str, from_: Day | None = None, to: Day | None = None) -> PastForecasts:
        """The forecasts served of a symbol, by session, with their outcomes where they have matured.

        Args:
            from_, to: first and last session forecast, both included; None: no bound.
        """
        path = f"/v1/forecasts/{quote(symbol, safe='')}/history"
        first = day_text(from_, "from_") if from_ is not None else None
        last = day_text(to, "to") if to is not None else None
        found: list[PastForecast] = []
        while True:
            document, _ = self._connection.ask("GET", path, {"from": first, "to": last})
            page = HistoryPage.read(document)
            if not page.more:
                return PastForecasts(found + page.forecasts)
            # The last session of a page may go on in the next one, which begins with it.
            cut = page.forecasts[-1].for_session
            whole = [forecast for forecast in page.forecasts if forecast.for_session < cut]
            if not whole:
                raise AnswerError(f"{symbol} has more forecasts of {cut} than one answer shows.")
            found += whole
            first = cut.isoformat()

    def stream(
        self,
        symbols: Iterable[str] | None = None,
        last_event_id: int | None = None,
        patience: float = 60.0,
    ) -> Iterator[Update]:
        """The forecasts as they are, and then each time those that have changed, without an end.

        A connection that breaks is made again, and the stream goes on where it was.

        Args:
            symbols: each once; None: the whole market.
            last_event_id: go on after the update with this id.
            patience: seconds that the service may be away.

        Raises:
            ProblemError: no symbol is known, or the key is valid no more.
            UnreachableError: the service was away for longer than `patience`.
        """
        named = None if symbols is None else list(symbols)
        pause, away_since = FIRST_PAUSE, monotonic()
        while True:
            opened = monotonic()
            try:
                with closing(self._updates(named, last_event_id)) as updates:
                    for update in updates:
                        yield update
                        last_event_id = update.id
                ended: ClientError = UnreachableError("The service ends each stream at once.")
            except UnreachableError as error:
                ended = error
            except ProblemError as problem:
                if problem.status not in AGAIN:
                    raise
                ended = problem
            if monotonic() > opened + LONGEST_PAUSE:  # it was there for a while
                pause, away_since = FIRST_PAUSE, monotonic()
            if monotonic() + pause > away_since + patience:
                raise ended
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def signals(self, symbols: Iterable[str] | None = None, top: int = 10) -> Signals:
        """What to do with each symbol, in the order of the symbols.

        Args:
            symbols: each once, at most serve.max_symbols; None: of the whole market the `top` most
                promising, BUY and SELL first.

        Raises:
            ProblemError: none of them has a forecast, or stage `signals` has not run yet.
        """
        if symbols is None:
            asked = self._connection.ask("GET", "/v1/signals", {"top": top})
        else:
            asked = self._connection.ask("POST", "/v1/signals", document={"symbols": list(symbols)})
        document, request_id = asked
        return Signals.read(document, request_id=request_id)

    def risk(
        self,
        weights: Mapping[str, float] | None = None,
        holdings: Mapping[str, float] | None = None,
        value: float = 1.0,
    ) -> Risk:
        """What a portfolio, given by weights or by holdings, can lose, from the service's clean bars.

        Args:
            weights: by symbol, below 0 is short; they sum to 1, or to 0 (dollar-neutral). A pandas
                Series too.
            holdings: shares by symbol, worth their last close.
            value: of weights, in US dollars.

        Raises:
            ProblemError: both or none are given, a symbol is unknown, or there is no risk to tell of
                them, such as of too short a history; `detail` and `errors` say which.
        """
        document: dict[str, Any] = {"value": float(value)}
        for name, amounts in (("weights", weights), ("holdings", holdings)):
            if amounts is not None:
                document[name] = {str(symbol): float(amount) for symbol, amount in amounts.items()}
        answer, _ = self._connection.ask(
            "POST", "/v1/risk", document=document, timeout=self._risk_timeout
        )
        return Risk.read(answer)

    def features(self, symbol: str, as_of: Day | None = None) -> Features:
        """The bar and the indicators of a symbol's newest session.

        Args:
            as_of: as they were known at the end of this day, UTC.
        """
        asked = {"as_of": day_text(as_of, "as_of") if as_of is not None else None}
        document, _ = self._connection.ask("GET", f"/v1/features/{quote(symbol, safe='')}", asked)
        return Features.read(document)

    def send_bars(
        self, bars: "pd.DataFrame | Iterable[Mapping[str, Any]]", at_once: int = 5000
    ) -> BarsTaken:
        """Send new or corrected bars. After this forecasts know those that were taken.

        They go in parts, the oldest session first, and a session in one part where it fits. A part that
        is sent again after a failure was perhaps taken the first time: its bars are `repeated` then.

        Args:
            bars: with symbol, date (the session's day), open, high, low, close (US dollars), volume
                (shares) and, where the vendor has one, adj_close.
            at_once: bars in one request; serve.max_bars of the service or less.

        Raises:
            ClientError: a bar lacks a field, or has a date that is none; none was sent.
            ProblemError, UnreachableError: parts before were answered; a note says how many bars.
        """
        documents = documents_of(bars)
        outcomes: list[Any] = [None] * len(documents)
        taken = 0
        for part in parts(documents, at_once):
            try:
                answer, _ = self._connection.ask(
                    "POST",
                    "/v1/bars",
                    document={"bars": [documents[i] for i in part]},
                    timeout=self._bars_timeout,
                )
            except ClientError as error:
                if len(part) < len(documents):
                    error.add_note(f"{taken:,} of {len(documents):,} bars were answered before.")
                raise
            for i, outcome in zip(part, BarsTaken.read(answer).outcomes, strict=True):
                outcomes[i] = outcome
            taken += len(part)
        return BarsTaken(outcomes, dict(Counter(outcome.outcome for outcome in outcomes)))

    def withdraw(self, symbol: str, day: Day) -> BarOutcome:
        """Take a bar back that should not have come.

        Where no answer comes it may have been carried out: a second one is `refused` then.
        """
        path = f"/v1/bars/{quote(symbol, safe='')}/{day_text(day, 'day')}"
        answer, _ = self._connection.ask("DELETE", path, is_repeatable=False, timeout=self._bars_timeout)
        (outcome,) = BarsTaken.read(answer).outcomes
        return outcome

    def model(self) -> Model:
        """The champion that answers now."""
        return Model.read(self._connection.ask("GET", "/v1/model")[0])

    def ready(self) -> Readiness:
        """Whether the service can answer, and what keeps it from it.

        Raises:
            UnreachableError: it is not there.
        """
        try:
            self._connection.ask("GET", "/readyz", retries=0)
        except ProblemError as problem:
            if problem.kind != "not-ready":
                raise
            return Readiness(False, problem.errors)
        return Readiness(True, {})

    def _updates(self, symbols: list[str] | None, after: int | None) -> Generator[Update, None, None]:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self._connection.open("/v1/forecasts/stream", {"symbols": symbols}, headers) as chunks:
            for event in events(chunks):
                if event.kind == "problem":
                    raise _problem(event)
                if event.kind == "forecasts":
                    yield _update(event)


def _update(event: Event) -> Update:
    return Update.read(_object(event), id=int(event.id))


def _problem(event: Event) -> ProblemError:
    """The one that ends a stream."""
    document = _object(event)
    try:
        return ProblemError(
            document["type"],
            document["title"],
            document["status"],
            document["detail"],
            request_id=document["request_id"],
        )
    except KeyError as error:
        raise AnswerError(f"a stream's problem has no {error}.") from error


def _object(event: Event) -> dict[str, Any]:
    try:
        return json.loads(event.data)
    except ValueError as error:
        raise AnswerError(f"an event of the stream is no JSON: {event.data[:80]!r}.") from error
