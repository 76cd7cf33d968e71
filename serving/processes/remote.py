"""How a reader hands bars to the writer: one post a connection, over a socket in a folder of their own.

The socket's folder lets only this user in. A post is JSON behind its length, and so is the answer. All
waits are bounded: a reader that hangs keeps no other from the writer, and the other way round.
"""

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pitwise.errors import StoreError, one_line
from serving.http.service import BarOutcome
from serving.state.errors import AwayError, BusyError
from serving.state.market import PartStatus
from serving.supervised import Loop

LENGTH = struct.Struct(">I")
LOOK_SECONDS = 0.5
"""Between two looks at whether the server is to end."""
READ_SECONDS = 5.0
"""For a post to come whole, once its reader has connected."""
KINDS: dict[str, type[StoreError]] = {"busy": BusyError, "store": StoreError}
"""How an answer says what was raised."""
LOG = logging.getLogger("pitwise.serving")

Take = Callable[[Sequence[Mapping[str, Any]]], Sequence[Any]]
Withdraw = Callable[[str, str], Any]


class RemoteBars:
    """`serving.http.service.Bars` in another process than the writer.

    Args:
        address: of the writer's `BarsServer`.
        max_waiting: posts that may wait here.
        seconds: the longest that a post takes.
    """

    def __init__(self, address: Path, max_waiting: int, seconds: float):
        self._address = str(address)
        self._max_waiting, self._seconds = max_waiting, seconds
        self._places = threading.Semaphore(max_waiting + 1)

    def take(self, bars: Sequence[Mapping[str, Any]]) -> list[BarOutcome]:
        return [BarOutcome(*outcome) for outcome in self._ask({"take": list(bars)})]

    def withdraw(self, symbol: str, date: str) -> BarOutcome:
        return BarOutcome(*self._ask({"withdraw": [symbol, date]})[0])

    def _ask(self, post: dict[str, Any]) -> list[list[Any]]:
        if not self._places.acquire(blocking=False):
            raise busy(self._max_waiting)
        try:
            answer = self._answer(post)
        finally:
            self._places.release()
        if "outcomes" in answer:
            return answer["outcomes"]
        if answer["error"] in KINDS:
            raise KINDS[answer["error"]](answer["detail"])
        raise RuntimeError(answer["detail"])

    def _answer(self, post: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self._seconds
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(self._seconds)
                connection.connect(self._address)
            except BlockingIOError as error:
                raise busy(self._max_waiting) from error
            except OSError as error:
                raise AwayError(
                    "the process that takes bars is being started again; nothing was taken. Send them "
                    "again."
                ) from error
            try:
                send(connection, post | {"seconds": self._seconds}, deadline)
                return receive(connection, deadline)
            except TimeoutError as error:
                raise BusyError(
                    f"the bars were not taken within {self._seconds:g} s (serve.bars_seconds). Send "
                    "them again: those that were are `repeated`."
                ) from error
            except (OSError, EOFError) as error:
                raise AwayError(
                    "the process that takes bars ended over these. Send them again: those that were "
                    "kept are `repeated`."
                ) from error


class BarsServer:
    """The writer's side: takes one post after the other; up to `max_waiting` wait meanwhile.

    Args:
        take: what becomes of bars, as the objects that have the fields of `BarOutcome`.
        withdraw: what becomes of a symbol's bar of an ISO date.
        seconds: the longest that a post waits for its turn.

    Raises:
        OSError: there cannot be a socket at `address`.
    """

    def __init__(self, address: Path, take: Take, withdraw: Withdraw, max_waiting: int, seconds: float):
        self._take, self._withdraw = take, withdraw
        self._max_waiting, self._seconds = max_waiting, seconds
        self._count = threading.Condition()
        self._here = 0
        self._turn = threading.Lock()
        self._figures = {"posts": 0.0, "refused": 0.0, "failed": 0.0, "seconds": 0.0}
        address.unlink(missing_ok=True)  # of a writer that was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(address))
        self._listener.listen(max_waiting + 1)
        self._listener.settimeout(LOOK_SECONDS)
        self._loop = Loop("bars", 0, self._accept)

    @property
    def status(self) -> PartStatus:
        """How it does; `figures` are since the start: posts, those refused because too many waited,
        those that failed and the seconds spent on them; and how many wait now."""
        loop = self._loop.status
        waiting = max(self._here - 1, 0)
        return PartStatus(
            loop.ok, loop.detail, loop.failures, loop.at, self._figures | {"waiting": waiting}
        )

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Take no more posts, and give those that are here `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._loop.stop(timeout)
        self._listener.close()
        with self._count:
            done = self._count.wait_for(lambda: not self._here, max(deadline - time.monotonic(), 0))
        if not done:
            LOG.warning("%d posts of bars are left without an answer", self._here)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return
        with self._count:
            is_room = self._here <= self._max_waiting
            self._here += is_room
        if not is_room:
            self._refuse(connection)
            return
        threading.Thread(target=self._serve, args=(connection,), name="post", daemon=True).start()

    def _refuse(self, connection: socket.socket) -> None:
        self._add("refused")
        with connection:
            error = busy(self._max_waiting)
            # A moment for the post that nobody reads: closed over it, the answer would be lost.
            deadline = time.monotonic() + LOOK_SECONDS
            try:
                receive(connection, deadline)
                send(connection, {"error": "busy", "detail": str(error)}, deadline)
            except (OSError, EOFError, ValueError):
                LOG.warning("a post of bars was refused: %s", error)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                arrived = time.monotonic()
                try:
                    post = receive(connection, arrived + READ_SECONDS)
                    answer = self._answered(post, arrived + min(self._seconds, post["seconds"]))
                    send(connection, answer, time.monotonic() + READ_SECONDS)
                except (OSError, EOFError) as error:
                    LOG.warning("a post of bars has nobody to answer to: %s", error)
        except Exception:
            LOG.exception("a post of bars cannot be read")
        finally:
            with self._count:
                self._here -= 1
                self._count.notify_all()

    def _answered(self, post: dict[str, Any], deadline: float) -> dict[str, Any]:
        if not self._turn.acquire(timeout=max(deadline - time.monotonic(), 0)):
            self._add("refused")
            detail = (
                f"the posts before it took longer than {self._seconds:g} s (serve.bars_seconds); "
                "nothing was taken. Send it again."
            )
            return {"error": "busy", "detail": detail}
        began = time.monotonic()
        try:
            outcomes = (
                self._take(post["take"]) if "take" in post else [self._withdraw(*post["withdraw"])]
            )
            return {"outcomes": [_fields(outcome) for outcome in outcomes]}
        except StoreError as error:
            self._add("failed")
            LOG.warning("bars: %s", error, exc_info=error)
            kind = "busy" if isinstance(error, BusyError) else "store"
            return {"error": kind, "detail": str(error)}
        except Exception as error:  # a fault of ours; the reader says so
            self._add("failed")
            LOG.exception("bars cannot be taken")
            return {"error": "fault", "detail": f"{type(error).__name__}: {one_line(error)}"}
        finally:
            self._turn.release()
            self._add("posts")
            self._add("seconds", time.monotonic() - began)

    def _add(self, figure: str, amount: float = 1) -> None:
        with self._count:
            self._figures[figure] += amount


def busy(max_waiting: int) -> BusyError:
    return BusyError(
        f"{max_waiting} posts of bars wait already (serve.max_waiting); nothing was taken. Send it "
        "again."
    )


def send(connection: socket.socket, document: Any, deadline: float) -> None:
    """Send a document, by a `monotonic` instant.

    Raises:
        TimeoutError, OSError: the other end does not take it.
    """
    data = orjson.dumps(document)
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, deadline: float) -> Any:
    """The document that the other end sends, by a `monotonic` instant.

    Raises:
        TimeoutError, OSError, EOFError: it does not come.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size, deadline))
    return orjson.loads(_exactly(connection, length, deadline))


def _exactly(connection: socket.socket, n: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < n:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(min(n - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _fields(outcome: Any) -> list[Any]:
    return [getattr(outcome, name) for name in BarOutcome._fields]
