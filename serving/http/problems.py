"""Everything that can go wrong with a request, as RFC 9457 problem documents."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100
"""Fields named in one answer; a body with thousands of faults is not answered with thousands."""
LONGEST_NAME = 80
"""Characters of a field's name that an answer repeats: clients may make up names of any length."""

KINDS = {
    "malformed-json": (400, "The body is not JSON"),
    "bad-request": (400, "The request cannot be read"),
    "no-key": (401, "A valid API key is needed"),
    "wrong-scope": (403, "The key is not for this"),
    "unknown-symbol": (404, "Unknown symbol"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "The address does not take this method"),
    "slow-body": (408, "The body did not come in time"),
    "stale-features": (409, "The newest features are too old"),
    "suspect-bar": (409, "A newest bar is in doubt"),
    "no-signals": (409, "No signals have been made yet"),
    "body-too-large": (413, "The body is too large"),
    "not-json": (415, "The body's type is not application/json"),
    "wrong-host": (421, "The Host header names another service"),
    "invalid-request": (422, "A field is missing or impossible"),
    "empty-batch": (422, "The batch is empty"),
    "batch-too-large": (422, "The batch is too large"),
    "duplicate-symbol": (422, "A symbol is asked for twice"),
    "too-many-requests": (429, "Too many requests"),
    "internal-error": (500, "A fault of ours"),
    "no-forecast": (500, "The model has no forecast of it"),
    "busy": (503, "Too much waits already"),
    "unavailable": (503, "A part of the service does not answer"),
    "not-ready": (503, "Not ready"),
}
"""Name of a problem's type to its status and title. Types are stable: clients branch on them."""
OF_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}
"""The type of what the framework refuses by itself."""
ANY_KEY = ("no-key", "wrong-host", "too-many-requests", "internal-error")
"""Of every address that a key may be needed for."""
EVERYWHERE = ("wrong-scope", *ANY_KEY)
"""Of an address that a key needs a scope for."""
READS = ("unavailable", *EVERYWHERE)
"""Of an address that needs the market's state or the log."""
BODIES = (
    "malformed-json",
    "slow-body",
    "body-too-large",
    "not-json",
    "invalid-request",
    "empty-batch",
    "batch-too-large",
)
"""Of an address that takes a batch."""


class FieldError(BaseModel):
    field: str = Field(examples=["bars[0].close"])
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457, with the fields at fault and the request's id, which our log has too."""

    type: str = Field(examples=["/problems/unknown-symbol"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """An answer that is an error.

    Args:
        kind: one of KINDS.
        detail: what is wrong with this request, and what to do.
        errors: (field, what is wrong with it); a field is written as `symbols[3]`, `bars[0].close`.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(KINDS[kind][0], detail, dict(headers or {}))
        self.kind = kind
        self.errors = list(errors)

    def described(self) -> dict[str, Any]:
        """The members that it has alone and as one of many in an answer that is a partial success."""
        return _described(self.kind, self.detail)

    def response(self, request_id: str) -> Response:
        document = self.described() | {"status": self.status_code}
        document["request_id"] = request_id
        if self.errors:
            named = [{"field": field, "detail": detail} for field, detail in self.errors[:MAX_ERRORS]]
            document["errors"] = named
        return Response(orjson.dumps(document), self.status_code, self.headers, MEDIA_TYPE)


def _described(kind: str, detail: str) -> dict[str, Any]:
    return {"type": f"/problems/{kind}", "title": KINDS[kind][1], "detail": detail}


def of_exception(error: HTTPException) -> Problem:
    """What the framework raised, as a problem."""
    if isinstance(error, Problem):
        return error
    kind = OF_STATUS.get(error.status_code, "bad-request")
    return Problem(kind, f"{KINDS[kind][1]}.", headers=error.headers)


def of_validation(errors: Iterable[Any]) -> Problem:
    """What pydantic found in a path, query or header, with each field's name."""
    return of_fields([(field_path(error["loc"][1:]), error["msg"]) for error in errors])


def of_fields(found: list[tuple[str, str]], more: bool = False) -> Problem:
    """What is wrong with fields, each by its path.

    Args:
        more: there may be more that was not looked for.
    """
    named = ", ".join(dict.fromkeys(field for field, _ in found[:5]))
    rest = f" and {len(found) - 5:,}{' or' if more else ''} more" if len(found) > 5 else ""
    return Problem("invalid-request", f"See the errors of {named}{rest}.", found)


def field_path(location: Iterable[str | int]) -> str:
    """`bars[0].close` of ("bars", 0, "close"); `body` of ()."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_NAME]}"
    return path.lstrip(".") or "body"


def cause(error: BaseException) -> str:
    """What the operating system said, such as "No space left on device", or "see our log".

    No more of an error goes out: its message may name files and addresses.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    return "see our log"


def declared(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that has these problems, for its OpenAPI document."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        schema = {"$ref": "#/components/schemas/ProblemDocument"}
        new = {"description": "", "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}
        response = responses.setdefault(status, new)
        response["description"] = f"{response['description']}; {title}".lstrip("; ")
        example = _described(kind, f"{title}.") | {"status": status, "request_id": "5e0c2f9b"}
        response["content"][MEDIA_TYPE]["examples"][kind] = {"value": example}
    return responses
