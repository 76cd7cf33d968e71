"""The page of the forecasts, and the same as a file."""

from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from serving.http.asked import asked_of
from serving.http.problems import Problem
from serving.http.rendered import Rendered
from serving.http.routes.history import shown as as_shown
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


def add_forecasts(router: APIRouter) -> None:
    kept: dict[tuple, tuple[Encoded, frozenset[str]]] = {}

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
            body, shown = await made(_forecasts_page, request, market, choice)
            audit_past(request, market, FORECASTS, shown)
            return body.response(request, HEADERS)
        state, rendered, without = answers_of(request).forecasts(None)
        sources = sources_of(request)
        ages = sum(row.age for row in rendered)
        key = (state.number, ages, sources.stamp(), who(request), *choice.values())
        if key not in kept:
            market = await made(market_now, request, state, rendered, without)
            keep(kept, key, await made(_forecasts_page, request, market, choice))
        body, shown = kept[key]
        rows = [row for row in rendered if row.forecast.symbol in shown]
        answers_of(request).show(state, rows, asked_of(request), FORECASTS)
        return body.response(request, HEADERS)

    @router.api_route(FORECASTS + "/csv", methods=["GET", "HEAD"])
    async def forecasts_csv(request: Request, as_of: AsOf = None) -> Response:
        if as_of is None:
            state, rendered, without = answers_of(request).forecasts(None)
            answers_of(request).show(state, rendered, asked_of(request), FORECASTS)
            market = await made(market_now, request, state, rendered, without)
        else:
            market = await market_then(request, as_of)
            audit_past(request, market, FORECASTS)
        rows = table.ordered(await made(table.cells, market), table.DEFAULT_SORT)
        name = f'attachment; filename="forecasts-as-of-{market.moment.day}.csv"'
        file = Encoded(table.as_csv(rows).encode(), "text/csv; charset=utf-8")
        return file.response(request, {"Content-Disposition": name})


def market_now(
    request: Request,
    state: MarketState,
    rendered: list[Rendered],
    without: list[tuple[str, str]],
    only: str | None = None,
) -> table.Market:
    """The market in a state of the service, with its signals."""
    sources, signals = sources_of(request), {}
    with suppress(Problem):  # none have been made: the page says so
        documents = request.app.state.signals.shown(state, rendered)
        signals = {document["symbol"]: document for document in documents}
    when = moment_of(None, state, sources)
    return table.market_now(when, state, rendered, without, sources, signals, only)


async def market_then(request: Request, as_of: str) -> table.Market:
    """The market as of a past day; see `audit_past`."""
    sources, history = sources_of(request), service_of(request).history
    state = answers_of(request).state()
    when = await made(moment_of, as_of, state, sources)
    return await made(table.market_then, when, state.model.kind, horizon_of(state), history, sources)


def audit_past(
    request: Request, market: table.Market, route: str, symbols: frozenset[str] | None = None
) -> None:
    """Write down that forecasts of a past day are shown, those of all symbols where none are named."""
    served = [past for past in market.served if symbols is None or past.symbol in symbols]
    answers_of(request).audit(as_shown(served), asked_of(request), route)


def _forecasts_page(
    request: Request, market: table.Market, choice: dict[str, Any]
) -> tuple[Encoded, frozenset[str]]:
    """The page, and the symbols whose forecasts are on it.

    All are, those that were not chosen hidden, unless the market has more than `ROWS`: of the chosen
    ones as many then.
    """
    cells = table.ordered(table.cells(market), choice["sort"])
    chosen = table.chosen(cells, **{name: choice[name] for name in ("q", "signal", "marked")})
    is_whole, axis = len(cells) <= table.ROWS, reach(market.rows)
    rows = cells if is_whole else chosen[: table.ROWS]
    kept = {name: str(value).lower() if value is True else value for name, value in choice.items()}
    kept = {name: value for name, value in kept.items() if value and value != table.DEFAULT_SORT}
    filters = {name: value for name, value in kept.items() if name != "sort"}
    body = page(
        "forecasts.html",
        market=market,
        cells=[table.drawn(row, market, axis) for row in rows],
        is_whole=is_whole,
        n=len(cells),
        visible={row["symbol"] for row in chosen},
        most=table.ROWS,
        choice=choice,
        views=VIEWS,
        axis=axis,
        scored=any(row.score != row.log_return for row in market.rows),
        reliability=table.reliability(sources_of(request), market),
        filter_query="".join(f"&{urlencode({name: value})}" for name, value in filters.items()),
        as_of_query=market.moment.query.replace("?", "&"),
        **frame(request, FORECASTS, market.moment, kept),
    )
    return body, frozenset(row["symbol"] for row in rows)
