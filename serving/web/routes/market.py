"""The page of the market."""

from fastapi import APIRouter, Request, Response

from serving.http.state import answers_of
from serving.web.frame import HEADERS, MARKET, AsOf, frame, keep, made, moment_of, sources_of, who
from serving.web.market import market_view
from serving.web.pages import Encoded, page


def add_market(router: APIRouter) -> None:
    kept: dict[tuple, Encoded] = {}

    @router.api_route(MARKET, methods=["GET", "HEAD"])
    async def market(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        key = (as_of, state.number, sources.stamp(), who(request))
        if key not in kept:
            when = await made(moment_of, as_of, state, sources)
            view = await made(market_view, when, state, sources)
            values = {"market": view, "state": state.number, **frame(request, MARKET, when)}
            keep(kept, key, await made(page, "market.html", **values))
        return kept[key].response(request, HEADERS)
