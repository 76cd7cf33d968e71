"""Feast's store of a workspace: the one way to get to it.

Feast's registry and the online store are a cache of the published files: `data/feast/materialized.json`
names the publication and the online store that they hold. Where that is not what is published, as after
a checkout, in a fresh clone or in an experiment's folder, the next who opens the store makes them anew.
"""

import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pitwise.workspace import Workspace, pushed_folder, read_parquet, sha256, write_json

VIEWS = ("daily", "windows")


def open_store(workspace: Workspace, rebuild: bool = True) -> Any:
    """A `feast.FeatureStore` of the workspace, in a second instead of five.

    Feast's variable FEAST_FS_YAML_FILE_PATH names other settings than `feature_repo/feature_store.yaml`.

    Args:
        rebuild: apply the definitions and materialize the published files where the store does not hold
            them; who publishes does so itself.
    """
    # Before Feast, whose own metrics would have the whole process keep its values in files.
    import prometheus_client  # noqa: F401

    with _quick_import():
        from feast import FeatureStore
    store = FeatureStore(str(workspace.feast_repo))
    if rebuild and _outdated(workspace, store):
        with workspace.online_writer():
            if _outdated(workspace, store):  # nobody else did meanwhile
                materialize(workspace, store)
    return store


def materialize(workspace: Workspace, store: Any) -> None:
    """Apply the definitions and put the newest standing row of each symbol online, pushed ones too.

    To be called with `workspace.online_writer()` held and the publication's files written.
    """
    import pandas as pd

    from feature_repo.definitions import OBJECTS
    from pitwise.bars.calendar import session_close

    instants = read_parquet(workspace.daily_features, ["event_timestamp"])["event_timestamp"]
    pushed = [path.stem for path in pushed_folder(workspace.daily_features).glob("*.parquet")]
    closes = session_close(pd.to_datetime(pd.Series(pushed))) if pushed else instants
    with redirect_stdout(sys.stdout if sys.stdout.isatty() else io.StringIO()):
        store.apply(OBJECTS)
        _read_while_writing(store)
        # Whole history on purpose: a symbol that stopped trading keeps its last values.
        store.materialize(
            start_date=instants.min().to_pydatetime(),
            end_date=max(instants.max(), closes.max()).to_pydatetime(),
            feature_views=list(VIEWS),
        )
    mark_materialized(workspace, store)


def mark_materialized(workspace: Workspace, store: Any) -> None:
    """Note that registry and online store hold what is published now."""
    if workspace.published.exists():
        write_json(_held(workspace, store), _mark(workspace))


def _outdated(workspace: Workspace, store: Any) -> bool:
    """Whether something is published that the registry or the online store does not hold."""
    files = (workspace.published, workspace.daily_features, workspace.window_features)
    if not all(path.exists() for path in files):
        return False
    try:
        held = json.loads(_mark(workspace).read_text())
    except (OSError, ValueError):
        return True
    if held != _held(workspace, store):
        return True
    database = _database(store)
    if database and not database.exists():
        return True
    return not set(VIEWS) <= {view.name for view in store.list_feature_views()}


def _held(workspace: Workspace, store: Any) -> dict[str, Any]:
    online = store.config.online_store
    place = getattr(online, "connection_string", None) or getattr(online, "path", None)
    return {"published_sha256": sha256(workspace.published), "online_store": [online.type, place]}


def _mark(workspace: Workspace) -> Path:
    return workspace.published.with_name("materialized.json")


def _database(store: Any) -> Path | None:
    """The file of the online store, if it is one."""
    online = store.config.online_store
    return store.config.repo_path / online.path if online.type == "sqlite" else None


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
