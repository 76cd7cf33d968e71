"""From the write-ahead files of all processes to the database, in one process of the workspace."""

import logging
import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from pitwise.errors import StoreError, one_line
from pitwise.registry.prediction_log import CHAMPION, insert, insert_requests, open_log
from serving.log.write_ahead import closed_files, lines

LOG = logging.getLogger("pitwise.serving")
BATCH = 1000
"""Answers in one transaction."""
REFUSED = "refused.txt"
"""In the folder of write-ahead files: answers that the database will never take, each a line."""
ASKED = ("request_id", "caller", "latency_ms", "state")
"""What a forecast's row has of the answer that it was first sent in."""


class Mover:
    """Moves what processes have written below `root` to the log at an absolute `url`, which may be away.

    Killed between a commit and the end of a file, it moves the file again: a row is there once.
    """

    def __init__(self, url: str, root: Path):
        self._url, self._root = url, root
        self._engine: sa.Engine | None = None
        self._moving = threading.Lock()

    @property
    def pending(self) -> int:
        """Complete files that wait."""
        return len(closed_files(self._root))

    def step(self) -> int:
        """Move the files that are complete; while that fails, they stay.

        Returns:
            answers moved.

        Raises:
            StoreError: the database is away, or a file cannot be read.
        """
        moved = 0
        with self._moving:
            try:
                for path in closed_files(self._root):
                    if self._engine is None:
                        self._engine = open_log(self._url)
                    for answers in _batches(path):
                        self._insert(self._engine, answers)
                        moved += len(answers)
                    path.unlink(missing_ok=True)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                self.close()
                reason = str(error).partition("\n")[0]  # SQLAlchemy adds the statement and its rows
                raise StoreError(f"{self._root}: answers wait for the log ({reason})") from error
        return moved

    def close(self) -> None:
        """Give back the connections; the next step opens the log anew."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _insert(self, engine: sa.Engine, answers: Sequence[Any]) -> None:
        try:
            _insert(engine, answers)
        except Exception as error:
            if not _is_of_the_rows(error):
                raise
            if len(answers) > 1:
                for answer in answers:
                    self._insert(engine, [answer])
                return
            reason = one_line(str(error).partition("\n")[0])
            LOG.error("an answer is not in the log but in %s: %s", self._root / REFUSED, reason)
            with (self._root / REFUSED).open("ab") as file:
                file.write(orjson.dumps({"reason": reason, "answer": answers[0]}) + b"\n")


def _is_of_the_rows(error: Exception) -> bool:
    """Whether the rows are at fault, and not the database: then trying again is of no use."""
    if isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, (sa.exc.DataError, sa.exc.IntegrityError))
    return isinstance(error, (sa.exc.StatementError, ValueError, KeyError, TypeError, AttributeError))


def _insert(engine: sa.Engine, answers: Sequence[Any]) -> None:
    """Add answers, as `ServedLog.record` writes them; lists are forecasts of an earlier version."""
    predictions: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []
    for answer in answers:
        if isinstance(answer, list):
            predictions += [_typed(row | {"role": CHAMPION}) for row in answer]
            continue
        request = dict(answer)
        rows = request.pop("forecasts")
        received = datetime.fromisoformat(request["received_at"])
        oldest = request["as_of"]
        request |= {"received_at": received, "as_of": _instant(oldest) if oldest else None}
        requests.append(request)
        if rows:
            first = {name: request[name] for name in ASKED}
            first |= {"model_version": request["model_version"], "role": CHAMPION}
            first["served_at"] = received + timedelta(milliseconds=request["latency_ms"])
            predictions += [_typed(row | first) for row in rows]
    insert(engine, predictions)
    insert_requests(engine, requests)


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """A forecast's row as the table takes it."""
    served = row["served_at"]
    return row | {
        "as_of": _instant(row["as_of"]),
        "for_session": _day(row["for_session"]),
        "served_at": datetime.fromisoformat(served) if isinstance(served, str) else served,
    }


@lru_cache(maxsize=1024)
def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@lru_cache(maxsize=1024)
def _day(text: str) -> date:
    return date.fromisoformat(text)


def _batches(path: Path) -> Iterator[list[Any]]:
    """The answers in a file, `BATCH` at a time."""
    answers = iter(lines(path))
    while batch := list(islice(answers, BATCH)):
        whole = [answer for answer in batch if answer is not None]
        if len(whole) < len(batch):
            LOG.warning("%s: skipped the torn line of an answer that was never sent", path)
        yield whole
