"""`/v1/predict` and `/v1/forecasts`: the champion's forecasts."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, Response

from serving.http.json_route import check_batch, json_response
from serving.http.problems import BODIES, READS, Problem, declared
from serving.http.schemas import ForecastsAnswer, PredictAnswer, PredictRequest
from serving.http.state import answers_of
from serving.settings import ServeParams


def add_forecasts(app: FastAPI, params: ServeParams) -> None:
    @app.post(
        "/v1/predict",
        tags=["forecasts"],
        response_model=PredictAnswer,
        responses=declared(
            "unknown-symbol", "stale-features", "suspect-bar", *BODIES, "duplicate-symbol", *READS
        ),
    )
    def predict(body: PredictRequest, request: Request) -> Response:
        """Forecast the session after each symbol's newest one."""
        check_batch("symbols", body.symbols, params.max_symbols)
        check_once(body.symbols)
        return json_response(answers_of(request).forecasts(body.symbols))

    @app.get(
        "/v1/forecasts",
        tags=["forecasts"],
        response_model=ForecastsAnswer,
        responses=declared("stale-features", "suspect-bar", "invalid-request", *READS),
    )
    def forecasts(
        request: Request,
        top: Annotated[int, Query(ge=1, le=params.max_symbols, description="How many.")] = 10,
        by: Annotated[Literal["p_up", "log_return"], Query(description="What strong means.")] = "p_up",
    ) -> Response:
        """The strongest forecasts of the whole market."""
        return json_response(answers_of(request).strongest(top, by))


def check_once(symbols: Sequence[str]) -> None:
    """Raise Problem (422) for symbols that are there twice."""
    first: dict[str, int] = {}
    again = [(i, symbol) for i, symbol in enumerate(symbols) if first.setdefault(symbol, i) != i]
    if again:
        errors = [(f"symbols[{i}]", f"is symbols[{first[symbol]}] again") for i, symbol in again]
        raise Problem("duplicate-symbol", "Ask for each symbol once.", errors)
