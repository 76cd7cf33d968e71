"""What the pages read of a workspace; of a file that is not there yet, None."""

from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pitwise.registry.findings import Finding, describe
from pitwise.workspace import Workspace, read_lines
from serving.memory import give_back
from serving.web.bars import BarHistory
from serving.web.files import Files, document, rows, stamp_of
from serving.web.pages import Encoded, whole
from serving.web.tracks import Track, tracks
from serving.web.walked import WalkForward

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
BARS, WALKED = "data/features/daily.parquet", "data/evaluation/walk_forward.parquet"
REPORTS = {
    "tonight": "Tonight",
    "week": "The week",
    "drift": "Drift, by Evidently",
    "data_quality": "Data quality",
    "market_overview": "Market overview",
}
"""Pages of the pipeline: name of the file below reports/ to title."""
LEDGER = "ledger/promotions.jsonl"
TRIALS, BACKTEST = "ledger/trials.jsonl", "data/evaluation/backtest.parquet"
TABLES = (BARS, WALKED)
STAMPED = (
    BARS,
    BACKTEST,
    TRIALS,
    "metrics/backtest.json",
    "metrics/registration.json",
    "metrics/risk.json",
    "metrics/signals.json",
    "params.yaml",
)
"""Files that the pages which are kept are made of."""
IMPORTED = (
    "pyarrow.parquet",
    "pitwise.registry.prediction_log",
    "pitwise.features.history",
    "pitwise.features.indicators",
    "pitwise.decisions.contributions",
    "pitwise.decisions.var",
)
"""What brings the libraries that pages take, which take a second of a processor to import."""
PATIENCE = 30.0
"""Seconds until they are imported where no page was asked for: what starts has more urgent work."""


class Sources:
    """The files of a workspace, kept while they stay as they are; None: a service without one.

    Raises, where it reads:
        StoreError: a file is there and cannot be read.
    """

    def __init__(self, workspace: Workspace | None):
        self._workspace = workspace
        self._files = Files()
        self._stamps_of_tables: tuple = ()
        self._is_used = self._is_prepared = self._was_asked = False
        self._since = monotonic()

    def bars(self) -> BarHistory | None:
        self._is_used = self._was_asked = True
        return self._read(BARS, BarHistory)

    def walk_forward(self, kind: str) -> WalkForward | None:
        return self._read(WALKED, WalkForward, kind)

    def document(self, path: str) -> Any:
        """A JSON document, by its path in the workspace."""
        return self._read(path, document)

    def rows(self, path: str) -> list[dict[str, Any]] | None:
        """The rows of a small parquet file, by its path in the workspace."""
        return self._read(path, rows)

    def features(
        self, symbol: str, names: Sequence[str], instant: int | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Features of a symbol by session, see `BarHistory`; without rows where there is no file."""
        bars = self.bars()
        if bars is None:
            return np.empty(0, "datetime64[D]"), {name: np.empty(0) for name in names}
        return bars.features(symbol, names, instant)

    def sectors(self) -> "pd.DataFrame | None":
        """`universe/sectors.csv`, see `pitwise.universe.read_sectors`."""
        from pitwise.universe import SECTORS, read_intervals  # brings pandas

        return self._read(SECTORS, read_intervals, True)

    def weeks(self, instant: int | None, most: int) -> list[dict[str, Any]]:
        """The newest weeks that the monitoring has judged, the newest first, as known at an instant.

        Args:
            instant: microseconds since 1970; None for now.
        """
        folder = self._workspace and self._workspace.path("data/monitoring/weeks")
        found: list[dict[str, Any]] = []
        for path in sorted(folder.glob("*.json"), reverse=True) if folder else ():
            report = self._files.read(path, document)
            if report is None:
                continue
            known_at = datetime.fromisoformat(report["as_known_at"]).timestamp() * 1e6
            if instant is None or known_at <= instant:
                found.append(report)
            if len(found) == most:
                break
        return found

    def week(self, instant: int | None) -> dict[str, Any] | None:
        """The newest of them; None where there is none."""
        return next(iter(self.weeks(instant, 1)), None)

    def promotions(self) -> list[dict[str, Any]]:
        """The ledger of promotions, oldest first."""
        return self._read(LEDGER, _promotions) or []

    def trials(self) -> list[dict[str, Any]]:
        """The ledger of what was tried, oldest first; see `pitwise.evaluation.trials.Trial`."""
        return self._read(TRIALS, _trials) or []

    def backtest(self) -> dict[str, Track] | None:
        """The portfolios of the walk-forward by session."""
        return self._read(BACKTEST, tracks)

    def page(self, name: str) -> Encoded | None:
        """A report; None where there is none of that name."""
        return self._read(f"reports/{name}.html", whole) if name in REPORTS else None

    def reports(self) -> dict[str, str]:
        """Name to title of the reports that are there."""
        here = self._workspace
        return {
            name: title
            for name, title in REPORTS.items()
            if here and here.path(f"reports/{name}.html").exists()
        }

    def doubts(self, version: str) -> list[str]:
        """What the promotion gate holds against a champion."""
        return [describe(f) for f in self.findings(version) if f.kind.startswith("unproven")]

    def findings(self, version: str) -> list[Finding]:
        """What the promotion gate found in the last run; none where the champion is another now."""
        report = self.document("metrics/registration.json")
        if not report or str(report.get("champion")) != version:
            return []
        return [Finding(**finding) for finding in report["findings"]]

    def warm(self, kind: str) -> None:
        """Import and read what takes a second, unless it is kept: then no page waits for it.

        A process that has shown no page goes without the tables, and at first without the libraries.

        Args:
            kind: of the champion.
        """
        is_due = self._is_used or monotonic() > self._since + PATIENCE
        if is_due and self._workspace and not self._is_prepared:
            _prepare()
            self._is_prepared = True
        if not self._is_used:
            return
        before = self._stamps_of_tables
        self._stamps_of_tables = self._stamps(TABLES)
        if self._stamps_of_tables != before:
            bars = self.bars()
            if bars:
                bars.market()
            self.walk_forward(kind)
        if self._was_asked:
            self._was_asked = False
            give_back()

    def stamp(self) -> tuple:
        """Another one once a run or the signals have written the files that pages are made of."""
        return self._stamps(STAMPED)

    def _stamps(self, paths: tuple[str, ...]) -> tuple:
        if self._workspace is None:
            return ()
        return tuple(stamp_of(self._workspace.path(path)) for path in paths)

    def _read(self, path: str, reader: Callable[..., T], *given: Any) -> T | None:
        if self._workspace is None:
            return None
        return self._files.read(self._workspace.path(path), reader, *given)


def _prepare() -> None:
    for module in IMPORTED:
        import_module(module)
    import pandas as pd

    from pitwise.bars.calendar import session_number

    session_number(pd.Series(dtype="datetime64[us]"))  # the exchange's calendar takes as long


def _promotions(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, lambda entry: "onnx_sha256" in entry, "promotion")


def _trials(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, lambda entry: "recipe" in entry, "trial")
