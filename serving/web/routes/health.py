"""The page of the service's health, the reports it links to, and its stream of changes."""

from collections.abc import AsyncIterator

import anyio
import orjson
from fastapi import APIRouter, Request, Response
from sse_starlette import ServerSentEvent

from serving.http.asked import asked_of
from serving.http.auth import Keys
from serving.http.problems import Problem
from serving.http.routes.stream import LOOK_SECONDS, Stream, Streams, check_key
from serving.http.state import answers_of, metrics_of, service_of
from serving.state.market import MarketState
from serving.web.frame import HEADERS, HEALTH, AsOf, frame, made, moment_of, sources_of
from serving.web.health import health, live_facts
from serving.web.pages import page

SHUT_OFF = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Content security policy of a report, which has inline scripts and styles: it is of no origin, so that
it knows no cookie, and asks for nothing."""


def add_health(router: APIRouter, keys: Keys) -> None:
    streams = Streams()

    @router.api_route(HEALTH, methods=["GET", "HEAD"])
    async def show(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(moment_of, as_of, state, sources)
        service, metrics = service_of(request), metrics_of(request)
        view = await made(health, when, state, service, sources, metrics)
        body = await made(page, "health.html", **view, **frame(request, HEALTH, when))
        return body.response(request, HEADERS)

    @router.api_route(HEALTH + "/reports/{name}", methods=["GET", "HEAD"])
    async def report(request: Request, name: str) -> Response:
        body = await made(sources_of(request).page, name)
        if body is None:
            raise Problem("not-found", f"There is no report '{name[:40]}' yet: run `pitwise run`.")
        return body.response(request, {"Content-Security-Policy": SHUT_OFF})

    @router.get(HEALTH + "/stream")
    async def stream(request: Request) -> Response:
        streams.check_room()
        ending = anyio.Event()
        return Stream(_changes(request, keys, ending), ending, streams, metrics_of(request).streams)


async def _changes(request: Request, keys: Keys, ending: anyio.Event) -> AsyncIterator[ServerSentEvent]:
    """An event `state` for the market's state now and each one after it."""
    seen: MarketState | None = None
    while not (ending.is_set() or request.app.state.ending.is_set()):
        try:
            check_key(keys, asked_of(request))
            state = answers_of(request).state()
        except Problem:
            return
        if seen is None or state.number != seen.number:
            facts = orjson.dumps(live_facts(state, seen)).decode()
            yield ServerSentEvent(facts, event="state", id=str(state.number))
            seen = state
        await anyio.sleep(LOOK_SECONDS)
