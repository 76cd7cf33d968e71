"""`/v1/bars`: new, corrected and withdrawn bars."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Request, Response

from serving.http.asked import asked_of
from serving.http.json_route import ONE_BIG_BODY, batch_of, json_response, read_json, validated
from serving.http.openapi import body_of
from serving.http.problems import BODIES, READS, Problem, declared
from serving.http.schemas import BARS, BarsAnswer, BarsRequest, Day
from serving.http.state import answers_of, metrics_of
from serving.settings import ServeParams


class Waiting:
    """Posts of bars that are being read, wait for others, or are being taken."""

    def __init__(self, most: int):
        self.most = most
        self.now = 0

    @contextmanager
    def one(self, request: Request) -> Iterator[None]:
        """Problem (503) where so many wait already: before its body is read, which would wait too."""
        if self.now >= self.most:
            raise Problem(
                "busy",
                f"{self.now} posts of bars wait already. Send it again later.",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        gauge = metrics_of(request).bars_waiting
        self.now += 1
        gauge.inc()
        try:
            yield
        finally:
            self.now -= 1
            gauge.dec()


def add_bars(app: FastAPI, params: ServeParams) -> None:
    waiting = Waiting(params.max_waiting)
    threads = CapacityLimiter(params.max_waiting)  # so that bars that wait take none from other requests

    @app.post(
        "/v1/bars",
        tags=["features"],
        response_model=BarsAnswer,
        responses=declared(*BODIES, "busy", *READS),
        openapi_extra=body_of(BarsRequest),
    )
    async def bars(request: Request) -> Response:
        """Send new or corrected bars. After the answer, forecasts know them, and a crash loses none."""
        with waiting.one(request):
            batch = batch_of(await read_json(request), "bars", params.max_bars)
            checked = await to_thread.run_sync(checked_bars, batch, limiter=ONE_BIG_BODY)
            asked_of(request).symbols = len(checked)
            take = partial(answers_of(request).take_bars, checked)
            return json_response(await to_thread.run_sync(take, limiter=threads))

    @app.delete(
        "/v1/bars/{symbol}/{date}",
        tags=["features"],
        response_model=BarsAnswer,
        responses=declared("invalid-request", "busy", *READS),
    )
    async def withdraw(
        symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])],
        date: Annotated[Day, Path(examples=["2013-03-04"])],
        request: Request,
    ) -> Response:
        """Withdraw a bar. After the answer, forecasts are as if it had not come; its version stays."""
        with waiting.one(request):
            asked_of(request).symbols = 1
            take = partial(answers_of(request).withdraw_bar, symbol, date)
            return json_response(await to_thread.run_sync(take, limiter=threads))


def checked_bars(batch: list[Any]) -> list[dict[str, Any]]:
    """The bars of a batch; `adj_close` of those that have one.

    Raises:
        Problem: some are none (422).
    """
    return [
        {name: value for name, value in bar.__dict__.items() if value is not None}
        for bar in validated(batch, "bars", BARS)
    ]
