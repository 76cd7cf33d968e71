"""The page of a symbol, and its features session by session."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import StringConstraints

from serving.http.asked import asked_of
from serving.http.problems import Problem
from serving.http.state import answers_of, service_of
from serving.web import forecasts as table
from serving.web.frame import (
    FORECASTS,
    HEADERS,
    SYMBOL,
    AsOf,
    frame,
    horizon_of,
    made,
    moment_of,
    sources_of,
)
from serving.web.pages import page
from serving.web.routes.forecasts import market_now
from serving.web.symbol import MOST, features_by_session, symbol_view

SHOWN = rf"^([a-z0-9_]{{1,40}}(,[a-z0-9_]{{1,40}}){{0,{MOST - 1}}})?$"
FeatureName = Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")]


def add_symbol(router: APIRouter) -> None:
    @router.get(SYMBOL + "/features")
    async def features(
        request: Request,
        symbol: Annotated[str, Path(max_length=64)],
        name: Annotated[list[FeatureName], Query(min_length=1, max_length=MOST)],
        as_of: AsOf = None,
    ) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(moment_of, as_of, state, sources)
        series = await made(features_by_session, symbol, name, when, state, sources)
        if series is None:
            raise Problem("invalid-request", "There is no such feature.", [("name", "is unknown")])
        return Response(orjson.dumps(series), media_type="application/json")

    @router.api_route(SYMBOL, methods=["GET", "HEAD"])
    async def symbol(
        request: Request,
        symbol: Annotated[str, Path(max_length=64)],
        as_of: AsOf = None,
        show: Annotated[str, Query(pattern=SHOWN)] = "",
    ) -> Response:
        answers, asked, sources = answers_of(request), asked_of(request), sources_of(request)
        history = service_of(request).history
        if as_of is None:
            state, rendered, without = answers.forecasts([symbol])
            answers.show(state, rendered, asked, SYMBOL)
            market = await made(market_now, request, state, rendered, without, symbol)
            when = market.moment
        else:
            state = answers.state()
            when = await made(moment_of, as_of, state, sources)
            market = await made(
                table.market_then, when, state.model.kind, horizon_of(state), history, sources, symbol
            )
        view = await made(symbol_view, symbol, market, state, history, sources)
        if view is None:
            raise Problem(
                "unknown-symbol", f"Nothing is known of it at {when.day}.", [("symbol", "is unknown")]
            )
        answers.audit(view.pop("audited"), asked, SYMBOL)
        kept = {"show": show} if show else {}
        body = await made(page, "symbol.html", **view, **frame(request, FORECASTS, when, kept))
        return body.response(request, HEADERS)
