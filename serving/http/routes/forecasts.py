"""`/v1/predict` and `/v1/forecasts`: the champion's forecasts."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Annotated

import orjson
from fastapi import FastAPI, Query, Request, Response

from serving.http.answers import By
from serving.http.asked import asked_of
from serving.http.json_route import batch_of, read_json, tagged_response, validated
from serving.http.openapi import body_of
from serving.http.problems import BODIES, MAX_ERRORS, READS, Problem, declared
from serving.http.routes.history import MARKET, NOT_MODIFIED, past, shown
from serving.http.schemas import (
    SYMBOLS,
    Day,
    ForecastsAnswer,
    PastForecastsAnswer,
    PredictAnswer,
    PredictRequest,
)
from serving.http.state import answers_of, service_of
from serving.settings import ServeParams

PREDICT, FORECASTS = "/v1/predict", "/v1/forecasts"


def add_forecasts(app: FastAPI, params: ServeParams) -> None:
    @app.post(
        PREDICT,
        tags=["forecasts"],
        response_model=PredictAnswer,
        responses=declared(
            "unknown-symbol",
            "stale-features",
            "suspect-bar",
            "no-forecast",
            *BODIES,
            "duplicate-symbol",
            *READS,
        ),
        openapi_extra=body_of(PredictRequest),
    )
    async def predict(request: Request) -> Response:
        """Forecast from each symbol's newest session on, as far as the model looks ahead."""
        batch = batch_of(await read_json(request), "symbols", params.max_symbols)
        symbols = validated(batch, "symbols", SYMBOLS)
        check_once(symbols)
        body = answers_of(request).predict(symbols, asked_of(request), PREDICT)
        return Response(body, media_type="application/json")

    @app.get(
        FORECASTS,
        tags=["forecasts"],
        response_model=ForecastsAnswer | PastForecastsAnswer,
        responses=declared(
            "stale-features", "suspect-bar", "no-forecast", "invalid-request", "busy", *READS
        )
        | NOT_MODIFIED,
    )
    async def forecasts(
        request: Request,
        top: Annotated[int, Query(ge=1, le=params.max_symbols, description="How many.")] = 10,
        by: Annotated[By, Query(description="What strong means.")] = "p_up",
        as_of: Annotated[
            Day | None,
            Query(
                description="Those that were served from the last close up to the end of this day, "
                "instead of today's.",
                examples=["2013-02-28"],
            ),
        ] = None,
    ) -> Response:
        """The strongest forecasts of the whole market."""
        if as_of is None:
            return tagged_response(
                request, answers_of(request).strongest(top, by, asked_of(request), FORECASTS)
            )
        found = await past(service_of(request).history.market, date.fromisoformat(as_of), MARKET)
        strongest = sorted(found, key=lambda f: -getattr(f, by))[:top]
        answers_of(request).audit(shown(strongest), asked_of(request), FORECASTS)
        document = {"day": as_of, "by": by, "forecasts": [asdict(f) for f in strongest]}
        return tagged_response(request, orjson.dumps(document))


def check_once(symbols: Sequence[str]) -> None:
    """Raise Problem (422) for symbols that are there twice."""
    if len(set(symbols)) == len(symbols):
        return
    first: dict[str, int] = {}
    again = [(i, symbol) for i, symbol in enumerate(symbols) if first.setdefault(symbol, i) != i]
    errors = [
        (f"symbols[{i}]", f"is symbols[{first[symbol]}] again") for i, symbol in again[:MAX_ERRORS]
    ]
    raise Problem("duplicate-symbol", "Ask for each symbol once.", errors)
