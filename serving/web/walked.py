"""Forecasts of the walk-forward: what models of a kind, trained before a session, said of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pitwise.evaluation.metrics import rank_ic
from serving.web.bars import DAY
from serving.web.files import microseconds

KEYS = ["symbol", "event_timestamp"]
PART = 1 << 17
"""Rows read at a time."""


@dataclass(frozen=True)
class WalkedForecast:
    """Means over the seeds."""

    symbol: str
    day: str
    """ISO 8601: the last session seen."""
    log_return: float
    p_up: float
    score: float
    scale: float | None
    realised: float | None
    """Log return over the horizon; None where it never came."""


class WalkForward:
    """The forecasts of one kind.

    Args:
        path: `data/evaluation/walk_forward.parquet`.
        kind: of the model.
    """

    def __init__(self, path: Path, kind: str):
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        has_scale = "scale" in file.schema_arrow.names
        said = ["log_return", "p_up", "score", *(["scale"] if has_scale else [])]
        columns = [*KEYS, *said, "label"]
        # In parts: whole, the file of all kinds and seeds is half a gigabyte.
        parts = [
            part.filter(pc.equal(part["kind"], kind)).select(columns)
            for part in file.iter_batches(PART, columns=[*columns, "kind"])
        ]
        table = pa.Table.from_batches(parts)
        how = [(name, "mean") for name in said] + [("label", "max")]  # a label is the same for all seeds
        table = table.group_by(KEYS).aggregate(how).combine_chunks()
        symbols = table["symbol"].combine_chunks().dictionary_encode()
        self._symbol = symbols.indices.to_numpy()
        self._names: list[str] = symbols.dictionary.to_pylist()
        self._day = (microseconds(table["event_timestamp"]) // DAY).astype("datetime64[D]")
        figures = [table[f"{name}_{of_seeds}"].to_numpy() for name, of_seeds in how]
        if not has_scale:
            figures.insert(3, np.full(len(table), np.nan))
        self._figures = figures
        self.sessions = np.unique(self._day)
        """Days whose close forecasts were made at, in order."""

    def market(self, day: str) -> list[WalkedForecast]:
        """Those made at the close of a session, by symbol."""
        return self._at(np.flatnonzero(self._day == np.datetime64(day, "D")), self._symbol_names)

    def of(self, symbol: str, last: str) -> list[WalkedForecast]:
        """A symbol's, made at the closes up to day `last`, in order."""
        if symbol not in self._names:
            return []
        here = self._symbol == self._names.index(symbol)
        return self._at(np.flatnonzero(here & (self._day <= np.datetime64(last, "D"))), self._day)

    @cached_property
    def rank_ics(self) -> tuple[np.ndarray, np.ndarray]:
        """The days whose forecasts have an outcome, in order, and the rank IC of each; (n,) each."""
        score, realised = self._figures[2], self._figures[4]
        known = ~np.isnan(realised) & ~np.isnan(score)
        days = self._day[known]
        return np.unique(days), rank_ic(score[known], realised[known], days)

    @property
    def _symbol_names(self) -> np.ndarray:
        return np.array(self._names)[self._symbol]

    def _at(self, rows: np.ndarray, order: np.ndarray) -> list[WalkedForecast]:
        rows = rows[np.argsort(order[rows], kind="stable")]
        figures = [[None if np.isnan(x) else float(x) for x in column[rows]] for column in self._figures]
        return [
            WalkedForecast(self._names[self._symbol[row]], str(self._day[row]), *values)
            for row, *values in zip(rows, *figures, strict=True)
        ]
