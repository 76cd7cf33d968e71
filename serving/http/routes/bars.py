"""`/v1/bars`: new, corrected and withdrawn bars."""

from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Request, Response

from serving.http.json_route import check_batch, json_response
from serving.http.problems import BODIES, READS, declared
from serving.http.schemas import BarsAnswer, BarsRequest, Day
from serving.http.state import answers_of
from serving.settings import ServeParams


def add_bars(app: FastAPI, params: ServeParams) -> None:
    one_at_a_time = CapacityLimiter(1)  # so that bars that wait take no thread from the forecasts

    @app.post(
        "/v1/bars",
        tags=["features"],
        response_model=BarsAnswer,
        responses=declared(*BODIES, *READS),
    )
    async def bars(body: BarsRequest, request: Request) -> Response:
        """Send new or corrected bars. After the answer, forecasts know them, and a crash loses none."""
        check_batch("bars", body.bars, params.max_bars)
        take = answers_of(request).take_bars
        return json_response(await to_thread.run_sync(take, body, limiter=one_at_a_time))

    @app.delete(
        "/v1/bars/{symbol}/{date}",
        tags=["features"],
        response_model=BarsAnswer,
        responses=declared("invalid-request", *READS),
    )
    async def withdraw(
        symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])],
        date: Annotated[Day, Path(examples=["2013-03-04"])],
        request: Request,
    ) -> Response:
        """Withdraw a bar. After the answer, forecasts are as if it had not come; its version stays."""
        take = partial(answers_of(request).withdraw_bar, symbol, date)
        return json_response(await to_thread.run_sync(take, limiter=one_at_a_time))
