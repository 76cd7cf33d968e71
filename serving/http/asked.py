"""What is known of a request besides its body: who asks, since when, and what it was answered."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

from fastapi import Request

from serving.http.auth import Key

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,64}")
"""Ids that are taken over: no character of theirs means anything to a log or a database."""
TRACE_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""Version, trace id, parent id and flags; https://www.w3.org/TR/trace-context/#traceparent-header"""


@dataclass(slots=True)
class Asked:
    """One request, as its line in the log and the audit trail tell of it."""

    request_id: str
    trace_id: str | None
    """Of the trace that the client says it belongs to, 32 hex digits."""
    started: float = field(default_factory=perf_counter)
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    caller: str = ""
    """A key's name, or an address where no key is needed."""
    key: Key | None = None
    symbols: int = 0
    """Answered so far."""
    state: int | None = None
    """Number of the market state that the last answer was made of."""

    @property
    def milliseconds(self) -> float:
        """Since it came."""
        return (perf_counter() - self.started) * 1e3


def asked_by(headers: Mapping[bytes, bytes]) -> Asked:
    """A request with its client's ids, where those are sane, and else with one of ours."""
    given = headers.get(b"x-request-id", b"")
    request_id = given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    parent = headers.get(b"traceparent")
    return Asked(request_id, trace_id(parent) if parent else None)


def trace_id(parent: bytes) -> str | None:
    """The trace id of a `traceparent` header; None where the header is not valid."""
    found = TRACE_PARENT.fullmatch(parent)
    if not found:
        return None
    version, trace, span, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not (trace.strip(b"0") and span.strip(b"0")):
        return None
    return trace.decode()


def asked_of(request: Request) -> Asked:
    return request.scope["state"]["asked"]
