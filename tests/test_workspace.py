import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import Timeout
from support.project import PROJECT

from pitwise.errors import DataError, StoreError
from pitwise.workspace import (
    Artifact,
    Workspace,
    pushed_folder,
    read_json,
    read_parquet,
    replacing,
    sha256,
    write_json,
    write_parquet,
)

ARTIFACTS = {name: value.path for name, value in vars(Workspace).items() if isinstance(value, Artifact)}


def opened(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_artifact_is_an_absolute_path_below_the_root(tmp_path):
    workspace = Workspace(tmp_path)
    assert len(ARTIFACTS) > 30
    for name, relative in ARTIFACTS.items():
        assert getattr(workspace, name) == tmp_path / relative
        assert getattr(workspace, name).is_absolute()
        assert getattr(Workspace, name) == Path(relative)


def test_no_two_artifacts_share_a_path():
    assert len(set(ARTIFACTS.values())) == len(ARTIFACTS)


def test_two_workspaces_have_paths_of_their_own(tmp_path):
    one, two = Workspace(tmp_path / "one"), Workspace(str(tmp_path / "two"))
    assert one.clean_bars == tmp_path / "one/data/clean/bars.parquet"
    assert two.clean_bars == tmp_path / "two/data/clean/bars.parquet"
    assert repr(one) == f"Workspace('{tmp_path}/one')"


@pytest.mark.component
def test_a_relative_root_becomes_absolute_at_once(tmp_path):
    program = (
        "from pitwise.workspace import Workspace\n"
        "workspace = Workspace('run')\n"
        "print(workspace.root, workspace.params, workspace.path('prices'), "
        "workspace.database_url('sqlite:///mlflow.db'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT.root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    expected = ["run", "run/params.yaml", "run/prices"]
    assert done.stdout.split() == [
        *(str(tmp_path / path) for path in expected),
        f"sqlite:///{tmp_path}/run/mlflow.db",
    ]


def test_a_path_of_the_params_is_of_the_workspace_the_home_or_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    workspace = Workspace(tmp_path)
    assert workspace.path("prices/all.csv") == tmp_path / "prices/all.csv"
    assert workspace.path(Path("prices")) == tmp_path / "prices"
    assert workspace.path("/srv/prices") == Path("/srv/prices")
    assert workspace.path("~/prices") == Path("/home/someone/prices")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///data/serving/log.db", "sqlite:///{root}/data/serving/log.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql+psycopg://me@host/log", "postgresql+psycopg://me@host/log"),
        ("http://registry:5000", "http://registry:5000"),
    ],
)
def test_the_file_of_a_relative_sqlite_url_is_of_the_workspace_and_no_other(tmp_path, url, found):
    assert Workspace(tmp_path).database_url(url) == found.format(root=tmp_path)


@pytest.mark.parametrize("params", ["ingest:\n  source: csv\n", "clean: {}\ningest: {source: csv}\n"])
def test_a_workspace_of_before_there_were_landings_is_refused_with_what_to_do(tmp_path, params):
    (tmp_path / "params.yaml").write_text(params)
    message = f"{tmp_path}: is a workspace of an older version.*`pitwise upgrade` in it brings it up"
    with pytest.raises(StoreError, match=message):
        Workspace(tmp_path).require_landings()


@pytest.mark.parametrize("params", [None, "", "load: {source: csv}\n", "# ingest:\nload: {ingest: x}\n"])
def test_a_workspace_of_landings_and_a_new_folder_are_not_refused(tmp_path, params):
    if params is not None:
        (tmp_path / "params.yaml").write_text(params)
    Workspace(tmp_path).require_landings()


def test_one_writer_at_a_time_holds_the_online_store(tmp_path):
    workspace, same = Workspace(tmp_path), Workspace(tmp_path)
    with workspace.online_writer(), pytest.raises(Timeout):
        same.online_writer().acquire(timeout=0.05)
    with same.online_writer(), Workspace(tmp_path / "other").online_writer():
        pass


def test_pushed_rows_lie_beside_the_table_they_are_pushed_to(tmp_path):
    assert pushed_folder(tmp_path / "daily.parquet") == tmp_path / "daily.pushed"


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_the_old_file_stays_whole_until_it_is_replaced(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


def test_file_and_folder_are_on_the_disk_when_the_block_has_ended(tmp_path, monkeypatch):
    """The bytes before the name, and the name before it returns: a power loss leaves old or new."""
    path, seen = tmp_path / "deep/file.txt", []

    def fsync(handle: int) -> None:
        synced = opened(handle)
        content = synced.read_text() if synced.is_file() else names(synced)
        seen.append((synced, content, path.read_text()))

    path.parent.mkdir()
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert seen == []
    assert seen == [
        (path.parent / ".file.txt.tmp", "new", "old"),
        (path.parent, ["file.txt"], "new"),
    ]


@pytest.mark.parametrize("write", [write_json, lambda x, path: write_parquet(pd.DataFrame(x), path)])
def test_tables_and_documents_are_on_the_disk_too(tmp_path, monkeypatch, write):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(opened(handle)))
    write({"x": [1]}, tmp_path / "file")
    assert synced == [tmp_path / ".file.tmp", tmp_path]


def test_a_write_that_failed_syncs_nothing(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "file.txt") as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise ValueError("early")
    assert synced == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise error
    assert names(tmp_path) == (["file.txt"] if old else [])
    assert not old or path.read_text() == old


def test_a_failure_before_the_first_byte_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "file.txt"):
        raise ValueError("early")
    assert names(tmp_path) == []


def test_a_disk_that_cannot_be_written_is_one_message_that_names_the_file(tmp_path):
    (tmp_path / "file").write_text("no folder")
    message = f"{tmp_path}/file/t.txt: cannot be written"
    with pytest.raises(StoreError, match=message), replacing(tmp_path / "file/t.txt"):
        pass


@pytest.mark.component
def test_a_killed_process_leaves_no_half_written_file(tmp_path):
    program = (
        "import os, pathlib; from pitwise.workspace import replacing\n"
        "with replacing(pathlib.Path('file.txt')) as t: t.write_text('half of the n'); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(PROJECT.root)}, timeout=60
    )
    assert done.returncode == 9
    assert not (tmp_path / "file.txt").exists()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_timestamps_are_written_in_microseconds(tmp_path, unit, zone):
    moment = pd.Timestamp("2014-11-28 18:00", tz=zone)
    frame = pd.DataFrame({"moment": pd.DatetimeIndex([moment]).as_unit(unit)}, index=[5])
    for table in (frame, pa.Table.from_pandas(frame, preserve_index=False)):
        write_parquet(table, tmp_path / "t.parquet")
        schema = pq.read_schema(tmp_path / "t.parquet")
        assert schema.names == ["moment"]
        assert schema.field("moment").type == pa.timestamp("us", zone)
        assert read_parquet(tmp_path / "t.parquet")["moment"].tolist() == [moment]


def test_a_table_comes_back_as_it_was(tmp_path):
    frame = pd.DataFrame({"symbol": ["NA", None], "close": [1.5, None]}).astype({"symbol": "string"})
    write_parquet(frame, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "t.parquet"), frame)
    assert read_parquet(tmp_path / "t.parquet", columns=["close"]).columns.tolist() == ["close"]


def test_only_text_has_a_dictionary(tmp_path):
    frame = pd.DataFrame({"symbol": ["A", "A"], "kind": ["x", "x"], "close": 1.5, "segment": 0})
    write_parquet(frame.astype({"kind": "category"}), tmp_path / "t.parquet")
    columns = pq.read_metadata(tmp_path / "t.parquet").row_group(0).to_dict()["columns"]
    found = {column["path_in_schema"]: column["has_dictionary_page"] for column in columns}
    assert found == {"symbol": True, "kind": True, "close": False, "segment": False}


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(pd.DataFrame({"x": [1]}), path)
    with pytest.raises(pa.ArrowException):
        write_parquet(pd.DataFrame({"x": [1, object()]}), path)
    assert names(tmp_path) == ["t.parquet"]
    assert read_parquet(path)["x"].tolist() == [1]


def test_a_document_comes_back_as_it_was(tmp_path):
    document = {"rows": 3, "by": {"a": [1.5, None]}}
    write_json(document, tmp_path / "d.json")
    assert read_json(tmp_path / "d.json") == document == json.loads((tmp_path / "d.json").read_text())


def test_a_document_with_a_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json({"mape": float("nan")}, tmp_path / "d.json")
    assert names(tmp_path) == []


def test_arrow_opens_a_table_itself(tmp_path):
    """A thread of Arrow's may let go of a file of Python's after the interpreter's end, and abort."""
    path = tmp_path / "t.parquet"
    write_parquet(pd.DataFrame({"x": [1]}), path)
    opens = []

    def audit(event, arguments):
        if event == "open" and arguments[0] == str(path):
            opens.append(arguments)

    sys.addaudithook(audit)
    assert read_parquet(path)["x"].tolist() == [1]
    assert opens == []
    path.read_bytes()
    assert len(opens) == 1  # that the hook hears what it should


@pytest.mark.parametrize("read", [read_parquet, read_json])
def test_a_missing_artifact_names_the_command_that_makes_it(tmp_path, read):
    with pytest.raises(DataError, match=r"absent: is not there\. Run `dvc repro`"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"\x00" * 100])
def test_an_unreadable_table_is_named(tmp_path, content):
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read"):
        read_parquet(tmp_path / "t.parquet")


def test_the_hash_is_sha_256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "abc") == digest
