"""Every prediction as it was made, so that its outcome can be joined to it later, and who asked for it.

Table `predictions` has a forecast once; `requests`, the audit trail, a row for each answer sent.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pitwise.errors import StoreError, one_line

if TYPE_CHECKING:
    import pandas as pd

SHADOW, CHAMPION = "shadow", "champion"
"""Roles of a forecast: logged beside the champion's for comparison, or one that people see."""
BUSY_SECONDS = 30
"""SQLite: how long a writer waits for another one."""
UPGRADE_LOCK = 7_061_747_769_736_531
"""PostgreSQL: number of the advisory lock of whoever changes the tables."""


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
    # NULL where an earlier version logged it; of a forecast that no request asked for, all but the role.
    sa.Column("request_id", sa.String),
    sa.Column("caller", sa.String),
    sa.Column("latency_ms", sa.Float),
    sa.Column("role", sa.String),
    sa.Column("state", sa.BigInteger),
    # Of an earlier version NULL: one session, the log return, and not known; scale also where the model
    # has none.
    sa.Column("horizon", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("scale", sa.Float),
    sa.Index("predictions_as_of", "as_of"),
)
REQUESTS = sa.Table(
    "requests",
    METADATA,
    # A client may send a request id twice. The instant comes first, so that new rows lie together.
    sa.Column("received_at", Instant, primary_key=True),
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("route", sa.String, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("model_version", sa.String, nullable=False),
    sa.Column("state", sa.BigInteger, nullable=False),
    sa.Column("as_of", Instant),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("windows", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
COLUMNS = [column.name for column in PREDICTIONS.columns]
KEY = [column.name for column in PREDICTIONS.primary_key.columns]
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
FROM_CHAMPION = sa.func.coalesce(PREDICTIONS.c.role, CHAMPION) == CHAMPION
"""Which predictions people saw: those of an earlier version have no role and are all of the champion."""
SCORE = sa.func.coalesce(PREDICTIONS.c.score, PREDICTIONS.c.log_return).label("score")
"""Of predictions of an earlier version too."""


def open_log(url: str) -> sa.Engine:
    """The log at an SQLAlchemy URL, SQLite or PostgreSQL, created if it is not there.

    Tables of an earlier version get the columns that they lack. Several processes may use it at once.

    Raises:
        StoreError: nothing can be opened there, or its table is not one of predictions.
    """
    shown = url
    try:
        parsed = sa.make_url(url)
        shown = repr(parsed)  # without its password
        if parsed.get_backend_name() not in INSERTS:
            raise sa.exc.ArgumentError(f"{parsed.get_backend_name()} is not supported")
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            # No pool: it would write on in a file that was deleted.
            options = {"connect_args": {"timeout": BUSY_SECONDS}, "poolclass": sa.NullPool}
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, **options)
        absent = _brought_up(engine)
    except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
        raise StoreError(
            f"predict.log_url: '{shown}' opens no prediction log ({one_line(error)}). Use an SQLite "
            "URL such as sqlite:///data/predictions/log.db, or a PostgreSQL one such as "
            "postgresql+psycopg://user:password@host/database."
        ) from error
    if absent:
        raise StoreError(
            f"predict.log_url: the table {PREDICTIONS.name} at {shown} was made by an earlier version: "
            f"it has no {', '.join(absent)}. Move that database away, or name another URL."
        )
    return engine


def _brought_up(engine: sa.Engine) -> list[str]:
    """Make what is not there, one process at a time; the columns that cannot be made up."""
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if is_sqlite:
            _use_wal(connection)
        tables = sa.inspect(connection).get_table_names()
        if {PREDICTIONS.name, REQUESTS.name} <= set(tables) and not _lacking(connection):
            return []
        connection.rollback()
        if is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        absent = [column.name for column in _lacking(connection) if not column.nullable]
        if absent:
            return absent
        METADATA.create_all(connection)
        for column in _lacking(connection):
            kind = column.type.compile(engine.dialect)
            connection.execute(sa.DDL(f"ALTER TABLE {PREDICTIONS.name} ADD COLUMN {column.name} {kind}"))
        for index in PREDICTIONS.indexes:
            index.create(connection, checkfirst=True)
        connection.commit()
    return []


def _use_wal(connection: sa.Connection) -> None:
    """Let readers and the writer not wait for each other. A file system without it keeps its mode."""
    waited_until = monotonic() + BUSY_SECONDS
    while connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except sa.exc.OperationalError:
            # Another process has the file open: SQLite refuses at once here, its timeout does not count.
            if monotonic() > waited_until:
                raise
            connection.rollback()
            sleep(0.05)
        else:
            return


def _lacking(connection: sa.Connection) -> list[sa.Column]:
    """Columns that the table of predictions has not, where it is there."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(PREDICTIONS.name):
        return []
    have = {column["name"] for column in inspector.get_columns(PREDICTIONS.name)}
    return [column for column in PREDICTIONS.columns if column.name not in have]


def session_after(as_of: datetime, horizon: int = 1) -> date:
    """The session that a forecast made at a session's close (aware) is for: its outcome is its close."""
    import pandas as pd

    from pitwise.bars.calendar import next_session, session_day

    return next_session(session_day(pd.Timestamp(as_of)), horizon).date()


def insert(engine: sa.Engine, rows: Sequence[dict[str, Any]]) -> int:
    """Add predictions, rows of the table's columns with aware instants.

    One that is there already stays as it is, except that a shadow's becomes the champion's when it is
    that one's for the first time.

    Returns:
        how many were new.
    """
    first: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(tuple(row[name] for name in KEY), dict.fromkeys(COLUMNS) | row)
    if not first:
        return 0
    statement = INSERTS[engine.dialect.name](PREDICTIONS)
    given = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=KEY,
        set_={name: given[name] for name in COLUMNS if name not in KEY},
        where=(PREDICTIONS.c.role == SHADOW) & (given.role == CHAMPION),
    )
    with engine.begin() as connection:
        new = connection.execute(statement.returning(PREDICTIONS.c.symbol), list(first.values()))
        return len(new.all())


def insert_requests(engine: sa.Engine, rows: Sequence[dict[str, Any]]) -> None:
    """Add answers to the audit trail, rows of the columns of `REQUESTS`; one there already stays."""
    if rows:
        statement = INSERTS[engine.dialect.name](REQUESTS).on_conflict_do_nothing()
        with engine.begin() as connection:
            connection.execute(statement, list(rows))


def append(engine: sa.Engine, predictions: "pd.DataFrame") -> int:
    """`insert` of a frame that has the table's columns but nullable ones, and maybe others."""
    rows = predictions[[name for name in COLUMNS if name in predictions]].to_dict("records")
    # A NaN is a value to PostgreSQL, and none to who asks for those that are known.
    return insert(engine, [{k: None if v != v else v for k, v in row.items()} for row in rows])


def forecasts_of(engine: sa.Engine, version: str) -> "pd.DataFrame":
    """What a version forecast at the close of each session, seen by people or not: the first of each.

    Returns:
        `symbol`, `event_timestamp` (UTC), `score`.
    """
    import pandas as pd

    wanted = sa.select(
        PREDICTIONS.c.symbol,
        PREDICTIONS.c.as_of.label("event_timestamp"),
        SCORE,
    ).where(PREDICTIONS.c.model_version == version)
    with engine.connect() as connection:
        rows = connection.execute(wanted.order_by(PREDICTIONS.c.served_at)).all()
    said = pd.DataFrame(rows, columns=["symbol", "event_timestamp", "score"])
    said["event_timestamp"] = pd.to_datetime(said["event_timestamp"], utc=True).astype(
        "datetime64[us, UTC]"
    )
    return said.drop_duplicates(["symbol", "event_timestamp"], ignore_index=True)
