"""The files of a run, and how they are read and written: each appears whole or not at all.

pandas is imported where a table is read or written: commands that read none must start quickly.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pitwise.errors import DataError, StoreError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Artifact:
    """A path of every workspace; read from a workspace it is absolute."""

    path: str

    def __get__(self, workspace: "Workspace | None", owner: type) -> Path:
        return Path(self.path) if workspace is None else workspace.root / self.path


class Workspace:
    """A folder with the params, data and results of one run. Nothing depends on the working directory.

    Args:
        root: the folder; `params.yaml` and `dvc.yaml` lie in it.
    """

    params = Artifact("params.yaml")
    feast_repo = Artifact("feature_repo")

    landing = Artifact("data/landing")
    bar_versions = Artifact("data/bars/versions.parquet")
    bar_factors = Artifact("data/bars/factors.parquet")
    seals = Artifact("data/bars/seals.parquet")
    bar_actions = Artifact("data/bars/actions.parquet")
    bar_landings = Artifact("data/bars/landings.json")
    bar_shards = Artifact("data/bars/shards")
    planted_truth = Artifact("data/raw/truth.parquet")
    yahoo_cache = Artifact("data/raw/yfinance")
    clean_bars = Artifact("data/clean/bars.parquet")
    quarantine = Artifact("data/clean/quarantine.parquet")
    events = Artifact("data/clean/events.parquet")
    market = Artifact("data/clean/market.parquet")
    session_copies = Artifact("data/clean/session_copies.parquet")
    absent_bars = Artifact("data/clean/absent.parquet")
    changes = Artifact("data/clean/changes.parquet")
    market_shards = Artifact("data/clean/market_shards")
    clean_shards = Artifact("data/clean/shards")
    clean_report = Artifact("metrics/clean.json")
    flags = Artifact("data/quality/flags.parquet")
    quality_page = Artifact("reports/data_quality.html")
    quality_report = Artifact("metrics/data_quality.json")
    overview_page = Artifact("reports/market_overview.html")
    daily_features = Artifact("data/features/daily.parquet")
    feature_shards = Artifact("data/features/shards")
    window_features = Artifact("data/features/windows.parquet")
    calendar_features = Artifact("data/features/calendar.parquet")
    revisions = Artifact("data/features/revisions.parquet")
    published = Artifact("data/feast/published.json")
    online_lock = Artifact("data/feast/online.lock")
    dataset_rows = Artifact("data/dataset/rows.parquet")
    dataset_shards = Artifact("data/dataset/shards")
    served_rows = Artifact("data/dataset/served.parquet")
    dataset_report = Artifact("metrics/dataset.json")
    selection_report = Artifact("metrics/selection.json")
    selection_plot = Artifact("reports/plots/selection.png")
    models = Artifact("models")
    test_predictions = Artifact("data/evaluation/predictions.parquet")
    evaluation_report = Artifact("metrics/evaluation.json")
    walk_forward_folds = Artifact("data/evaluation/folds")
    walk_forward_forecasts = Artifact("data/evaluation/walk_forward.parquet")
    walk_forward_report = Artifact("metrics/walk_forward.json")
    plots = Artifact("reports/plots")
    leakcheck_report = Artifact("metrics/leakcheck.json")
    registration_report = Artifact("metrics/registration.json")
    mlflow_artifacts = Artifact("mlruns")
    live_bars = Artifact("data/live/bars.db")
    write_ahead = Artifact("data/serving/log")
    latest_predictions = Artifact("data/predictions/latest.parquet")
    drift_page = Artifact("reports/drift.html")
    week_page = Artifact("reports/week.html")
    monitoring_report = Artifact("metrics/monitoring.json")

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def path(self, given: str | Path) -> Path:
        """A path of `params.yaml`: relative ones are of this workspace, `~` is the person's home."""
        return self.root / Path(given).expanduser()

    @property
    def origin(self) -> "Workspace":
        """The workspace whose experiment this is; itself, unless it is the copy that DVC runs one in.

        `dvc exp run --temp` and `--queue` run in a copy below `.dvc/tmp/exps` that is gone after, and
        name where it comes from in `DVC_ROOT`.
        """
        root = os.environ.get("DVC_ROOT")
        if root and self.root.resolve().is_relative_to(Path(root).resolve() / ".dvc/tmp/exps"):
            return Workspace(root)
        return self

    def database_url(self, url: str) -> str:
        """An URL of `params.yaml`: the file of a relative SQLite one is of this workspace."""
        if url.startswith(SQLITE) and not url.startswith((SQLITE + "/", SQLITE + ":")):
            return SQLITE + str(self.root / url.removeprefix(SQLITE))
        return url

    def require_landings(self) -> None:
        """StoreError where the workspace is one of before there were landings."""
        text = self.params.read_text() if self.params.is_file() else ""
        if re.search(r"^ingest:", text, re.MULTILINE):
            raise StoreError(
                f"{self.root}: is a workspace of an older version: its params.yaml has a section "
                "'ingest'. `pitwise upgrade` in it brings it up; its prediction log is kept."
            )

    def online_writer(self) -> FileLock:
        """Held by whoever writes to the online store: one at a time, so that the newest window stays."""
        self.online_lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.online_lock)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The name is always the same, so that what a killed run left there goes with the next one. File and
    folder are on the disk when it returns, so that a power loss leaves the old content or the new.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            synced(temporary)
            temporary.replace(path)
            synced(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}). What was there is as it was; make "
            "room or give write permission, then run again: it goes on from here."
        ) from error


def synced(path: Path) -> None:
    """Have the disk hold what was written to a file, or which names a folder has."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pushed_folder(path: str | Path) -> Path:
    """The folder of the rows pushed to Feast's source at `path`, a file for each session."""
    return Path(path).with_suffix(".pushed")


def parquet_options(schema: "pa.Schema") -> dict[str, Any]:
    """How our tables are encoded, as `pyarrow.parquet.ParquetWriter` takes it.

    Timestamps in microseconds, the only unit DuckDB, Feast and pandas share. Only text gets a
    dictionary: of numbers that hardly repeat it takes most of the writing and spares nothing.
    """
    import pyarrow.types as of

    text = [f.name for f in schema if of.is_string(f.type) or of.is_dictionary(f.type)]
    return {
        "use_dictionary": text,
        "compression": "lz4",
        "coerce_timestamps": "us",
        "allow_truncated_timestamps": True,
    }


def write_parquet(frame: "pd.DataFrame | pa.Table", path: Path) -> None:
    """Write a table; see `parquet_options`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, **parquet_options(table.schema))


def read_parquet(
    path: Path, columns: list[str] | None = None, filters: list[tuple[str, str, Any]] | None = None
) -> "pd.DataFrame":
    """Read a table an earlier stage wrote.

    Args:
        filters: of the rows wanted, as `pandas.read_parquet` takes them.

    Raises:
        DataError: it is not there or not readable.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow.fs import LocalFileSystem

    # Without a file system pandas hands over a file of Python's. A thread of Arrow's may let go of it
    # when the interpreter has ended, and a short command then dies of SIGABRT after its work is done.
    files = LocalFileSystem()
    try:
        return pd.read_parquet(path, columns=columns, filters=filters, filesystem=files)
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


def append_lines(documents: list[dict[str, Any]], path: Path) -> None:
    """Add JSON objects to a file that has one a line: one write, on disk when this returns.

    A last line that a power loss cut off goes first. The caller is the only one who writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(document, allow_nan=False) + "\n" for document in documents)
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    synced(path.parent)


def read_lines(path: Path, is_one: Callable[[dict[str, Any]], bool], what: str) -> list[dict[str, Any]]:
    """The JSON objects of a file that `append_lines` wrote, oldest first; none where it is not there.

    A last line without its end was cut off by a power loss: it has not been written.

    Args:
        is_one: whether an object is what the file should hold.
        what: that, for the message: "promotion".

    Raises:
        StoreError: a line is not.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not is_one(document):
            raise StoreError(
                f"{path}, line {number}: is no {what} ({line[:60]!r}). Mend it from Git's history."
            )
        found.append(document)
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
