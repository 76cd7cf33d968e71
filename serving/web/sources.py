"""What the pages read of a workspace; of a file that is not there yet, None."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pitwise.registry.findings import Finding, describe
from pitwise.workspace import Workspace, read_lines
from serving.web.bars import BarHistory
from serving.web.files import Files, document, rows, stamp_of
from serving.web.pages import Encoded, whole
from serving.web.walked import WalkForward

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
TABLES = (BARS, WALKED)
STAMPED = (
    BARS,
    "metrics/registration.json",
    "metrics/signals.json",
)
"""Files that the table of forecasts is made of."""


class Sources:
    """The files of a workspace, kept while they stay as they are; None: a service without one.

    Raises, where it reads:
        StoreError: a file is there and cannot be read.
    """

    def __init__(self, workspace: Workspace | None):
        self._workspace = workspace
        self._files = Files()
        self._stamps_of_tables: tuple = ()
        self._is_used = False

    def bars(self) -> BarHistory | None:
        self._is_used = True
        return self._read(BARS, BarHistory)

    def walk_forward(self, kind: str) -> WalkForward | None:
        return self._read(WALKED, WalkForward, kind)

    def document(self, path: str) -> Any:
        """A JSON document, by its path in the workspace."""
        return self._read(path, document)

    def rows(self, path: str) -> list[dict[str, Any]] | None:
        """The rows of a small parquet file, by its path in the workspace."""
        return self._read(path, rows)

    def week(self, instant: int | None) -> dict[str, Any] | None:
        """The newest week that the monitoring has judged, as known at an instant (None: now)."""
        folder = self._workspace and self._workspace.path("data/monitoring/weeks")
        for path in sorted(folder.glob("*.json"), reverse=True) if folder else ():
            report = self._files.read(path, document)
            known_at = datetime.fromisoformat(report["as_known_at"]) if report else None
            if known_at and (instant is None or known_at.timestamp() * 1e6 <= instant):
                return report
        return None

    def promotions(self) -> list[dict[str, Any]]:
        """The ledger of promotions, oldest first."""
        return self._read(LEDGER, _promotions) or []

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
        report = self.document("metrics/registration.json")
        if not report or str(report.get("champion")) != version:
            return []
        findings = [Finding(**finding) for finding in report["findings"]]
        return [describe(f) for f in findings if f.kind.startswith("unproven")]

    def warm(self, kind: str) -> None:
        """Read what takes a second to read, unless it is kept: then no page waits for it.

        A process that has shown no page goes without.

        Args:
            kind: of the champion.
        """
        if not self._is_used:
            return
        before = self._stamps_of_tables
        self._stamps_of_tables = self._stamps(TABLES)
        if self._stamps_of_tables == before:
            return
        self.bars()
        self.walk_forward(kind)
        if any(self._stamps_of_tables):
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


def _promotions(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, lambda entry: "onnx_sha256" in entry, "promotion")


def give_back() -> None:
    """Give back the memory that reading a table took beyond what is kept of it."""
    import psutil
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    psutil.heap_trim()
