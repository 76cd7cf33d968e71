"""Feast's store of a workspace: the one way to get to it.

Feast's registry and the online store are a cache of the published files: `data/feast/materialized.json`
names the publication and the online store that they hold, and Redis keeps a note of it beside the rows.
Where that is not what is published, as after a checkout, in a fresh clone, in an experiment's folder or
with a Redis that lost its data, the next who opens the store makes them anew.
"""

import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pitwise.errors import StoreError
from pitwise.features.errors import WindowSchemaError
from pitwise.features.history import CREATED
from pitwise.workspace import Workspace, pushed_folder, read_parquet, sha256, write_json

VIEWS = ("daily", "windows")
CALENDAR_VIEW = "calendar"
"""In the store only where there is a calendar."""
REDIS = "feature_repo.online_store.WorkspaceRedisOnlineStore"
"""Type of the online store in Feast's settings."""
SQLITE = ("sqlite", "feature_repo.sqlite_store.WholeRowSqliteOnlineStore")
"""Types of those in a file: Feast's, and ours."""
UNKNOWN = "unknown"
"""In place of a publication, where Redis does not answer."""


def open_store(workspace: Workspace, rebuild: bool = True) -> Any:
    """A `feast.FeatureStore` of the workspace, in a second instead of five.

    Feast's variable FEAST_FS_YAML_FILE_PATH names other settings than `feature_repo/feature_store.yaml`.

    Args:
        rebuild: apply the definitions and materialize the published files where the store does not hold
            them; who publishes does so itself.

    Raises:
        WindowSchemaError: what is published are windows of other features than this version's.
        ForeignStoreError: the place in Redis belongs to another workspace.
        StoreError: the settings name a store that mixes up workspaces.
    """
    # Before Feast, whose own metrics would have the whole process keep its values in files.
    import prometheus_client  # noqa: F401

    with _quick_import():
        from feast import FeatureStore, torch_wrapper
    if torch_wrapper._torch_import_error:
        # Feast keeps it, with the frames of whoever opens the first store and every table in them.
        torch_wrapper._torch_import_error.__traceback__ = None
    store = FeatureStore(str(workspace.feast_repo))
    if store.config.online_store.type == "redis":
        raise StoreError(
            f"{_settings(workspace)}: online store `type: redis`, where workspaces overwrite each "
            f"other's rows, and late rows newer ones. Under `online_store:` write `type: {REDIS}` in "
            "place of that line, and leave out `skip_dedup` if it is there."
        )
    if store.config.online_store.type == REDIS:
        _published_in_redis(store)  # refuses another workspace's place
    if rebuild:
        _rebuild(workspace, store, lost=False)
    return store


def rebuild(workspace: Workspace, store: Any) -> None:
    """Put what is published, and what was pushed since, into an online store that has lost rows of it.

    It waits for whoever writes to the online store, so call it without that lock.

    Raises:
        WindowSchemaError: what is published are windows of other features than this version's.
        Exception: the online store takes no rows; any error of it.
    """
    _rebuild(workspace, store, lost=True)


def _settings(workspace: Workspace) -> Path:
    """The file of Feast's settings, as Feast finds it."""
    named = os.environ.get("FEAST_FS_YAML_FILE_PATH")
    return Path(named) if named else workspace.feast_repo / "feature_store.yaml"


def _rebuild(workspace: Workspace, store: Any, lost: bool) -> None:
    if not _is_published(workspace):
        return
    _require_schema(workspace)
    if lost or _outdated(workspace, store):
        with workspace.online_writer():
            if lost or _outdated(workspace, store):  # nobody else did meanwhile
                materialize(workspace, store)


def materialize(workspace: Workspace, store: Any) -> None:
    """Apply the definitions and put the newest standing row of each symbol online, pushed ones too.

    To be called with `workspace.online_writer()` held and the publication's files written.
    """
    import pandas as pd

    from feature_repo.definitions import CALENDAR, OBJECTS
    from pitwise.bars.calendar import session_close

    instants = read_parquet(workspace.daily_features, ["event_timestamp"])["event_timestamp"]
    pushed = [path.stem for path in pushed_folder(workspace.daily_features).glob("*.parquet")]
    closes = session_close(pd.to_datetime(pd.Series(pushed))) if pushed else instants
    last = max(instants.max(), closes.max())
    events = calendar_begins(workspace)
    with (
        redirect_stdout(sys.stdout if sys.stdout.isatty() else io.StringIO()),
        _replacing_rows(workspace, store),
        own_duckdb(),
    ):
        if CALENDAR_VIEW in {view.name for view in store.list_feature_views()}:
            # With the rows of events that are no longer in the calendar.
            store.apply(OBJECTS, objects_to_delete=CALENDAR, partial=False)
        store.apply(OBJECTS if events is None else [*OBJECTS, *CALENDAR])
        _read_while_writing(store)
        # Whole history on purpose: a symbol that stopped trading keeps its last values.
        store.materialize(
            start_date=instants.min().to_pydatetime(),
            end_date=last.to_pydatetime(),
            feature_views=list(VIEWS),
        )
        if events is not None and events <= last:
            store.materialize(
                start_date=events.to_pydatetime(),
                end_date=last.to_pydatetime(),
                feature_views=[CALENDAR_VIEW],
            )
    mark_materialized(workspace, store)


def calendar_begins(workspace: Workspace) -> Any:
    """The first instant (`pd.Timestamp`) at which something of the calendar was known; None where there
    is no calendar."""
    if not workspace.calendar_features.exists():  # published by an older version
        return None
    instants = read_parquet(workspace.calendar_features, ["event_timestamp"])["event_timestamp"]
    return instants.min() if len(instants) else None


@contextmanager
def own_duckdb(threads: int | None = None) -> Iterator[None]:
    """A database of its own for what Feast reads in the block: DuckDB keeps that for as long as it is
    connected, 290 MB of the S&P 500 file.

    Args:
        threads: how many of its own it may take; None: one a core.
    """
    import ibis

    before = ibis.options.default_backend
    ibis.set_backend("duckdb")
    if threads:
        ibis.get_backend().raw_sql(f"SET threads = {threads}")
    try:
        yield
    finally:
        ibis.get_backend().disconnect()
        ibis.options.default_backend = before


@contextmanager
def _replacing_rows(workspace: Workspace, store: Any) -> Iterator[None]:
    """In Redis, have what is written replace newer rows too, and count as known since the last of it.

    A publication is right whatever was pushed before: code and params may have changed with the bars as
    they were. The instant is the data's own and not the clock's, for what is pushed next is known later
    than the data, but not than a clock that was put back.
    """
    if store.config.online_store.type != REDIS:
        yield
        return
    store.config.online_store.materialized_at = _known_until(workspace)
    try:
        yield
    finally:
        store.config.online_store.materialized_at = None


def _known_until(workspace: Workspace) -> datetime:
    """The last `created_timestamp` of the rows of both views, pushed ones too."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sources = (workspace.daily_features, workspace.window_features)
    files = [path for source in sources for path in (source, *pushed_folder(source).glob("*.parquet"))]
    latest = (pc.max(pq.read_table(path, columns=[CREATED])[CREATED]).as_py() for path in files)
    return max(instant for instant in latest if instant is not None)


def mark_materialized(workspace: Workspace, store: Any) -> None:
    """Note that registry and online store hold what is published now."""
    if workspace.published.exists():
        held = _held(workspace, store)
        if store.config.online_store.type == REDIS:
            with _redis() as online:
                online.mark(store.config, held["published_sha256"])
        write_json(held, _mark(workspace))


def _is_published(workspace: Workspace) -> bool:
    files = (workspace.published, workspace.daily_features, workspace.window_features)
    return all(path.exists() for path in files)


def _require_schema(workspace: Workspace) -> None:
    """WindowSchemaError where the published windows are not of this version's features."""
    import pyarrow.parquet as pq

    from pitwise.features.windows import unpacked

    path = workspace.window_features
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1, columns=["window"]):
            try:
                unpacked(batch["window"].to_pylist())
            except WindowSchemaError as error:
                raise WindowSchemaError(f"{path}: {error} Run `dvc repro publish`.") from error
            return


def _outdated(workspace: Workspace, store: Any) -> bool:
    """Whether the registry or the online store does not hold what is published."""
    expected = _held(workspace, store)
    is_redis = store.config.online_store.type == REDIS
    # Of one that is away nothing is known; whoever reads or writes next says so.
    if is_redis and _published_in_redis(store) not in (expected["published_sha256"], UNKNOWN):
        return True
    try:
        held = json.loads(_mark(workspace).read_text())
    except (OSError, ValueError):
        return True
    if held != expected:
        return True
    database = _database(store)
    if database and not database.exists():
        return True
    return not set(VIEWS) <= {view.name for view in store.list_feature_views()}


def _published_in_redis(store: Any) -> str | None:
    """The publication that Redis holds, None of an empty one; `UNKNOWN` while it does not answer.

    Raises:
        ForeignStoreError: its place there belongs to another workspace.
    """
    from redis import RedisError

    with _redis() as online:
        try:
            return online.published(store.config)
        except RedisError:
            return UNKNOWN


@contextmanager
def _redis() -> Iterator[Any]:
    """A `WorkspaceRedisOnlineStore`, disconnected afterwards."""
    from feature_repo.online_store import WorkspaceRedisOnlineStore

    online = WorkspaceRedisOnlineStore()
    try:
        yield online
    finally:
        online.disconnect()


def _held(workspace: Workspace, store: Any) -> dict[str, Any]:
    online = store.config.online_store
    place = [online.type, getattr(online, "path", None)]
    if online.type == REDIS:
        from feature_repo.online_store import key_space

        address = online.connection_string.split(",")[0]  # a password may stand behind it
        place = [online.type, address, key_space(store.config)]
    return {"published_sha256": sha256(workspace.published), "online_store": place}


def _mark(workspace: Workspace) -> Path:
    return workspace.published.with_name("materialized.json")


def _database(store: Any) -> Path | None:
    """The file of the online store, if it is one."""
    online = store.config.online_store
    return store.config.repo_path / online.path if online.type in SQLITE else None


def _read_while_writing(store: Any) -> None:
    """Let SQLite readers go on while somebody writes."""
    path = _database(store)
    if path:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")


@contextmanager
def _quick_import() -> Iterator[None]:
    """For Feast's import, leave out the two things that take most of its time.

    Feast 0.67 has typeguard check every call of some hundred methods, for which each is compiled anew;
    and it imports torch where it can, for `to_tensor` alone, which then says that there is none.
    """
    is_hidden = not {"torch", "feast"} & sys.modules.keys()
    if is_hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what makes `import torch` fail
    try:
        with patch("typeguard.typechecked", _unchecked):
            yield
    finally:
        if is_hidden:
            del sys.modules["torch"]


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """In place of the decorator `typeguard.typechecked`, with or without options."""
    return _unchecked if target is None else target
