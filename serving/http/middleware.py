"""What every request passes: its id, its host, its key, its limits, its line in the log."""

import base64
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from time import perf_counter
from urllib.parse import quote

import orjson
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.asked import Asked, asked_by
from serving.http.auth import Key, Keys
from serving.http.metrics import Metrics
from serving.http.problems import Problem
from serving.http.rate_limit import RateLimit, limited_body
from serving.settings import ServeParams

Headers = Mapping[bytes, bytes]
OPEN = ("/healthz", "/readyz")
"""For those who watch over the service: no key, any host."""
PUBLIC = ("/login", "/logout", "/static")
"""For a person who has no key yet, with all below them."""
MARKET_PAGES = ("/", "/forecasts", "/symbols", "/portfolio", "/backtest", "/health")
PAGES = (*MARKET_PAGES, "/model")
"""Of the dashboard, with all below them: who has no key is led to its login."""
COOKIE = "pitwise_key"
"""In which a browser keeps the key that a person has logged in with."""
SCOPES = {
    "predict": (
        "/v1/predict",
        "/v1/forecasts",
        "/v1/features",
        "/v1/signals",
        "/v1/risk",
        *MARKET_PAGES,
    ),
    "bars": ("/v1/bars",),
    "model": ("/v1/model", "/model"),
}
"""What a key must be for, and the addresses, with all below them. Others take any key."""
LONGEST_PATH = 500
"""Characters of an address in the log; a client may send many thousands."""
CLIENT_GONE = 499
"""Status, in log and metrics, of a request whose client left before its body was there; as in nginx."""
METHODS = ("GET", "HEAD", "POST", "DELETE")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    # The documentation's pages hold inline scripts and styles. What they may want from elsewhere, the
    # browser does not fetch.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'",
    ),
]
logger = logging.getLogger("pitwise.access")


def presented(headers: Headers) -> str:
    """The key of a request, or "". Basic, with the key as the password, lets browsers ask for it."""
    if b"x-api-key" in headers:
        return headers[b"x-api-key"].decode("latin-1")
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:
            return ""
    return value.strip() if kind.lower() == "bearer" else ""


def logged_in(headers: Headers, method: str) -> str:
    """The key of a browser that has logged in, or "": it reads with it, and can change nothing."""
    if method not in ("GET", "HEAD") or b"cookie" not in headers:
        return ""
    return cookie_parser(headers[b"cookie"].decode("latin-1")).get(COOKIE, "")


def host_name(header: bytes) -> str:
    """The name in a Host header, lower case, without its port and an IPv6 address's brackets."""
    name = header.decode("latin-1").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if ":" in name else name


def is_this_machine(name: str) -> bool:
    """Whether a host's name can only mean the machine that asks, whatever a name server says."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def needed_scope(path: str) -> str | None:
    """What a key must be for at an address; None for any."""
    return next((scope for scope, addresses in SCOPES.items() if is_of(path, addresses)), None)


def is_of(path: str, addresses: tuple[str, ...]) -> bool:
    """Whether a path is one of these addresses, or below one."""
    return any(path == address or path.startswith(f"{address}/") for address in addresses)


class RequestMiddleware:
    """Outermost: nothing of ours runs for a request that it refuses, and no exception passes it."""

    def __init__(
        self, app: ASGIApp, params: ServeParams, keys: Keys, limit: RateLimit, metrics: Metrics
    ):
        self._app = app
        self._keys = keys
        self._max_body_bytes = params.max_body_bytes
        self._hosts = None if params.hosts is None else {host.lower() for host in params.hosts}
        self._own_host = params.host.lower()
        self._limit = limit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = 0
        headers = dict(scope["headers"])
        asked = asked_by(headers)
        scope.setdefault("state", {})["asked"] = asked

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", [])
                names = {name for name, _ in given}
                own = [header for header in HEADERS if header[0] not in names]
                message["headers"] = [*given, *own, (b"x-request-id", asked.request_id.encode())]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            self._admit(scope, headers, asked)
            body = limited_body(headers, receive, self._max_body_bytes)
            await self._app(scope, body, send_with_headers)
        except Problem as problem:
            self._metrics.problems.labels(problem.kind).inc()
            answer = problem.response(asked.request_id)
            if problem.kind == "no-key" and is_of(scope["path"], PAGES):
                answer = _to_login(scope)
            await answer(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception:
            logger.exception("request %s failed", asked.request_id)
            if status:
                raise  # half an answer is out: the server must break the connection
            self._metrics.problems.labels("internal-error").inc()
            fault = Problem("internal-error", f"Our log has it as request {asked.request_id}.")
            await fault.response(asked.request_id)(scope, receive, send_with_headers)
        finally:
            seconds = perf_counter() - asked.started
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            # What a client makes up must not become a time series.
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.request(route, method, status, seconds)
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s", _line(scope, route, status, seconds, asked))
        return None

    def _admit(self, scope: Scope, headers: Headers, asked: Asked) -> None:
        """Fill in who asks.

        Raises:
            Problem: it names another host, has no valid key, or one for something else, or is one too
                many.
        """
        path = scope["path"]
        if path == "/healthz":
            return
        address = scope["client"][0] if scope["client"] else "unknown"
        if path in OPEN:
            # Apart from the rest, so that whoever uses up the limit of an address hides nothing.
            self._limit.hit(f"open, {address}")
            return
        required = self._keys.required
        self._check_host(headers.get(b"host", b""), required)
        if required and is_of(path, PUBLIC):
            self._limit.hit(f"no key, {address}")
            return
        if not required:
            asked.caller = address
            self._limit.hit(address)
            return
        key = self._keys.check(presented(headers) or logged_in(headers, scope["method"]))
        if key is None or key.expired():
            self._limit.hit(f"no key, {address}")
            raise _no_key(key)
        asked.caller, asked.key = key.name, key
        self._limit.hit(f"key {key.name}", key.per_minute, key.per_day)
        scope_needed = needed_scope(path)
        if scope_needed and scope_needed not in key.scopes:
            raise Problem(
                "wrong-scope",
                f"This needs a key with the scope '{scope_needed}'; yours has "
                f"{', '.join(key.scopes)}. Ask whoever runs the service for one.",
            )

    def _check_host(self, header: bytes, keys_required: bool) -> None:
        """A page of another site whose name was made to point here sends that name: it is refused."""
        if self._hosts is None and keys_required:
            return  # a foreign page has no key
        name = host_name(header)
        if self._hosts is not None:
            allowed = name in self._hosts
        else:
            allowed = is_this_machine(name) or name == self._own_host
        if not allowed:
            raise Problem(
                "wrong-host",
                f"The Host header is '{name[:80]}', which is none of this service's names. Use one that "
                "is: a loopback name, or one of serve.hosts in its params.yaml.",
            )


def _to_login(scope: Scope) -> RedirectResponse:
    query = scope["query_string"].decode("latin-1")
    asked_for = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"/login?next={quote(asked_for[:LONGEST_PATH], safe='/')}", 303)


def _no_key(key: Key | None) -> Problem:
    if key is None:
        detail = "Send a valid key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'."
    else:
        detail = f"The key has expired: {key.expires} was its last day. Ask for a new one."
    challenge = 'Bearer realm="pitwise", Basic realm="pitwise"'
    return Problem("no-key", detail, headers={"WWW-Authenticate": challenge})


def _line(scope: Scope, route: str, status: int, seconds: float, asked: Asked) -> str:
    """One JSON object; JSON escapes what could forge a line of its own."""
    line = {
        "request_id": asked.request_id,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "route": route,
        "status": status,
        "ms": round(seconds * 1e3, 2),
        "caller": asked.caller,
        "symbols": asked.symbols,
        "state": asked.state,
    }
    if asked.trace_id:
        line["trace_id"] = asked.trace_id
    return orjson.dumps(line, default=repr).decode()
