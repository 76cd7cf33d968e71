"""The page of the forecasts, and the same as a file."""

from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query, Request, Response

from serving.http.asked import asked_of
from serving.http.problems import Problem
from serving.http.rendered import Rendered
from serving.http.routes.history import shown
from serving.http.state import answers_of, service_of
from serving.state.market import MarketState
from serving.web import forecasts as table
from serving.web.frame import (
    FORECASTS,
    HEADERS,
    AsOf,
    frame,
    horizon_of,
    keep,
    made,
    moment_of,
    sources_of,
    who,
)
from serving.web.outlook import reach
from serving.web.pages import Encoded, page

VIEWS = {
    "Strongest": "sort=-expected",
    "Weakest": "sort=expected",
    "Surest": "sort=-confidence",
    "With a note": "marked=true",
}.items()
"""Views of the table, and what the address says of them."""
Sort = Annotated[str, Query(pattern=f"^-?({'|'.join(table.SORTS)})$")]


def add_forecasts(router: APIRouter, kept: dict[tuple, Encoded]) -> None:
    @router.api_route(FORECASTS, methods=["GET", "HEAD"])
    async def forecasts(
        request: Request,
        as_of: AsOf = None,
        sort: Sort = table.DEFAULT_SORT,
        q: Annotated[str, Query(max_length=64)] = "",
        signal: Literal["", "BUY", "HOLD", "SELL"] = "",
        marked: bool = False,
    ) -> Response:
        choice = {"sort": sort, "q": q, "signal": signal, "marked": marked}
        if as_of is not None:
            market = await market_then(request, as_of)
            body = await made(_forecasts_page, request, market, choice)
            return body.response(request, HEADERS)
        state, rendered, without = answers_of(request).forecasts(None, asked_of(request), FORECASTS)
        sources = sources_of(request)
        ages = sum(row.age for row in rendered)
        key = (state.number, ages, sources.stamp(), who(request), *choice.values())
        if key not in kept:
            market = await made(market_now, request, state, rendered, without)
            body = await made(_forecasts_page, request, market, choice)
            keep(kept, key, body)
        return kept[key].response(request, HEADERS)

    @router.api_route(FORECASTS + "/csv", methods=["GET", "HEAD"])
    async def forecasts_csv(request: Request, as_of: AsOf = None) -> Response:
        if as_of is None:
            found = answers_of(request).forecasts(None, asked_of(request), FORECASTS)
            market = await made(market_now, request, *found)
        else:
            market = await market_then(request, as_of)
        rows = table.ordered(await made(table.cells, market), table.DEFAULT_SORT)
        name = f'attachment; filename="forecasts-as-of-{market.moment.day}.csv"'
        file = Encoded(table.as_csv(rows).encode(), "text/csv; charset=utf-8")
        return file.response(request, {"Content-Disposition": name})


def market_now(
    request: Request, state: MarketState, rendered: list[Rendered], without: list[tuple[str, str]]
) -> table.Market:
    """The market in a state of the service, with its signals."""
    sources, signals = sources_of(request), {}
    with suppress(Problem):  # none have been made: the page says so
        documents = map(orjson.loads, request.app.state.signals.of(state, rendered))
        signals = {document["symbol"]: document for document in documents}
    when = moment_of(None, state, sources)
    return table.market_now(when, state, rendered, without, sources, signals)


async def market_then(request: Request, as_of: str) -> table.Market:
    """The market as of a past day; what was served then is written down as shown."""
    answers, sources, service = answers_of(request), sources_of(request), service_of(request)
    state = answers.state()
    when = await made(moment_of, as_of, state, sources)
    market = await made(
        table.market_then, when, state.model.kind, horizon_of(state), service.history, sources
    )
    answers.audit(shown(list(market.served)), asked_of(request), FORECASTS)
    return market


def _forecasts_page(request: Request, market: table.Market, choice: dict[str, Any]) -> Encoded:
    cells = table.ordered(table.cells(market), choice["sort"])
    picked = {name: choice[name] for name in ("q", "signal", "marked")}
    visible = {row["symbol"] for row in table.chosen(cells, **picked)}
    kept = {name: str(value).lower() if value is True else value for name, value in choice.items()}
    kept = {name: value for name, value in kept.items() if value and value != table.DEFAULT_SORT}
    filters = {name: value for name, value in kept.items() if name != "sort"}
    return page(
        "forecasts.html",
        market=market,
        cells=cells,
        visible=visible,
        choice=choice,
        views=VIEWS,
        axis=reach(market.rows),
        scored=any(row.score != row.log_return for row in market.rows),
        reliability=table.reliability(sources_of(request), market),
        filter_query="".join(f"&{urlencode({name: value})}" for name, value in filters.items()),
        as_of_query=market.moment.query.replace("?", "&"),
        **frame(request, FORECASTS, market.moment, kept),
    )
