"""What every request passes: its id, its key, its limits, its line in the log."""

import base64
import logging
import secrets
from time import perf_counter

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.auth import Keys
from serving.http.metrics import Metrics
from serving.http.problems import Problem
from serving.http.rate_limit import RateLimit, limited_body
from serving.settings import ServeParams

OPEN = ("/healthz", "/readyz")
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


def presented(scope: Scope) -> str:
    """The key of a request, or "". Basic, with the key as the password, lets browsers ask for it."""
    headers = dict(scope["headers"])
    if b"x-api-key" in headers:
        return headers[b"x-api-key"].decode("latin-1")
    kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:
            return ""
    return value.strip() if kind.lower() == "bearer" else ""


class RequestMiddleware:
    """Outermost: nothing of ours runs for a request that it refuses, and no exception passes it."""

    def __init__(self, app: ASGIApp, params: ServeParams, keys: Keys, metrics: Metrics):
        self._app = app
        self._keys = keys
        self._max_body_bytes = params.max_body_bytes
        self._limit = RateLimit(params.requests_per_minute)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status, caller = perf_counter(), 0, ""
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            caller = self._caller(scope)
            await self._app(scope, limited_body(scope, receive, self._max_body_bytes), send_with_headers)
        except Problem as problem:
            self._metrics.problems.labels(problem.kind).inc()
            await problem.response(request_id)(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status:
                raise  # half an answer is out: the server must break the connection
            self._metrics.problems.labels("internal-error").inc()
            fault = Problem("internal-error", f"Our log has it as request {request_id}.")
            await fault.response(request_id)(scope, receive, send_with_headers)
        finally:
            seconds = perf_counter() - started
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(route, _method(scope), status).observe(seconds)
            line = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1e3, 2),
                "caller": caller,
            }
            # JSON escapes what could forge a line of its own.
            logger.info("%s", orjson.dumps(line, default=repr).decode())
        return None

    def _caller(self, scope: Scope) -> str:
        """Who sends it: a key's name, or an address where no key is needed.

        Raises:
            Problem: without a valid key, or one request too many.
        """
        if scope["path"] in OPEN:
            return ""
        address = scope["client"][0] if scope["client"] else "unknown"
        if not self._keys.required:
            self._limit.hit(address)
            return address
        name = self._keys.check(presented(scope))
        if name is None:
            self._limit.hit(f"no key, {address}")
            raise Problem(
                "no-key",
                "Send a valid key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'.",
                headers={"WWW-Authenticate": 'Bearer realm="pitwise", Basic realm="pitwise"'},
            )
        self._limit.hit(f"key {name}")
        return name


def _method(scope: Scope) -> str:
    """A label; what a client makes up must not become a time series."""
    return scope["method"] if scope["method"] in ("GET", "POST") else "other"
