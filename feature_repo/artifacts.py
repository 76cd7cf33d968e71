"""The files the rooms meet through, in the order of the way. Each appears whole or not at all."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from feature_repo.errors import DataError, StoreError

RAW_BARS = Path("data/raw/bars.parquet")
RETRIEVALS = Path("data/raw/retrievals.jsonl")
TRUTH = Path("data/raw/truth.parquet")
CLEAN_BARS = Path("data/clean/bars.parquet")
QUARANTINE = Path("data/clean/quarantine.parquet")
EVENTS = Path("data/clean/events.parquet")
CLEAN_REPORT = Path("metrics/clean.json")
FLAGS = Path("data/quality/flags.parquet")
QUALITY_PAGE = Path("reports/data_quality.html")
QUALITY_REPORT = Path("metrics/data_quality.json")
OVERVIEW_PAGE = Path("reports/market_overview.html")
DAILY_FEATURES = Path("data/features/daily.parquet")
WINDOW_FEATURES = Path("data/features/windows.parquet")
REVISIONS = Path("data/features/revisions.parquet")
FEAST_REPO = Path("feature_repo")
PUBLISHED = Path("data/feast/published.json")
ONLINE_LOCK = Path("data/feast/online.lock")
ROWS = Path("data/dataset/rows.parquet")
DATASET_REPORT = Path("metrics/dataset.json")
SELECTION_REPORT = Path("metrics/selection.json")
SELECTION_PLOT = Path("reports/plots/selection.png")
MODELS = Path("models")
TEST_PREDICTIONS = Path("data/evaluation/predictions.parquet")
EVALUATION_REPORT = Path("metrics/evaluation.json")
PLOTS = Path("reports/plots")
REGISTRATION_REPORT = Path("metrics/registration.json")
LIVE_BARS = Path("data/live/bars.db")
LATEST_PREDICTIONS = Path("data/predictions/latest.parquet")
PREDICTION_HISTORY = Path("data/predictions/history.parquet")
DRIFT_PAGE = Path("reports/drift.html")
MONITORING_REPORT = Path("metrics/monitoring.json")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The name is always the same, so that what a killed run left there goes with the next one.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}). What was there is as it was; make "
            "room or give write permission, then run again: it goes on from here."
        ) from error


def online_writer() -> FileLock:
    """Held by whoever writes to the online store: one at a time, so that the newest window stays."""
    ONLINE_LOCK.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(ONLINE_LOCK)


def pushed_rows(path: str | Path) -> Path:
    """The folder of the rows pushed to Feast's source at `path`, a file for each session."""
    return Path(path).with_suffix(".pushed")


def write_parquet(frame: pd.DataFrame | pa.Table, path: Path) -> None:
    """Write a table; timestamps in microseconds, the only unit DuckDB, Feast and pandas share."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, coerce_timestamps="us", allow_truncated_timestamps=True)


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table an earlier stage wrote.

    Raises:
        DataError: it is not there or not readable.
    """
    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there. Run `dvc repro` to make it.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Delete it and run `dvc repro`.") from error


def write_json(document: Any, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a document an earlier stage wrote; DataError if it is not there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there. Run `dvc repro` to make it.") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
