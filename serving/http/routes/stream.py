"""`/v1/forecasts/stream`: forecasts as they change, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import orjson
from fastapi import FastAPI, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from serving.http.asked import Asked, asked_of
from serving.http.auth import Keys
from serving.http.problems import READS, Problem, declared
from serving.http.routes.forecasts import check_once
from serving.http.schemas import Symbol
from serving.http.state import answers_of, metrics_of
from serving.settings import ServeParams
from serving.state.market import MarketState

STREAM = "/v1/forecasts/stream"
LOOK_SECONDS = 0.25
"""Between two looks at the market's state."""
HEARTBEAT_SECONDS = 15
"""Between two comments that keep proxies from closing a connection on which nothing happens."""
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is let go."""
MOST = 100
"""Streams of one process."""


class Streams:
    """How many are open."""

    def __init__(self) -> None:
        self.now = 0

    def check_room(self) -> None:
        """Problem (503) where no more can be opened."""
        if self.now >= MOST:
            detail = f"{MOST} streams are open already. Try again later."
            raise Problem("busy", detail, headers={"Retry-After": "30"})


class Stream(EventSourceResponse):
    """A stream that is counted while it is open.

    Args:
        ending: is set when the server is to end; the events then come to their end.
    """

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], ending: anyio.Event, streams: Streams, gauge: Any
    ):
        super().__init__(
            events,
            ping=HEARTBEAT_SECONDS,
            ping_message_factory=_heartbeat,
            send_timeout=SEND_SECONDS,
            shutdown_event=ending,
            shutdown_grace_period=4 * LOOK_SECONDS,
        )
        self._streams, self._gauge = streams, gauge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.now += 1
        self._gauge.inc()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.now -= 1
            self._gauge.dec()


def _heartbeat() -> ServerSentEvent:
    return ServerSentEvent(comment="")


def add_stream(app: FastAPI, params: ServeParams, keys: Keys) -> None:
    streams = Streams()

    @app.get(
        STREAM,
        tags=["forecasts"],
        response_class=EventSourceResponse,
        responses={
            200: {
                "description": "Events `forecasts`: `data` is a PredictAnswer, `id` the state's number. "
                "An event `problem` is the last one.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **declared("unknown-symbol", "invalid-request", "duplicate-symbol", "busy", *READS),
        },
    )
    async def stream(
        request: Request,
        symbols: Annotated[
            list[Symbol] | None,
            Query(max_length=params.max_symbols, description="Each once. None: the whole market."),
        ] = None,
        last_event_id: Annotated[
            int | None,
            Header(
                alias="Last-Event-ID",
                ge=0,
                le=2**63 - 1,
                description="Go on after this event: first comes what has changed since.",
            ),
        ] = None,
    ) -> Response:
        """The forecasts, and then each that changes. Who was cut off resumes by the last id."""
        check_once(symbols or ())
        state = answers_of(request).state()
        if symbols and not any(symbol in state.changed for symbol in symbols):
            raise Problem("unknown-symbol", "The store has no window of any of the symbols.")
        streams.check_room()
        ending = anyio.Event()
        events = _events(request, symbols, last_event_id, keys, ending)
        return Stream(events, ending, streams, metrics_of(request).streams)


async def _events(
    request: Request, symbols: list[str] | None, after: int | None, keys: Keys, ending: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    answers, asked = answers_of(request), asked_of(request)
    seen = -1 if after is None else after
    while not (ending.is_set() or request.app.state.ending.is_set()):
        try:
            check_key(keys, asked)
            state = answers.state()
            if seen > state.number:
                seen = -1  # the client's last event was another service's: it has the market anew
            if state.number != seen:
                changed = _changed(state, symbols, seen)
                if changed:
                    body = answers.update(state, changed, asked, STREAM)
                    yield ServerSentEvent(body.decode(), event="forecasts", id=str(state.number))
                seen = state.number
        except Problem as problem:
            document = problem.described() | {"status": problem.status_code}
            document["request_id"] = asked.request_id
            yield ServerSentEvent(orjson.dumps(document).decode(), event="problem")
            return
        await anyio.sleep(LOOK_SECONDS)


def check_key(keys: Keys, asked: Asked) -> None:
    """Problem (401) where the key that opened the stream is valid no more."""
    if (asked.key and not keys.holds(asked.key)) or (keys.required and not asked.key):
        raise Problem("no-key", "The key is valid no more.")


def _changed(state: MarketState, symbols: list[str] | None, seen: int) -> list[str]:
    """The symbols that a state after `seen` has changed; at the beginning all, unknown ones too."""
    if symbols is None:
        return [symbol for symbol, number in state.changed.items() if number > seen]
    return [symbol for symbol in symbols if state.changed.get(symbol, 0) > seen]
