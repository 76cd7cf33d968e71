"""`/v1/bars`: new and corrected bars."""

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response

from serving.http.json_route import check_batch, json_response
from serving.http.problems import BODIES, READS, declared
from serving.http.schemas import BarsAnswer, BarsRequest
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
