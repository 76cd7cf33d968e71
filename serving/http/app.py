"""The HTTP API: forecasts, features, live bars and the champion."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from serving.http.answers import Answers
from serving.http.auth import Keys
from serving.http.json_route import JsonRoute
from serving.http.metrics import Metrics
from serving.http.middleware import RequestMiddleware
from serving.http.openapi import ABOUT, openapi_document
from serving.http.problems import Problem, of_exception, of_validation
from serving.http.routes.bars import add_bars
from serving.http.routes.features import add_features
from serving.http.routes.forecasts import add_forecasts
from serving.http.routes.health import add_health
from serving.http.routes.model import add_model
from serving.http.service import Service
from serving.settings import ServeParams


def create_app(params: ServeParams, keys: Keys, build: Callable[[], Service]) -> FastAPI:
    """The API; its lifespan builds the service, and closes it in the end.

    Args:
        build: returns the service, or raises what keeps it from starting: the lifespan raises it too.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with closing(build()) as service:
            metrics.service = app.state.service = service
            app.state.answers = Answers(service, params, metrics)
            yield

    app = FastAPIOffline(
        title="Pitwise",
        version="1",
        description=ABOUT,
        swagger_ui_parameters={"validatorUrl": None},
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.metrics = metrics
    app.add_middleware(RequestMiddleware, params=params, keys=keys, metrics=metrics)
    _handle_problems(app, metrics)
    app.router.route_class = JsonRoute
    add_forecasts(app, params)
    add_features(app)
    add_bars(app, params)
    add_model(app)
    add_health(app)
    app.openapi = lambda: openapi_document(app, params, keys)  # type: ignore[method-assign]
    return app


def _handle_problems(app: FastAPI, metrics: Metrics) -> None:
    def answer(request: Request, problem: Problem) -> Response:
        metrics.problems.labels(problem.kind).inc()
        return problem.response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def raised(request: Request, error: HTTPException) -> Response:
        return answer(request, of_exception(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, of_validation(error.errors()))
