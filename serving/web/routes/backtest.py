"""The page of the back-test."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from serving.http.state import answers_of
from serving.web.backtest import MULTIPLES, backtest_view
from serving.web.frame import BACKTEST, HEADERS, AsOf, frame, keep, made, moment_of, sources_of, who
from serving.web.pages import Encoded, page


def add_backtest(router: APIRouter, kept: dict[tuple, Encoded]) -> None:
    @router.api_route(BACKTEST, methods=["GET", "HEAD"])
    async def backtest(
        request: Request,
        as_of: AsOf = None,
        portfolio: Annotated[str, Query(max_length=64)] = "",
        costs: Annotated[float, Query(ge=MULTIPLES[0], le=MULTIPLES[-1])] = 1.0,
    ) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        key = (BACKTEST, as_of, portfolio, costs, state.number, sources.stamp(), who(request))
        if key not in kept:
            when = await made(moment_of, as_of, state, sources)
            view = await made(backtest_view, when, portfolio, costs, sources)
            choice = {"portfolio": portfolio, "costs": "" if costs == 1 else f"{costs:g}"}
            chosen = {name: value for name, value in choice.items() if value}
            values = {"view": view, **frame(request, BACKTEST, when, chosen)}
            keep(kept, key, await made(page, "backtest.html", **values))
        return kept[key].response(request, HEADERS)
