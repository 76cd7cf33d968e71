"""What every page of the dashboard has: its addresses, the frame around it, how it is made and kept."""

from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Annotated, Any, ParamSpec, TypeVar
from urllib.parse import urlencode

import anyio
import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from pitwise.errors import StoreError
from serving.http.answers import RETRY
from serving.http.asked import asked_of
from serving.http.middleware import needed_scope
from serving.http.problems import Problem, cause, of_validation
from serving.http.routes.history import SECONDS
from serving.http.schemas import Day
from serving.http.state import metrics_of
from serving.state.market import MarketState
from serving.web.moment import Moment, moment
from serving.web.pages import POLICY, page
from serving.web.sources import Sources

MARKET, FORECASTS, SYMBOL, HEALTH = "/", "/forecasts", "/symbols/{symbol}", "/health"
PORTFOLIO, BACKTEST, MODEL = "/portfolio", "/backtest", "/model"
PAGES = {
    "Market": MARKET,
    "Forecasts": FORECASTS,
    "Portfolio": PORTFOLIO,
    "Backtest": BACKTEST,
    "Model": MODEL,
    "Health": HEALTH,
}
"""The navigation: name to address."""
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
KEPT = 32
"""Rendered pages that are kept together: what they show is in their key."""
P = ParamSpec("P")
T = TypeVar("T")
_two_at_a_time = CapacityLimiter(2)
logger = getLogger("pitwise.serving")
AsOf = Annotated[Day | None, Query(description="As known at the end of this day, UTC.")]


class PageRoute(APIRoute):
    """A route for people: it is in no schema, answers HEAD, and shows a problem as a page."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                problem = of_validation(error.errors())
            except Problem as raised:
                problem = raised
            metrics_of(request).problems.labels(problem.kind).inc()
            body = page("problem.html", problem=problem, **frame(request, "", None))
            return body.response(request, HEADERS, problem.status_code)

        return handle


async def made(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function that reads files or the log returns, from a thread, and two at a time.

    Raises:
        Problem: a file or the log does not answer, or not in time (503).
    """
    try:
        with anyio.fail_after(SECONDS):
            return await to_thread.run_sync(
                lambda: make(*args, **kwargs), limiter=_two_at_a_time, abandon_on_cancel=True
            )
    except StoreError as error:
        logger.exception("a page cannot be made")
        detail = f"A file or the log does not answer ({cause(error)}). Try again."
        raise Problem("unavailable", detail, headers=RETRY) from error
    except TimeoutError as error:
        detail = f"The page was not made within {SECONDS:.0f} s. Try again later."
        raise Problem("busy", detail, headers={"Retry-After": "5"}) from error


def sources_of(request: Request) -> Sources:
    return request.app.state.sources


def horizon_of(state: MarketState) -> int:
    return next((forecast.horizon for forecast in state.forecasts.values()), 1)


def moment_of(as_of: str | None, state: MarketState, sources: Sources) -> Moment:
    bars = sources.bars()
    sessions = bars.sessions if bars else np.empty(0, "datetime64[D]")
    return moment(as_of, state.newest_close[:10], sessions)


def who(request: Request) -> str:
    """Whose name stands on the page."""
    key = asked_of(request).key
    return key.name if key else ""


def keep(kept: dict[tuple, T], key: tuple, body: T) -> None:
    """Keep a page, in the place of the oldest one where there are `KEPT`.

    Args:
        kept: pages by all that they show.
        body: the page, and what its route needs of it.
    """
    while len(kept) >= KEPT:
        kept.pop(next(iter(kept)))
    kept[key] = body


def frame(
    request: Request, here: str, when: Moment | None, kept: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What every page has around its own.

    Args:
        here: address of the page in the navigation.
        kept: what the address says besides the moment, and goes on saying at another moment.
    """
    kept, key = kept or {}, asked_of(request).key
    scopes = key.scopes if key else ()
    pages = {name: at for name, at in PAGES.items() if not key or needed_scope(at) in scopes}
    return {
        "pages": pages,
        "here": here,
        "address": request.url.path,
        "kept": kept,
        "kept_query": "".join(f"&{urlencode({name: value})}" for name, value in kept.items()),
        "when": when,
        "login": who(request),
    }
