"""`/v1/forecasts/{symbol}/history`: what was forecast, and what came of it."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import anyio
import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Query, Request, Response

from serving.http.answers import unavailable_if_failing
from serving.http.asked import asked_of
from serving.http.json_route import tagged_response
from serving.http.problems import READS, Problem, declared
from serving.http.schemas import Day, HistoryAnswer
from serving.http.state import answers_of, service_of
from serving.log.served_log import Shown

if TYPE_CHECKING:
    from serving.log.history import PastForecast

HISTORY = "/v1/forecasts/{symbol}/history"
MOST = 2000
"""Forecasts in one answer."""
MARKET = 100_000
"""Symbols of a market; there is none as large."""
SECONDS = 20.0
"""The longest that a question about the past may wait and take."""
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "As the client has it: its `If-None-Match` is the `ETag`"}
}
P = ParamSpec("P")
T = TypeVar("T")
_two_at_a_time = CapacityLimiter(2)


async def past(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function of the history returns, from a thread, and two at a time.

    Raises:
        Problem: it does not answer, or not in time (503).
    """
    try:
        with anyio.fail_after(SECONDS), unavailable_if_failing("history", "Try again."):
            return await to_thread.run_sync(
                lambda: ask(*args, **kwargs), limiter=_two_at_a_time, abandon_on_cancel=True
            )
    except TimeoutError as error:
        detail = f"The history did not answer within {SECONDS:.0f} s. Ask for less, or later."
        raise Problem("busy", detail, headers={"Retry-After": "5"}) from error


def shown(forecasts: "list[PastForecast]") -> list[Shown]:
    """Past forecasts as the audit trail names them."""
    return [Shown(f.symbol, f.as_of, f.window_hash) for f in forecasts]


def add_history(app: FastAPI) -> None:
    @app.get(
        HISTORY,
        tags=["forecasts"],
        response_model=HistoryAnswer,
        responses=declared("unknown-symbol", "invalid-request", "busy", *READS) | NOT_MODIFIED,
    )
    async def history(
        request: Request,
        symbol: Annotated[str, Path(max_length=64, examples=["AAPL"])],
        first: Annotated[
            Day | None, Query(alias="from", description="First session.", examples=["2013-02-01"])
        ] = None,
        last: Annotated[
            Day | None, Query(alias="to", description="Last session.", examples=["2013-03-01"])
        ] = None,
    ) -> Response:
        """The forecasts served of a symbol, with their outcomes where they have matured."""
        found = await past(service_of(request).history.of, symbol, _day(first), _day(last), MOST + 1)
        if not found and symbol not in answers_of(request).state().forecasts:
            raise Problem("unknown-symbol", "Nothing was forecast of it.", [("symbol", "is unknown")])
        answers_of(request).audit(shown(found[:MOST]), asked_of(request), HISTORY)
        forecasts = [asdict(forecast) for forecast in found[:MOST]]
        document = {"symbol": symbol, "forecasts": forecasts, "more": len(found) > MOST}
        return tagged_response(request, orjson.dumps(document))


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
