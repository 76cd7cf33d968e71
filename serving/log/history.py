"""What was forecast and known in the past: forecasts as they were served, with what came of them.

pandas, pyarrow and SQLAlchemy are imported when first asked: a process that is never asked goes without.
"""

import math
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from pitwise.errors import StoreError, one_line
from pitwise.workspace import Workspace
from serving.state.market import SymbolFeatures

if TYPE_CHECKING:
    import sqlalchemy as sa

BAR = ["symbol", "date", "close", "price_factor", "segment"]
"""Columns of a clean bar that an outcome takes."""


@dataclass(frozen=True, slots=True)
class PastForecast:
    """One forecast of a champion's, as it was served."""

    symbol: str
    as_of: str
    """Close of the last session seen, ISO 8601 in UTC with Z."""
    for_session: str
    """ISO 8601 date of the session forecast."""
    horizon: int
    """Sessions from `as_of`'s to that one."""
    model_version: str
    window_hash: str
    price: float
    """US dollars, on the share basis of `as_of`."""
    score: float
    """What ranks the symbols of a session, in the model's own unit."""
    log_return: float
    p_up: float
    scale: float | None
    """Of the logistic distribution of the log return; None where the model has none."""
    served_at: str
    """When it was first sent, ISO 8601 in UTC with Z."""
    matured: bool
    """Whether the outcome is known: the pipeline's clean bars have all its sessions, in one segment."""
    realised: float | None
    """Log return up to `for_session`, as a training label is defined; None until it is known."""


class LoggedHistory:
    """The past of a workspace, out of its prediction log at an absolute `url` and the pipeline's files.

    Threads may share it. It knows of bars and features what the pipeline's last run knew.
    """

    def __init__(self, workspace: Workspace, url: str):
        self._workspace, self._url = workspace, url
        self._engine: sa.Engine | None = None
        self._opening = threading.Lock()

    def of(self, symbol: str, first: date | None, last: date | None, most: int) -> list[PastForecast]:
        """Served forecasts of a symbol for the sessions from `first` to `last`, both included.

        Args:
            first, last: None where that side has no bound.

        Returns:
            by for_session, then served_at: a session has several where a bar was corrected or the
            champion changed. At most `most`; none of a symbol that nobody knows.

        Raises:
            StoreError: the log does not answer.
        """
        import sqlalchemy as sa

        from pitwise.registry.prediction_log import FROM_CHAMPION, PREDICTIONS

        query = sa.select(PREDICTIONS).where(PREDICTIONS.c.symbol == symbol, FROM_CHAMPION)
        if first:
            query = query.where(PREDICTIONS.c.for_session >= first)
        if last:
            query = query.where(PREDICTIONS.c.for_session <= last)
        order = (PREDICTIONS.c.for_session, PREDICTIONS.c.served_at, PREDICTIONS.c.window_hash)
        rows = self._rows(query.order_by(*order).limit(most))
        return self._with_outcomes(rows)

    def market(self, day: date, most: int) -> list[PastForecast]:
        """The forecasts made at the newest close on or before `day`, of each symbol the last one served.

        Returns:
            by symbol, at most `most`; none where nothing was served.

        Raises:
            StoreError: the log does not answer.
        """
        import sqlalchemy as sa

        from pitwise.registry.prediction_log import FROM_CHAMPION, PREDICTIONS

        table = PREDICTIONS.c
        # A session of the exchange closes on its own day in UTC too.
        until = datetime.combine(day + timedelta(days=1), time(), UTC)
        newest = sa.select(sa.func.max(table.as_of)).where(table.as_of < until, FROM_CHAMPION)
        rank = (
            sa.func.row_number()
            .over(partition_by=table.symbol, order_by=(table.served_at.desc(), table.window_hash))
            .label("rank")
        )
        ranked = (
            sa.select(PREDICTIONS, rank)
            .where(table.as_of == newest.scalar_subquery(), FROM_CHAMPION)
            .subquery()
        )
        query = sa.select(ranked).where(ranked.c.rank == 1).order_by(ranked.c.symbol).limit(most)
        return self._with_outcomes(self._rows(query))

    def features(self, symbol: str, at: datetime) -> SymbolFeatures | None:
        """The symbol's newest bar and indicators as known at an instant (aware); None if it had none.

        Raises:
            StoreError: the pipeline has not made the features.
        """
        import pandas as pd
        import pyarrow.parquet as pq

        from pitwise.bars.calendar import session_days, session_number
        from pitwise.features.history import CREATED, known
        from pitwise.features.indicators import NAMES

        path = self._workspace.daily_features
        instant = pd.Timestamp(at).tz_convert("UTC")
        try:
            table = pq.read_table(path, filters=[("symbol", "=", symbol)])
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be read ({one_line(error)}). Run `pitwise update`."
            ) from error
        history = table.to_pandas().sort_values(["event_timestamp", CREATED], ignore_index=True)
        history = known(history, instant)
        if history.empty:
            return None
        newest = history.iloc[-1]
        close = newest["event_timestamp"]
        number = session_number(session_days(pd.Series([close])))
        values = {name: float(newest[name]) for name in NAMES}
        return SymbolFeatures(
            symbol,
            _utc(close.to_pydatetime()),
            int(number[0]),
            False,
            {name: value if math.isfinite(value) else None for name, value in values.items()},
        )

    def close(self) -> None:
        """Give back the connections."""
        if self._engine is not None:
            self._engine.dispose()

    def _rows(self, query: "sa.Select") -> "Sequence[sa.RowMapping]":
        from sqlalchemy.exc import SQLAlchemyError

        from pitwise.registry.prediction_log import open_log

        with self._opening:
            if self._engine is None:
                self._engine = open_log(self._url)
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).mappings().all()
        except SQLAlchemyError as error:
            reason = str(error).partition("\n")[0]  # SQLAlchemy adds the statement
            raise StoreError(f"the prediction log does not answer ({reason}).") from error

    def _with_outcomes(self, rows: "Sequence[sa.RowMapping]") -> list[PastForecast]:
        realised = self._realised(rows)
        return [
            PastForecast(
                row["symbol"],
                _utc(row["as_of"]),
                row["for_session"].isoformat(),
                row["horizon"] or 1,
                row["model_version"],
                row["window_hash"],
                row["price"],
                row["log_return"] if row["score"] is None else row["score"],
                row["log_return"],
                row["p_up"],
                row["scale"],
                _utc(row["served_at"]),
                outcome is not None,
                outcome,
            )
            for row, outcome in zip(rows, realised, strict=True)
        ]

    def _realised(self, rows: "Sequence[sa.RowMapping]") -> list[float | None]:
        """The log return that each forecast is of, as `pitwise.evaluation.labels` defines it.

        Close to close, both on one share basis; none across a segment's end, and none where a session
        between the two, or one of them, lacks its bar.
        """
        if not rows or not self._workspace.clean_bars.exists():
            return [None] * len(rows)
        import pyarrow.parquet as pq

        symbols = sorted({row["symbol"] for row in rows})
        first = datetime.combine(min(row["as_of"] for row in rows).date(), time())
        last = datetime.combine(max(row["for_session"] for row in rows), time())
        filters = [("symbol", "in", symbols), ("date", ">=", first), ("date", "<=", last)]
        try:
            table = pq.read_table(self._workspace.clean_bars, columns=BAR, filters=filters)
        except OSError as error:
            raise StoreError(
                f"{self._workspace.clean_bars}: cannot be read ({one_line(error)})."
            ) from error
        columns = (table[name].to_pylist() for name in BAR)
        closes: dict[tuple, dict[date, float]] = defaultdict(dict)
        segments: dict[tuple[str, date], Any] = {}
        for symbol, instant, close, factor, segment in zip(*columns, strict=True):
            closes[symbol, segment][instant.date()] = close * factor
            segments[symbol, instant.date()] = segment
        places = {key: {day: i for i, day in enumerate(sorted(of))} for key, of in closes.items()}
        outcomes: list[float | None] = []
        for row in rows:
            before, after = row["as_of"].date(), row["for_session"]
            key = row["symbol"], segments.get((row["symbol"], before))
            place = places.get(key, {})
            # `for_session` is so many sessions of the exchange later: as many bars, and none is missing.
            if after in place and place[after] - place[before] == (row["horizon"] or 1):
                outcomes.append(math.log(closes[key][after] / closes[key][before]))
            else:
                outcomes.append(None)
        return outcomes


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
