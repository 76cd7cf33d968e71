"""How the client asks: over kept connections, with a key, and again where that is safe."""

import json
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from time import sleep
from typing import Any

from pitwise import __version__
from pitwise.client.errors import AnswerError, ClientError, ProblemError, UnreachableError

try:
    import httpx
except ModuleNotFoundError as error:
    raise ImportError("pitwise.client needs httpx. Install it: pip install 'pitwise[client]'") from error

AGAIN = (429, 502, 503)
"""Answers after which it may be well in a moment."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries, doubling, where the service does not say."""
LONGEST_WAIT = 60.0
"""A service that asks for a longer pause than this many seconds is not waited for."""
SILENCE = 45.0
"""Seconds without a byte after which a stream is dead: the service sends a comment every 15."""


class Connection:
    """One service. Threads may share it.

    Args:
        url: of the service, such as `https://desk.example/pitwise`.
        key: of its API; None where it needs none.
        timeout: seconds to connect, and for an answer to begin.
        retries: how often a request is sent again at most.
        traceparent: called for each request: the W3C trace context that it belongs to, or None.

    Raises:
        ClientError: the url or the key is none.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        timeout: float,
        retries: int,
        traceparent: Callable[[], str | None] | None,
    ):
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ClientError(f"{url!r} is no URL ({error}).") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ClientError(f"{url!r} is no URL of a service: it starts with http:// or https://.")
        headers = {"User-Agent": f"pitwise/{__version__}"}
        if key is not None:
            if not (key.isascii() and key.isprintable()):  # httpx would quote it in its error
                raise ClientError("The key is none: it has characters that no key has.")
            headers["Authorization"] = f"Bearer {key}"
        self._timeout, self._retries, self._traceparent = timeout, retries, traceparent
        self._http = httpx.Client(
            base_url=self._url,
            headers=headers,
            timeout=timeout,
            # The environment's proxy cannot reach this machine's addresses, and need not see a key.
            trust_env=not _is_this_machine(self._url.host),
        )

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        document: Any = None,
        is_repeatable: bool = True,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> tuple[Any, str]:
        """The JSON that the service answers, and the request's id.

        Args:
            params: of the query; those that are None are left out.
            document: the body.
            is_repeatable: whether it may be sent again when it is not known if it was carried out.
            timeout, retries: in place of the connection's.

        Raises:
            ProblemError: the service answers with an error.
            UnreachableError: it cannot be reached.
            AnswerError: it answers with something else than JSON.
        """
        request = self._request(method, path, params, document, timeout or self._timeout)
        retries = self._retries if retries is None else retries
        for tried in range(retries + 1):
            pause = _pause(tried)
            try:
                response = self._http.send(request)
            except httpx.TransportError as error:
                never_sent = isinstance(error, NEVER_SENT)
                if tried == retries or not (is_repeatable or never_sent):
                    raise self._unreachable(error) from error
            else:
                if response.is_success:
                    return self._document(response), request.headers["X-Request-ID"]
                # What was refused for its number was not carried out.
                may = response.status_code in AGAIN and (is_repeatable or response.status_code == 429)
                pause = _retry_after(response, pause)
                if tried == retries or not may or pause > LONGEST_WAIT:
                    raise problem_of(response)
            sleep(pause)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def open(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer that does not end, as they come.

        Raises:
            ProblemError, UnreachableError: as `ask`, after one try.
        """
        request = self._request("GET", path, params, None, self._timeout, headers)
        request.extensions["timeout"]["read"] = max(self._timeout, SILENCE)
        try:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise problem_of(response)
                yield response.iter_bytes()
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        self._http.close()

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        document: Any,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        sent = {"X-Request-ID": secrets.token_hex(8), **(headers or {})}
        if self._traceparent and (trace := self._traceparent()):
            sent["traceparent"] = trace
        content = None
        if document is not None:
            sent["Content-Type"] = "application/json"
            # NaN passes: the service's answer names the field that has it.
            content = json.dumps(document).encode()
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return self._http.build_request(
            method, path, params=given, content=content, headers=sent, timeout=timeout
        )

    def _document(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise AnswerError(
                f"{response.url} answers with something else than JSON: is it a service of pitwise?"
            ) from error

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        why = str(error) or type(error).__name__
        return UnreachableError(f"{self._url} does not answer ({why}). Is the service running there?")


def problem_of(response: httpx.Response) -> ProblemError:
    """The problem document that an answer is; one that is none is described by its status."""
    request_id = response.headers.get("X-Request-ID", "")
    try:
        document = response.json()
        return ProblemError(
            document["type"],
            document["title"],
            response.status_code,
            document["detail"],
            {error["field"]: error["detail"] for error in document.get("errors") or []},
            document.get("request_id", request_id),
        )
    except (ValueError, LookupError, TypeError):
        detail = f"{response.url} answers with no problem document"
        title = response.reason_phrase or "Error"
        return ProblemError("about:blank", title, response.status_code, detail, {}, request_id)


def _pause(tried: int) -> float:
    """Seconds after so many tries; drawn, so that clients that failed together do not come together."""
    return min(FIRST_PAUSE * 2**tried, LONGEST_PAUSE) * random.uniform(0.5, 1)


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """The seconds that an answer asks for."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else otherwise


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
