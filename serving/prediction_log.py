"""Every prediction as it was made, so that its outcome can be joined to it later."""

from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from feature_repo.errors import StoreError

METADATA = sa.MetaData()
PREDICTIONS = sa.Table(
    "predictions",
    METADATA,
    sa.Column("symbol", sa.String, primary_key=True),
    sa.Column("as_of", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("model_version", sa.String, primary_key=True),
    sa.Column("for_session", sa.Date, nullable=False),
    sa.Column("log_return", sa.Float, nullable=False),
    sa.Column("price", sa.Float, nullable=False),
    sa.Column("p_up", sa.Float, nullable=False),
)
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def open_log(url: str) -> sa.Engine:
    """The log at an SQLAlchemy URL, SQLite or PostgreSQL, created if it is not there.

    Raises:
        StoreError: nothing can be opened there.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() not in INSERTS:
            raise sa.exc.ArgumentError(f"{parsed.get_backend_name()} is not supported")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed)
        METADATA.create_all(engine)
    except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
        told = " ".join(str(error).split())
        raise StoreError(
            f"predict.log_url: {url!r} opens no prediction log ({told}). Use an SQLite URL such as "
            "sqlite:///data/predictions/log.db, or a PostgreSQL one with its driver installed."
        ) from error
    return engine


def append(engine: sa.Engine, predictions: pd.DataFrame) -> int:
    """Add predictions; one that this version already made for this instant stands as first made.

    Args:
        predictions: the table's columns; `as_of` in UTC.

    Returns:
        how many were new.
    """
    rows = predictions[[c.name for c in PREDICTIONS.columns]].to_dict("records")
    if not rows:
        return 0
    insert = INSERTS[engine.dialect.name](PREDICTIONS).on_conflict_do_nothing()
    count = sa.select(sa.func.count()).select_from(PREDICTIONS)
    with engine.begin() as connection:
        before = connection.execute(count).scalar_one()
        connection.execute(insert, rows)
        return connection.execute(count).scalar_one() - before
