"""The page of a portfolio: its risk and what to do with it, which a worker tells."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal

import anyio
import orjson
from anyio import CapacityLimiter, to_process
from fastapi import APIRouter, Query, Request, Response

from pitwise.errors import DataError
from serving.http.answers import unavailable_if_failing
from serving.http.asked import asked_of
from serving.http.problems import Problem
from serving.http.routes import risk
from serving.http.state import answers_of, service_of
from serving.web.frame import HEADERS, PORTFOLIO, AsOf, frame, keep, made, moment_of, sources_of, who
from serving.web.pages import Encoded, in_parts, page
from serving.web.portfolio import STRATEGIES, holdings_of, portfolio_view
from serving.web.portfolio_of import Asked, Strategy, portfolio_in_worker
from serving.web.routes.forecasts import audit_past, market_then

LONGEST_HOLDINGS = 20_000
"""Characters of the holdings in an address: 1,000 lines and more."""
FIGURES = b"<!-- figures -->"
"""What the page of a portfolio waits for begins here."""


def add_portfolio(router: APIRouter, kept: dict[tuple, Encoded]) -> None:
    one_at_a_time = CapacityLimiter(1)

    @router.api_route(PORTFOLIO, methods=["GET", "HEAD"])
    async def portfolio(
        request: Request,
        as_of: AsOf = None,
        holdings: Annotated[str, Query(max_length=LONGEST_HOLDINGS)] = "",
        kind: Literal["shares", "weight"] = "shares",
        value: Annotated[float, Query(gt=0, le=1e15, allow_inf_nan=False)] = 1e6,
        cash: Annotated[float, Query(ge=0, le=1e15, allow_inf_nan=False)] = 0.0,
        strategy: Strategy = "top",
    ) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        choice = {"holdings": holdings, "kind": kind, "value": value, "cash": cash, "strategy": strategy}
        forecasts: dict[str, tuple] = {}
        by = ""
        if holdings.strip() and strategy != "none":
            forecasts, by = await _forecasts_by(request, as_of)
        key = (PORTFOLIO, as_of, state.number, sources.stamp(), who(request), *choice.values())
        if key in kept:
            return kept[key].response(request, HEADERS)
        when = await made(moment_of, as_of, state, sources)
        kept_choice = {name: str(given) for name, given in choice.items()} if holdings.strip() else {}
        around = {"choice": choice, "by": by, "strategies": STRATEGIES}
        around |= frame(request, PORTFOLIO, when, kept_choice)

        async def whole(document: dict[str, Any] | None, said: str = "", misread: str = "") -> Encoded:
            view = None if said or misread else await made(portfolio_view, when, document, sources)
            told = {"view": view, "said": said, "misread": misread, **around}
            return await made(page, "portfolio.html", **told)

        if not holdings.strip():
            keep(kept, key, await whole(None))
            return kept[key].response(request, HEADERS)
        try:
            held, kind = holdings_of(holdings, kind)
        except DataError as error:
            return (await whole(None, misread=str(error))).response(request, HEADERS, 422)
        asked = Asked(tuple(held.items()), kind, value, cash, strategy, when.instant)

        async def parts() -> AsyncIterator[bytes]:
            """The page's top at once, and below it what a worker takes a second to tell."""
            top = await whole(None, said=" ")
            yield b"".join(top.body.partition(FIGURES)[:2])
            try:
                document = await _of_worker(request, asked, forecasts, one_at_a_time)
                body = await whole(document)
                keep(kept, key, body)
            except (DataError, Problem) as error:
                body = await whole(None, said=getattr(error, "detail", str(error)))
            yield body.body.partition(FIGURES)[2]

        return in_parts(request, parts(), HEADERS)


async def _forecasts_by(request: Request, as_of: str | None) -> tuple[dict[str, tuple], str]:
    """By symbol what `portfolio_of` wants, and who forecast it; written down as shown."""
    if as_of is not None:
        market = await market_then(request, as_of)
        audit_past(request, market, PORTFOLIO)
        said = {row.symbol: (row.log_return, row.score, row.horizon, None) for row in market.rows}
        return said, market.by
    with suppress(Problem):  # no symbol has one: the page says so
        state, found, _ = answers_of(request).forecasts(None)
        answers_of(request).show(state, found, asked_of(request), PORTFOLIO)
        live = [row.forecast for row in found]
        rows = {one.symbol: (one.log_return, one.score, one.horizon, one.suspect) for one in live}
        return rows, f"version {state.model.version} ({state.model.kind})"
    return {}, ""


async def _of_worker(
    request: Request, asked: Asked, forecasts: dict[str, tuple], limiter: CapacityLimiter
) -> dict[str, Any]:
    """What a process of its own tells of a portfolio.

    Raises:
        DataError: it is none whose risk can be told.
        Problem: the service has no workspace, or the worker fails or is not done in time (503).
    """
    workspace = service_of(request).workspace
    if workspace is None:
        raise Problem("unavailable", "This service has no bars to tell a risk from.")
    if limiter.statistics().tasks_waiting >= risk.WAITING:
        raise Problem("busy", f"{risk.WAITING} reports wait already. Try again later.")
    asked_of(request).symbols += len(asked.held)
    fault = None
    try:
        with anyio.fail_after(risk.SECONDS), unavailable_if_failing("risk report", "Try again."):
            try:
                body = await to_process.run_sync(
                    portfolio_in_worker,
                    str(workspace.root),
                    asked,
                    forecasts,
                    cancellable=True,
                    limiter=limiter,
                )
            except DataError as error:
                fault = error
    except TimeoutError as error:
        detail = f"The report was not there within {risk.SECONDS:.0f} s. Try again later."
        raise Problem("busy", detail, headers=risk.RETRY) from error
    if fault:
        raise fault
    return orjson.loads(body)
