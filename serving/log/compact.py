"""Old requests leave the log for an archive of monthly files; forecasts stay, as the record."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pitwise.errors import StoreError
from pitwise.registry.prediction_log import REQUESTS, open_log
from pitwise.workspace import Workspace, replacing

ARCHIVE = "data/predictions/archive"
"""In the workspace: `requests-YYYY-MM.parquet`, the columns of `REQUESTS`, months in UTC."""
BATCH = 20_000
"""Rows in memory at a time, and in a row group."""
INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    {
        "received_at": INSTANT,
        "request_id": pa.string(),
        "caller": pa.string(),
        "route": pa.string(),
        "latency_ms": pa.float64(),
        "model_version": pa.string(),
        "state": pa.int64(),
        "as_of": INSTANT,
        "n": pa.int32(),
        "windows": pa.string(),
    }
)
KEY = ["received_at", "request_id"]


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    archived: int
    """Requests moved to the archive."""
    files: list[str]
    """Its files that were written to."""
    kept: int
    """Requests that are still in the log."""


def compact(workspace: Workspace, url: str, days: int | None, now: datetime) -> Compacted:
    """Move requests that came more than `days` before `now` (aware) to the archive; free their room.

    It may run beside a service. Each month is a transaction that ends after its file is on the disk:
    what is interrupted leaves no request out, and none in the archive twice once it has run again.

    Args:
        days: None to move nothing.

    Raises:
        StoreError: the log does not answer, or the archive cannot be written.
    """
    engine = open_log(url)
    archived, files = 0, []
    try:
        with engine.connect() as connection:
            oldest = connection.execute(sa.select(sa.func.min(REQUESTS.c.received_at))).scalar()
        for month, until in _months(oldest, now - timedelta(days=days)) if oldest and days else ():
            old = (REQUESTS.c.received_at >= month) & (REQUESTS.c.received_at < until)
            query = sa.select(REQUESTS).where(old).order_by(*(REQUESTS.c[name] for name in KEY))
            path = workspace.root / ARCHIVE / f"requests-{month:%Y-%m}.parquet"
            with _write(engine) as connection:
                rows = connection.execute(query, execution_options={"yield_per": BATCH})
                if _archive(path, rows.mappings().partitions()):
                    archived += connection.execute(sa.delete(REQUESTS).where(old)).rowcount
                    files.append(path.name)
        if archived:
            _vacuum(engine)
        with engine.connect() as connection:
            kept = connection.execute(sa.select(sa.func.count()).select_from(REQUESTS)).scalar_one()
    except sa.exc.SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]  # SQLAlchemy adds the statement
        raise StoreError(
            f"the prediction log does not answer ({reason}). What is archived stays so; run it again."
        ) from error
    finally:
        engine.dispose()
    return Compacted(archived, files, kept)


def _months(first: datetime, cutoff: datetime) -> Iterator[tuple[datetime, datetime]]:
    """From an instant to the cutoff, both in UTC: the start of each month, and its end or the cutoff."""
    month = first.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while month < cutoff:
        following = (month + timedelta(days=31)).replace(day=1)
        yield month, min(following, cutoff)
        month = following


@contextmanager
def _write(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that deletes exactly what it has read, whoever writes beside it."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection
        connection.commit()


def _archive(path: Path, parts: Iterator[Sequence[sa.RowMapping]]) -> bool:
    """Add rows, oldest first, to a file that may be there; those that it has are not added.

    Returns:
        whether there were any.
    """
    first = next(parts, None)
    if first is None:
        return False
    held: set[tuple[datetime, str]] = set()
    if path.exists():
        # Killed after the file and before the commit, the last run has left rows in both.
        keys = pq.read_table(path, columns=KEY, filters=[(KEY[0], ">=", first[0][KEY[0]])])
        held = set(zip(*(keys[name].to_pylist() for name in KEY), strict=True))
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        if path.exists():
            with pq.ParquetFile(path) as earlier:
                for group in range(earlier.num_row_groups):
                    writer.write_table(earlier.read_row_group(group))
        for part in chain([first], parts):
            rows: list[dict[str, Any]] = [
                dict(row) for row in part if (row["received_at"], row["request_id"]) not in held
            ]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return True


def _vacuum(engine: sa.Engine) -> None:
    """Give the room of deleted rows back; the tables can be read meanwhile."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            connection.exec_driver_sql(f"VACUUM ANALYZE {REQUESTS.name}")
