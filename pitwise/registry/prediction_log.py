"""Every prediction as it was made, so that its outcome can be joined to it later."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pitwise.bars.calendar import next_session, session_day
from pitwise.errors import StoreError, one_line


class Instant(sa.TypeDecorator):
    """An aware datetime that comes back in UTC from every database; SQLite keeps no zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None or value.tzinfo:
            return value if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


METADATA = sa.MetaData()
PREDICTIONS = sa.Table(
    "predictions",
    METADATA,
    sa.Column("symbol", sa.String, primary_key=True),
    sa.Column("as_of", Instant, primary_key=True),
    sa.Column("model_version", sa.String, primary_key=True),
    # A corrected bar makes another window of the same instant: both were answered.
    sa.Column("window_hash", sa.String, primary_key=True),
    sa.Column("for_session", sa.Date, nullable=False),
    sa.Column("log_return", sa.Float, nullable=False),
    sa.Column("price", sa.Float, nullable=False),
    sa.Column("p_up", sa.Float, nullable=False),
    sa.Column("served_at", Instant, nullable=False),
)
COLUMNS = [column.name for column in PREDICTIONS.columns]
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def open_log(url: str) -> sa.Engine:
    """The log at an SQLAlchemy URL, SQLite or PostgreSQL, created if it is not there.

    Raises:
        StoreError: nothing can be opened there, or an earlier version of the program made it.
    """
    shown = url
    try:
        parsed = sa.make_url(url)
        shown = repr(parsed)  # without its password
        if parsed.get_backend_name() not in INSERTS:
            raise sa.exc.ArgumentError(f"{parsed.get_backend_name()} is not supported")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed)
        METADATA.create_all(engine)
        columns = {column["name"] for column in sa.inspect(engine).get_columns(PREDICTIONS.name)}
    except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
        raise StoreError(
            f"predict.log_url: '{shown}' opens no prediction log ({one_line(error)}). Use an SQLite "
            "URL such as sqlite:///data/predictions/log.db, or a PostgreSQL one such as "
            "postgresql+psycopg://user:password@host/database."
        ) from error
    absent = [name for name in COLUMNS if name not in columns]
    if absent:
        raise StoreError(
            f"predict.log_url: the table {PREDICTIONS.name} at {shown} was made by an earlier version: "
            f"it has no {', '.join(absent)}. Move that database away, or name another URL."
        )
    return engine


def session_after(as_of: datetime) -> date:
    """The session that a forecast made at a session's close (aware) is for."""
    return next_session(session_day(pd.Timestamp(as_of))).date()


def insert(engine: sa.Engine, rows: list[dict[str, Any]]) -> int:
    """Add rows of the table's columns, instants aware; one that is there already stays as it
    is.

    Returns:
        how many were new.
    """
    if not rows:
        return 0
    statement = INSERTS[engine.dialect.name](PREDICTIONS).on_conflict_do_nothing()
    with engine.begin() as connection:
        return len(connection.execute(statement.returning(PREDICTIONS.c.symbol), rows).all())


def append(engine: sa.Engine, predictions: pd.DataFrame) -> int:
    """`insert` of a frame that has the table's columns, and maybe others."""
    return insert(engine, predictions[COLUMNS].to_dict("records"))
