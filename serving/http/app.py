"""The HTTP API: forecasts, features, live bars and the champion."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from serving.http.answers import Answers
from serving.http.asked import asked_of
from serving.http.auth import Keys
from serving.http.json_route import JsonRoute, share_addresses
from serving.http.metrics import Metrics
from serving.http.middleware import RequestMiddleware
from serving.http.openapi import ABOUT, openapi_document
from serving.http.problems import Problem, of_exception, of_validation
from serving.http.rate_limit import RateLimit
from serving.http.routes.bars import add_bars
from serving.http.routes.features import add_features
from serving.http.routes.forecasts import add_forecasts
from serving.http.routes.health import add_health
from serving.http.routes.history import add_history
from serving.http.routes.model import add_model
from serving.http.routes.risk import add_risk
from serving.http.routes.signals import add_signals
from serving.http.routes.stream import add_stream
from serving.http.service import Service
from serving.http.signals import Signals
from serving.settings import ServeParams
from serving.web.router import add_web
from serving.web.sources import Sources

WATCHED_SECONDS = 1.0
"""Between two looks at what a metric shows and no request changes."""
WARM_SECONDS = 5.0
"""Between two looks at whether the files of the pages have changed."""
logger = logging.getLogger("pitwise.serving")


def create_app(
    params: ServeParams, keys: Keys, build: Callable[[], AbstractContextManager[Service]]
) -> FastAPI:
    """The API; its lifespan builds the service, and closes it in the end.

    `state.ending` of the app is a `threading.Event`: once it is set, streams end.

    Args:
        build: returns a context manager of the service, or raises what keeps it from starting, and the
            lifespan raises it too.
    """
    metrics = Metrics()
    limit = RateLimit(keys.path.with_name("limits.db"), params.requests_per_minute)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            with build() as service:
                metrics.service = app.state.service = service
                app.state.answers = Answers(service, params, metrics)
                app.state.signals = Signals(service.workspace)
                app.state.sources = Sources(service.workspace)
                watching = asyncio.gather(
                    _watch(service, limit, metrics), _keep_warm(service, app.state.sources)
                )
                try:
                    yield
                finally:
                    app.state.ending.set()
                    watching.cancel()
                    with suppress(asyncio.CancelledError):
                        await watching
        finally:
            limit.counts.close()

    app = FastAPIOffline(
        title="Pitwise",
        version="1",
        description=ABOUT,
        swagger_ui_parameters={"validatorUrl": None},
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.metrics = metrics
    app.state.ending = threading.Event()
    app.add_middleware(RequestMiddleware, params=params, keys=keys, limit=limit, metrics=metrics)
    _handle_problems(app, metrics)
    for route in app.router.routes:  # the pages, which are in no schema
        if isinstance(route, APIRoute) and route.methods:
            route.methods.add("HEAD")
    app.router.route_class = JsonRoute
    add_forecasts(app, params)
    add_history(app)
    add_stream(app, params, keys)
    add_signals(app, params)
    add_risk(app, params)
    add_features(app)
    add_bars(app, params)
    add_model(app)
    add_health(app)
    add_web(app, keys)
    share_addresses(app.router.routes)
    # Routes are looked through in order: those of the pages, which were there first, come last.
    app.router.routes.sort(key=lambda route: not isinstance(route, JsonRoute))
    app.openapi = lambda: openapi_document(app, params, keys)  # type: ignore[method-assign]
    return app


async def _watch(service: Service, limit: RateLimit, metrics: Metrics) -> None:
    while True:
        metrics.log_pending.set(service.served.pending)
        metrics.limits_alone.set(not limit.counts.shared)
        await asyncio.sleep(WATCHED_SECONDS)


async def _keep_warm(service: Service, sources: Sources) -> None:
    """Once a page was asked for, have the files of the pages read before the next one needs them."""
    while True:
        try:
            kind = service.states.current().model.kind
            await to_thread.run_sync(sources.warm, kind, abandon_on_cancel=True)
        except Exception:  # whatever it is, the page that needs the file says so
            logger.exception("the files of the pages cannot be read")
        await asyncio.sleep(WARM_SECONDS)


def _handle_problems(app: FastAPI, metrics: Metrics) -> None:
    def answer(request: Request, problem: Problem) -> Response:
        metrics.problems.labels(problem.kind).inc()
        return problem.response(asked_of(request).request_id)

    @app.exception_handler(HTTPException)
    async def raised(request: Request, error: HTTPException) -> Response:
        return answer(request, of_exception(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, of_validation(error.errors()))
