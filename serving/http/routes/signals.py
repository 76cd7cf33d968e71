"""`/v1/signals`: what to do with the champion's forecasts."""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from serving.http.asked import asked_of
from serving.http.json_route import batch_of, read_json, tagged_response, validated
from serving.http.openapi import body_of
from serving.http.problems import BODIES, READS, declared
from serving.http.routes.forecasts import check_once
from serving.http.routes.history import NOT_MODIFIED
from serving.http.schemas import SYMBOLS, PredictRequest, SignalsAnswer
from serving.http.signals import Signals
from serving.http.state import answers_of
from serving.settings import ServeParams

SIGNALS = "/v1/signals"


def signals_of(request: Request) -> Signals:
    return request.app.state.signals


def add_signals(app: FastAPI, params: ServeParams) -> None:
    @app.get(
        SIGNALS,
        tags=["decisions"],
        response_model=SignalsAnswer,
        responses=declared(
            "no-signals", "stale-features", "suspect-bar", "no-forecast", "invalid-request", *READS
        )
        | NOT_MODIFIED,
    )
    async def strongest(
        request: Request,
        top: Annotated[int, Query(ge=1, le=params.max_symbols, description="How many.")] = 10,
    ) -> Response:
        """What to buy and sell of the whole market, then what to leave: the most promising first."""
        body = answers_of(request).strongest_signals(
            top, signals_of(request), asked_of(request), SIGNALS
        )
        return tagged_response(request, body)

    @app.post(
        SIGNALS,
        tags=["decisions"],
        response_model=SignalsAnswer,
        responses=declared(
            "unknown-symbol",
            "no-signals",
            "stale-features",
            "suspect-bar",
            "no-forecast",
            *BODIES,
            "duplicate-symbol",
            *READS,
        ),
        openapi_extra=body_of(PredictRequest),
    )
    async def signals(request: Request) -> Response:
        """What to do with each of these symbols."""
        batch = batch_of(await read_json(request), "symbols", params.max_symbols)
        symbols = validated(batch, "symbols", SYMBOLS)
        check_once(symbols)
        body = answers_of(request).signals(symbols, signals_of(request), asked_of(request), SIGNALS)
        return Response(body, media_type="application/json")
