"""Limits of one caller: requests a minute, bytes a request."""

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Message, Receive, Scope

from serving.http.problems import Problem


class RateLimit:
    """Requests of one caller in any 60 seconds."""

    def __init__(self, requests_per_minute: int):
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(requests_per_minute)

    def hit(self, caller: str) -> None:
        """Count a request.

        Raises:
            Problem: it is one too many (429, with Retry-After in seconds).
        """
        if self._limiter.hit(self._item, caller):
            return
        reset = self._limiter.get_window_stats(self._item, caller).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        raise Problem(
            "too-many-requests",
            f"More than {self._item.amount:,} requests in a minute. Wait {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )


def limited_body(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """`receive`, raising Problem (413) at the byte too many; a body without a length is counted.

    Raises:
        Problem: the length that the request declares is too large already.
    """
    problem = Problem(
        "body-too-large",
        f"The body may have {max_bytes:,} bytes. Send it in parts.",
        # What is left of the body would be read as the connection's next request.
        headers={"Connection": "close"},
    )
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise problem
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise problem
        return message

    return counted
