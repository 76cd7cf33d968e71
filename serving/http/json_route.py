"""JSON in and out: how a body is read and bounded, and how a document is sent."""

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from inspect import iscoroutinefunction, signature
from itertools import islice
from typing import Any

import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.problems import MAX_ERRORS, Problem, field_path, of_fields

BODY_SECONDS = 30.0
"""The longest that a body may take to come."""
BIG_BYTES = 64_000
"""A body from here on is parsed in a thread: it would take longer than other requests may wait."""
MAX_FIELDS = 20
"""Of one object; ours have fewer."""
CHUNK = 100
"""Items validated at a time. Between two chunks other threads have their turn."""
ONE_BIG_BODY = CapacityLimiter(1)
"""Big bodies are parsed and validated one at a time, so that their memory is that of one."""


class JsonRoute(APIRoute):
    """A route that answers HEAD where it answers GET, and spares what an endpoint does not use.

    An endpoint that takes nothing but the request is called at once: FastAPI's way to it, for bodies and
    dependencies that it does not have, takes three times as long as a forecast.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if iscoroutinefunction(self.endpoint) and list(signature(self.endpoint).parameters) == [
            "request"
        ]:
            self.app = _direct(self.endpoint)
        self.allowed: set[str] = set(self.methods or ())
        """Methods that its address takes; those of other routes too, see `share_addresses`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD" and "GET" in (self.methods or ()):
            await self.app(scope, receive, send)  # the server sends the head alone
        elif scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed))})
        else:
            await super().handle(scope, receive, send)


def share_addresses(routes: Iterable[BaseRoute]) -> None:
    """Have each route that refuses a method name those that the others at its address take."""
    ours = [route for route in routes if isinstance(route, JsonRoute)]
    for route in ours:
        route.allowed = {method for same in ours if same.path == route.path for method in same.allowed}


def _direct(endpoint: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


async def read_json(request: Request) -> Any:
    """The body of a request. NaN and Infinity pass, so that the validation can name their field.

    Raises:
        Problem: it is not declared as JSON (what a foreign web page may send unasked is refused), does
            not come in time, is no UTF-8, no JSON, or nested too deeply.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("not-json", "Send JSON, with 'Content-Type: application/json'.")
    try:
        async with asyncio.timeout(BODY_SECONDS):  # a tenth of the cost of anyio's
            body = await request.body()
    except TimeoutError as error:
        raise Problem(
            "slow-body",
            f"The body did not come within {BODY_SECONDS:.0f} s.",
            headers={"Connection": "close"},
        ) from error
    try:
        if len(body) < BIG_BYTES:
            return from_json(body, allow_inf_nan=True)
        return await to_thread.run_sync(_parsed, body, limiter=ONE_BIG_BODY)
    except ValueError as error:
        raise Problem("malformed-json", f"The body cannot be parsed: {error}.") from error


def _parsed(body: bytes) -> Any:
    return from_json(body, allow_inf_nan=True, cache_strings="keys")


def batch_of(document: Any, field: str, most: int) -> list[Any]:
    """The one list that a body holds: counted before any item of it is looked at.

    Raises:
        Problem: it is something else, has other fields, or has no item or more than `most` (422).
    """
    if not isinstance(document, dict):
        raise of_fields([("body", "Input should be an object")])
    found = [
        (field_path([name]), "Extra inputs are not permitted")
        for name in islice(document, MAX_ERRORS + 1)
        if name != field
    ]
    if field not in document:
        found.insert(0, (field, "Field required"))
    elif not isinstance(document[field], list):
        found.insert(0, (field, "Input should be a valid list"))
    if found:
        raise of_fields(found[:MAX_ERRORS], more=len(document) > MAX_ERRORS)
    batch = document[field]
    if not batch:
        raise Problem("empty-batch", f"Ask for 1 to {most:,}.", [(field, "is empty")])
    if len(batch) > most:
        size = f"has {len(batch):,} of at most {most:,}"
        raise Problem("batch-too-large", f"Ask for at most {most:,} at a time.", [(field, size)])
    return batch


def validated(batch: Sequence[Any], field: str, items: TypeAdapter[list[Any]]) -> list[Any]:
    """The items of a batch as their type has them.

    Raises:
        Problem: some are not of it (422). It names 100 faults; the rest is not looked at.
    """
    good: list[Any] = []
    found: list[tuple[str, str]] = []
    for start in range(0, len(batch), CHUNK):
        if len(found) >= MAX_ERRORS:
            break
        chunk = batch[start : start + CHUNK]
        wide = [
            (start + i, len(item))
            for i, item in enumerate(chunk)
            if isinstance(item, dict) and len(item) > MAX_FIELDS
        ]
        if wide:
            found += [(f"{field}[{i}]", f"has {fields:,} fields") for i, fields in wide]
            continue
        try:
            good += items.validate_python(chunk)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False, include_input=False):
                index, *rest = fault["loc"]
                found.append((field_path([field, start + int(index), *rest]), fault["msg"]))
    if found:
        raise of_fields(found[:MAX_ERRORS], more=len(found) >= MAX_ERRORS)
    return good


def json_response(document: Any) -> Response:
    """A document as it is; a Response passes FastAPI without being validated once more."""
    return Response(orjson.dumps(document, default=str), media_type="application/json")


def tagged_response(request: Request, body: bytes) -> Response:
    """JSON with its ETag, or 304 without it where the client has it already (RFC 9110, 13.1.2).

    The tag is a hash of the body's bytes: the same tag, the same bytes.
    """
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}  # kept, and asked about each time
    held = request.headers.get("if-none-match")
    if held is not None and (held.strip() == "*" or tag in _tags(held)):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _tags(header: str) -> list[str]:
    """Entity tags of a header; a weak one means the same here."""
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]
