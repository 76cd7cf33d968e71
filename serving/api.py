"""The HTTP API: forecasts, features, live bars and the model in office."""

from collections.abc import Sequence
from logging import getLogger
from typing import Annotated, Any, Literal

import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from serving.desk import Desk, Service
from serving.front import Front
from serving.metrics import Metrics
from serving.problems import EVERYWHERE, Problem, ProblemDocument, declared, of_exception, of_validation
from serving.schemas import (
    BarsAnswer,
    BarsRequest,
    FeaturesAnswer,
    ForecastsAnswer,
    Health,
    ModelAnswer,
    PredictAnswer,
    PredictRequest,
)

ABOUT = """\
Forecasts of the S&P 500's next session, from the champion model and the online feature store.

Errors are problem documents (RFC 9457); `type` says which, and `errors` names the fields. Where some
symbols of a request have a forecast and some have none, the answer is 200; its `errors` has the latter.
"""
READS = ("unavailable", *EVERYWHERE)
BODIES = (
    "malformed-json",
    "body-too-large",
    "not-json",
    "invalid-request",
    "empty-batch",
    "batch-too-large",
)
logger = getLogger("pitwise.serving")


class JsonRequest(Request):
    async def json(self) -> Any:
        """NaN and Infinity pass, so that the validation can name their field; what is no UTF-8 or is
        nested too deeply does not."""
        try:
            return from_json(await self.body(), allow_inf_nan=True)
        except ValueError as error:
            raise Problem("malformed-json", f"The body cannot be parsed: {error}.") from error


class JsonRoute(APIRoute):
    """A body is JSON and says so: what a foreign web page can send without asking is refused."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.body_field and kind != "application/json":
                raise Problem("not-json", "Send JSON, with 'Content-Type: application/json'.")
            return await handle(JsonRequest(request.scope, request.receive))

        return checked


def _answer(document: Any) -> Response:
    # Built here and not validated again: a Response passes FastAPI as it is.
    return Response(orjson.dumps(document, default=str), media_type="application/json")


def _check_batch(field: str, batch: Sequence[Any], most: int) -> None:
    if not batch:
        raise Problem("empty-batch", f"Ask for 1 to {most:,}.", [(field, "is empty")])
    if len(batch) > most:
        told = f"has {len(batch):,} of at most {most:,}"
        raise Problem("batch-too-large", f"Ask for at most {most:,} at a time.", [(field, told)])


def _check_once(symbols: Sequence[str]) -> None:
    first: dict[str, int] = {}
    again = [(i, symbol) for i, symbol in enumerate(symbols) if first.setdefault(symbol, i) != i]
    if again:
        errors = [(f"symbols[{i}]", f"is symbols[{first[symbol]}] again") for i, symbol in again]
        raise Problem("duplicate-symbol", "Ask for each symbol once.", errors)


def create_app(service: Service) -> FastAPI:
    """The API over a service; the caller closes the service."""
    app = FastAPIOffline(
        title="Pitwise",
        version="1",
        description=ABOUT,
        swagger_ui_parameters={"validatorUrl": None},
        redirect_slashes=False,
    )
    app.router.route_class = JsonRoute
    metrics = Metrics(service)
    app.add_middleware(Front, service=service, metrics=metrics)
    _handle_problems(app, metrics)
    _add_forecasts(app, service, Desk(service, metrics))
    _add_state(app, service, metrics)
    app.openapi = lambda: _openapi(app, service)  # type: ignore[method-assign]
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


def _add_forecasts(app: FastAPI, service: Service, desk: Desk) -> None:
    one_at_a_time = CapacityLimiter(1)  # so that bars that wait take no thread from the forecasts

    @app.post(
        "/v1/predict",
        tags=["forecasts"],
        response_model=PredictAnswer,
        responses=declared("unknown-symbol", "stale-features", *BODIES, "duplicate-symbol", *READS),
    )
    def predict(body: PredictRequest) -> Response:
        """Forecast the session after each symbol's newest one."""
        _check_batch("symbols", body.symbols, service.params.max_symbols)
        _check_once(body.symbols)
        return _answer(desk.predict(body.symbols))

    @app.get(
        "/v1/forecasts",
        tags=["forecasts"],
        response_model=ForecastsAnswer,
        responses=declared("stale-features", "invalid-request", *READS),
    )
    def forecasts(
        top: Annotated[int, Query(ge=1, le=service.params.max_symbols, description="How many.")] = 10,
        by: Annotated[Literal["p_up", "log_return"], Query(description="What strong means.")] = "p_up",
    ) -> Response:
        """The strongest forecasts of the whole market."""
        return _answer(desk.strongest(top, by))

    @app.get(
        "/v1/features/{symbol}",
        tags=["features"],
        response_model=FeaturesAnswer,
        responses=declared("unknown-symbol", "invalid-request", *READS),
    )
    def features(symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])]) -> Response:
        """The newest session's bar and indicators of one symbol."""
        return _answer(desk.features(symbol))

    @app.post(
        "/v1/bars",
        tags=["features"],
        response_model=BarsAnswer,
        responses=declared(*BODIES, *READS),
    )
    async def bars(body: BarsRequest) -> Response:
        """Give new or corrected bars. After the answer, forecasts know them, and a crash loses none."""
        _check_batch("bars", body.bars, service.params.max_bars)
        return _answer(await to_thread.run_sync(desk.take, body, limiter=one_at_a_time))


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/v1/model", tags=["model"], response_model=ModelAnswer, responses=declared(*EVERYWHERE))
    def model() -> Response:
        """The model in office."""
        champion = service.champion
        model = champion.predictor.model
        return _answer(
            {
                "version": model.version,
                "kind": model.kind,
                "features": model.features,
                "window": model.window,
                "since": champion.since,
                "swaps": champion.swaps,
                "refused": champion.refused,
                "metadata": {k: v for k, v in model.metadata.items() if k not in ("features", "window")},
            }
        )

    @app.get("/healthz", tags=["health"], response_model=Health, responses=declared("internal-error"))
    async def healthz() -> Response:
        """The process is alive."""
        return _answer({"status": "alive"})

    @app.get(
        "/readyz",
        tags=["health"],
        response_model=Health,
        responses=declared("not-ready", "internal-error"),
    )
    def readyz() -> Response:
        """The service can answer: it has a champion, and the store and the log answer."""
        checks = {
            "champion": lambda: service.champion.predictor.model,
            "store": lambda: service.champion.predictor.forecast(service.live.symbols[:1]),
            "log": lambda: service.served.pending,
        }
        missing = []
        for part, check in checks.items():
            try:
                check()
            except Exception:  # whatever it is, it is not ready
                logger.exception("not ready: %s", part)
                missing.append((part, "does not answer"))
        if missing:
            raise Problem("not-ready", f"Not ready: {', '.join(part for part, _ in missing)}.", missing)
        return _answer({"status": "ready"})

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **declared(*EVERYWHERE),
        },
    )
    def prometheus() -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = document["components"]
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    parts["schemas"] |= problem.pop("$defs") | {"ProblemDocument": problem}
    schemas, params = parts["schemas"], service.params
    schemas["PredictRequest"]["properties"]["symbols"]["maxItems"] = params.max_symbols
    schemas["BarsRequest"]["properties"]["bars"]["maxItems"] = params.max_bars
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    if service.keys.required:
        document["security"] = [{"bearer": []}, {"header": []}]
        for path in ("/healthz", "/readyz"):
            document["paths"][path]["get"]["security"] = []
    app.openapi_schema = document
    return document
