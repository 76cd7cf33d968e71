"""The addresses of the dashboard's pages."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from logging import getLogger
from typing import Annotated, Any, Literal, ParamSpec, TypeVar
from urllib.parse import parse_qs, quote, urlencode

import anyio
import numpy as np
import orjson
from anyio import CapacityLimiter, to_process, to_thread
from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from pydantic import StringConstraints
from sse_starlette import ServerSentEvent

from pitwise.errors import DataError, StoreError
from serving.http.answers import RETRY, unavailable_if_failing
from serving.http.asked import asked_of
from serving.http.auth import Keys
from serving.http.middleware import COOKIE, needed_scope
from serving.http.problems import Problem, cause, of_validation
from serving.http.rendered import Rendered
from serving.http.routes import risk
from serving.http.routes.history import SECONDS, shown
from serving.http.routes.stream import LOOK_SECONDS, Stream, Streams, check_key
from serving.http.schemas import Day
from serving.http.state import answers_of, metrics_of, service_of
from serving.state.market import MarketState
from serving.web import forecasts as table
from serving.web.backtest import MULTIPLES, backtest_view
from serving.web.health import health, live_facts
from serving.web.market import market_view
from serving.web.model import model_view
from serving.web.moment import Moment, moment
from serving.web.outlook import reach
from serving.web.pages import POLICY, STATIC, Encoded, in_parts, page, static_files
from serving.web.portfolio import STRATEGIES, holdings_of, portfolio_view
from serving.web.portfolio_of import Asked, Strategy, portfolio_in_worker
from serving.web.sources import Sources
from serving.web.symbol import MOST, features_by_session, symbol_view

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
VIEWS = {
    "Strongest": "sort=-expected",
    "Weakest": "sort=expected",
    "Surest": "sort=-confidence",
    "With a note": "marked=true",
}.items()
"""Views of the table, and what the address says of them."""
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
SHUT_OFF = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Content security policy of a report, which has inline scripts and styles: it is of no origin, so that
it knows no cookie, and asks for nothing."""
KEPT = 32
"""Rendered pages of the market and its forecasts: what they show is in their key."""
SHOWN = rf"^([a-z0-9_]{{1,40}}(,[a-z0-9_]{{1,40}}){{0,{MOST - 1}}})?$"
FeatureName = Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")]
LONGEST_HOLDINGS = 20_000
"""Characters of the holdings in an address: 1,000 lines and more."""
FIGURES = b"<!-- figures -->"
"""What the page of a portfolio waits for begins here."""
LONGEST_FORM = 2000
"""Bytes of a form; ours has a key and an address."""
Sort = Annotated[str, Query(pattern=f"^-?({'|'.join(table.SORTS)})$")]
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
            body = page("problem.html", problem=problem, **_frame(request, "", None))
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


def add_web(app: FastAPI, keys: Keys) -> None:
    """Have an app serve the pages.

    Args:
        keys: those of the service: where there are some, a person gives one to log in.
    """
    router = APIRouter(route_class=PageRoute, include_in_schema=False)
    _add_pages(router)
    _add_decisions(router)
    _add_health(router, keys)
    _add_login(router, keys)
    app.include_router(router)


def _add_pages(router: APIRouter) -> None:
    kept: dict[tuple, Encoded] = {}

    @router.api_route(MARKET, methods=["GET", "HEAD"])
    async def market(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        key = (as_of, state.number, sources.stamp(), _who(request))
        if key not in kept:
            when = await made(_moment, as_of, state, sources)
            view = await made(market_view, when, state, sources)
            values = {"market": view, "state": state.number, **_frame(request, MARKET, when)}
            _keep(kept, key, await made(page, "market.html", **values))
        return kept[key].response(request, HEADERS)

    @router.api_route(STATIC + "/{path:path}", methods=["GET", "HEAD"])
    async def static(request: Request, path: str) -> Response:
        file = static_files().get(path)
        if file is None:
            raise Problem("not-found", "The pages load no such file.")
        return file.response(request, kept="public, max-age=31536000, immutable")

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
            market = await _market_then(request, as_of)
            body = await made(_forecasts_page, request, market, choice)
            return body.response(request, HEADERS)
        state, rendered, without = answers_of(request).forecasts(None, asked_of(request), FORECASTS)
        sources = sources_of(request)
        ages = sum(row.age for row in rendered)
        key = (state.number, ages, sources.stamp(), _who(request), *choice.values())
        if key not in kept:
            market = await made(_market_now, request, state, rendered, without)
            body = await made(_forecasts_page, request, market, choice)
            _keep(kept, key, body)
        return kept[key].response(request, HEADERS)

    @router.api_route(FORECASTS + "/csv", methods=["GET", "HEAD"])
    async def forecasts_csv(request: Request, as_of: AsOf = None) -> Response:
        if as_of is None:
            found = answers_of(request).forecasts(None, asked_of(request), FORECASTS)
            market = await made(_market_now, request, *found)
        else:
            market = await _market_then(request, as_of)
        rows = table.ordered(await made(table.cells, market), table.DEFAULT_SORT)
        name = f'attachment; filename="forecasts-as-of-{market.moment.day}.csv"'
        file = Encoded(table.as_csv(rows).encode(), "text/csv; charset=utf-8")
        return file.response(request, {"Content-Disposition": name})

    @router.get(SYMBOL + "/features")
    async def features(
        request: Request,
        symbol: Annotated[str, Path(max_length=64)],
        name: Annotated[list[FeatureName], Query(min_length=1, max_length=MOST)],
        as_of: AsOf = None,
    ) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(_moment, as_of, state, sources)
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
            state, rendered, without = answers.forecasts([symbol], asked, SYMBOL)
            market = await made(_market_now, request, state, rendered, without)
            when = market.moment
        else:
            state = answers.state()
            when = await made(_moment, as_of, state, sources)
            market = await made(
                table.market_then, when, state.model.kind, _horizon(state), history, sources, symbol
            )
        view = await made(symbol_view, symbol, market, state, history, sources)
        if view is None:
            raise Problem(
                "unknown-symbol", f"Nothing is known of it at {when.day}.", [("symbol", "is unknown")]
            )
        answers.audit(view.pop("audited"), asked, SYMBOL)
        kept = {"show": show} if show else {}
        body = await made(page, "symbol.html", **view, **_frame(request, FORECASTS, when, kept))
        return body.response(request, HEADERS)


def _add_decisions(router: APIRouter) -> None:
    kept: dict[tuple, Encoded] = {}
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
        key = (PORTFOLIO, as_of, state.number, sources.stamp(), _who(request), *choice.values())
        if key in kept:
            return kept[key].response(request, HEADERS)
        when = await made(_moment, as_of, state, sources)
        kept_choice = {name: str(given) for name, given in choice.items()} if holdings.strip() else {}
        frame = {"choice": choice, "by": by, "strategies": STRATEGIES}
        frame |= _frame(request, PORTFOLIO, when, kept_choice)

        async def whole(document: dict[str, Any] | None, said: str = "", misread: str = "") -> Encoded:
            view = None if said or misread else await made(portfolio_view, when, document, sources)
            told = {"view": view, "said": said, "misread": misread, **frame}
            return await made(page, "portfolio.html", **told)

        if not holdings.strip():
            _keep(kept, key, await whole(None))
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
                _keep(kept, key, body)
            except (DataError, Problem) as error:
                body = await whole(None, said=getattr(error, "detail", str(error)))
            yield body.body.partition(FIGURES)[2]

        return in_parts(request, parts(), HEADERS)

    @router.api_route(BACKTEST, methods=["GET", "HEAD"])
    async def backtest(
        request: Request,
        as_of: AsOf = None,
        portfolio: Annotated[str, Query(max_length=64)] = "",
        costs: Annotated[float, Query(ge=MULTIPLES[0], le=MULTIPLES[-1])] = 1.0,
    ) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        key = (BACKTEST, as_of, portfolio, costs, state.number, sources.stamp(), _who(request))
        if key not in kept:
            when = await made(_moment, as_of, state, sources)
            view = await made(backtest_view, when, portfolio, costs, sources)
            choice = {"portfolio": portfolio, "costs": "" if costs == 1 else f"{costs:g}"}
            chosen = {name: value for name, value in choice.items() if value}
            values = {"view": view, **_frame(request, BACKTEST, when, chosen)}
            _keep(kept, key, await made(page, "backtest.html", **values))
        return kept[key].response(request, HEADERS)


async def _forecasts_by(request: Request, as_of: str | None) -> tuple[dict[str, tuple], str]:
    """By symbol what `portfolio_of` wants, and who forecast it; written down as shown."""
    if as_of is not None:
        market = await _market_then(request, as_of)
        said = {row.symbol: (row.log_return, row.score, row.horizon, None) for row in market.rows}
        return said, market.by
    with suppress(Problem):  # no symbol has one: the page says so
        state, found, _ = answers_of(request).forecasts(None, asked_of(request), PORTFOLIO)
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


def _keep(kept: dict[tuple, Encoded], key: tuple, body: Encoded) -> None:
    """Keep a page in the place of the oldest one."""
    while len(kept) >= KEPT:
        kept.pop(next(iter(kept)))
    kept[key] = body


def _who(request: Request) -> str:
    """Whose name stands on the page."""
    key = asked_of(request).key
    return key.name if key else ""


def _add_health(router: APIRouter, keys: Keys) -> None:
    streams = Streams()

    @router.api_route(HEALTH, methods=["GET", "HEAD"])
    async def show(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(_moment, as_of, state, sources)
        service, metrics = service_of(request), metrics_of(request)
        view = await made(health, when, state, service, sources, metrics)
        body = await made(page, "health.html", **view, **_frame(request, HEALTH, when))
        return body.response(request, HEADERS)

    @router.api_route(MODEL, methods=["GET", "HEAD"])
    async def model(request: Request, as_of: AsOf = None) -> Response:
        state, sources = answers_of(request).state(), sources_of(request)
        when = await made(_moment, as_of, state, sources)
        view = await made(model_view, when, state, sources)
        body = await made(page, "model.html", **view, **_frame(request, MODEL, when))
        return body.response(request, HEADERS)

    @router.api_route(HEALTH + "/reports/{name}", methods=["GET", "HEAD"])
    async def report(request: Request, name: str) -> Response:
        body = await made(sources_of(request).page, name)
        if body is None:
            raise Problem("not-found", f"There is no report '{name[:40]}' yet: run `pitwise run`.")
        return body.response(request, {"Content-Security-Policy": SHUT_OFF})

    @router.get(HEALTH + "/stream")
    async def stream(request: Request) -> Response:
        streams.check_room()
        ending = anyio.Event()
        return Stream(_changes(request, keys, ending), ending, streams, metrics_of(request).streams)


async def _changes(request: Request, keys: Keys, ending: anyio.Event) -> AsyncIterator[ServerSentEvent]:
    """An event `state` for the market's state now and each one after it."""
    seen: MarketState | None = None
    while not (ending.is_set() or request.app.state.ending.is_set()):
        try:
            check_key(keys, asked_of(request))
            state = answers_of(request).state()
        except Problem:
            return
        if seen is None or state.number != seen.number:
            facts = orjson.dumps(live_facts(state, seen)).decode()
            yield ServerSentEvent(facts, event="state", id=str(state.number))
            seen = state
        await anyio.sleep(LOOK_SECONDS)


def _add_login(router: APIRouter, keys: Keys) -> None:
    @router.api_route("/login", methods=["GET", "HEAD"])
    async def ask(request: Request, next: str = FORECASTS) -> Response:
        if not keys.required:
            return RedirectResponse(_own(next), 303)
        return page("login.html", next=_own(next), said="").response(request, HEADERS)

    @router.post("/login")
    async def login(request: Request) -> Response:
        body = await request.body()
        form = parse_qs(body[:LONGEST_FORM].decode("utf-8", "replace"))
        given, to = (form.get(name, [""])[0] for name in ("key", "next"))
        key = keys.check(given.strip())
        if key is None or key.expired() or needed_scope(FORECASTS) not in key.scopes:
            said = "This is no valid key."
            if key is not None:
                said = (
                    f"The key has expired: {key.expires} was its last day."
                    if key.expired()
                    else f"The pages need a key with the scope '{needed_scope(FORECASTS)}'."
                )
            return page("login.html", next=_own(to), said=said).response(request, HEADERS, 401)
        answer = RedirectResponse(_own(to), 303)
        answer.set_cookie(
            COOKIE, given.strip(), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _own(address: str) -> str:
    """An address of ours: what a link may have put into `next` leads nowhere else."""
    is_path = address.startswith("/") and address[1:2] not in ("/", "\\")
    return quote(address, safe="/?=&%-._~") if is_path else FORECASTS


def sources_of(request: Request) -> Sources:
    return request.app.state.sources


def _horizon(state: MarketState) -> int:
    return next((forecast.horizon for forecast in state.forecasts.values()), 1)


def _moment(as_of: str | None, state: MarketState, sources: Sources) -> Moment:
    bars = sources.bars()
    sessions = bars.sessions if bars else np.empty(0, "datetime64[D]")
    return moment(as_of, state.newest_close[:10], sessions)


def _market_now(
    request: Request, state: MarketState, rendered: list[Rendered], without: list[tuple[str, str]]
) -> table.Market:
    sources, signals = sources_of(request), {}
    with suppress(Problem):  # none have been made: the page says so
        documents = map(orjson.loads, request.app.state.signals.of(state, rendered))
        signals = {document["symbol"]: document for document in documents}
    when = _moment(None, state, sources)
    return table.market_now(when, state, rendered, without, sources, signals)


async def _market_then(request: Request, as_of: str) -> table.Market:
    """The market as of a past day; what was served then is written down as shown."""
    answers, sources, service = answers_of(request), sources_of(request), service_of(request)
    state = answers.state()
    when = await made(_moment, as_of, state, sources)
    market = await made(
        table.market_then, when, state.model.kind, _horizon(state), service.history, sources
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
        **_frame(request, FORECASTS, market.moment, kept),
    )


def _frame(
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
        "login": _who(request),
    }
