"""Killed at any moment, on a full disk, in a folder that cannot be written: the next run goes on."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from conftest import ENVIRONMENT, new_workspace

from feature_repo.artifacts import sha256

KILLED_AT_WRITE = """
import os, pathlib, runpy, signal, sys

left, rename = int(sys.argv.pop(1)), pathlib.Path.replace

def replace(self, target):
    global left
    if left == 0:  # the temporary file is whole, and its place not yet taken
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)

pathlib.Path.replace = replace
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
OUTPUTS = {
    "feature_repo.clean": [
        "data/clean/bars.parquet",
        "data/clean/quarantine.parquet",
        "data/clean/events.parquet",
        "metrics/clean.json",
    ],
    "feature_repo.features": ["data/features/daily.parquet", "data/features/revisions.parquet"],
    "feature_repo.publish": ["data/features/windows.parquet", "data/feast/published.json"],
    "training.dataset": ["data/dataset/rows.parquet", "metrics/dataset.json"],
}
STAGES = list(OUTPUTS)
DATABASES = ("data/feast/registry.db", "data/feast/online.db")
LAST = "dataset"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workspace in which `dvc repro` ran undisturbed up to the stage `dataset`."""
    workspace = new_workspace(tmp_path_factory.mktemp("whole") / "project")
    workspace.run("dvc", "repro", LAST)
    return workspace


def hashes(folder) -> dict[str, str]:
    return {name: sha256(folder / name) for names in OUTPUTS.values() for name in names}


def hidden(folder) -> list:
    return list((folder / "data").rglob(".*.tmp"))


def done_before(whole, workspace, stage: str) -> None:
    """Give a fresh workspace what `dvc repro` had done before it came to a stage."""
    # Without the run cache, from which DVC would take the stage's results and not run it.
    shutil.copytree(whole.path / ".dvc/cache/files", workspace.path / ".dvc/cache/files")
    shutil.copytree(whole.path / "data/raw", workspace.path / "data/raw")
    lock = yaml.safe_load((whole.path / "dvc.lock").read_text())
    earlier = STAGES[: STAGES.index(stage)]
    for name in [name for module in earlier for name in OUTPUTS[module]]:
        (workspace.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(whole.path / name, workspace.path / name)
    if "feature_repo.publish" in earlier:
        for database in DATABASES:
            shutil.copy2(whole.path / database, workspace.path / database)
    kept = {"ingest", *(module.split(".")[1] for module in earlier)}
    lock["stages"] = {name: entry for name, entry in lock["stages"].items() if name in kept}
    (workspace.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


@pytest.mark.parametrize(
    ("stage", "write"),
    [(stage, write) for stage in STAGES for write in range(len(OUTPUTS[stage]))],
)
def test_a_stage_killed_at_any_write_is_made_good_by_the_next_dvc_repro(whole, tmp_path, stage, write):
    workspace = new_workspace(tmp_path / "project")
    done_before(whole, workspace, stage)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_WRITE, str(write), stage],
        cwd=workspace.path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name in OUTPUTS[stage][write:]:
        assert not (workspace.path / name).exists(), name
    name = stage.split(".")[1]
    said = workspace.run("dvc", "repro", name).stdout
    assert said.count("Running stage") == 1
    assert f"Running stage '{name}'" in said
    for output in OUTPUTS[stage]:
        assert sha256(workspace.path / output) == sha256(whole.path / output)
    assert not hidden(workspace.path)


def in_a_mount(workspace, folder: str, options: str, stage: str) -> subprocess.CompletedProcess:
    """Run a stage with a small file system of its own mounted at `folder`."""
    probe = subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    (workspace.path / folder).mkdir(parents=True, exist_ok=True)
    command = f"mount -t tmpfs -o {options} tmpfs {folder} && exec {sys.executable} -m {stage}"
    return workspace.run("unshare", "--mount", "--map-root-user", "sh", "-c", command, check=False)


@pytest.mark.parametrize(
    ("folder", "options", "stage"),
    [
        ("data/clean", "size=64k", "feature_repo.clean"),
        ("data/features", "size=256k", "feature_repo.features"),
        ("data/feast", "size=64k", "feature_repo.publish"),
        ("data/dataset", "size=256k", "training.dataset"),
        ("data/clean", "ro", "feature_repo.clean"),
        ("data/dataset", "ro", "training.dataset"),
    ],
)
def test_a_full_or_locked_disk_is_one_clear_message_and_the_next_run_goes_on(
    whole, tmp_path, folder, options, stage
):
    copy = type(whole)(tmp_path / "project")
    shutil.copytree(whole.path, copy.path)
    if stage == "feature_repo.features":  # its input must not be hidden by the mount, its history may
        shutil.rmtree(copy.path / "data/features")
    done = in_a_mount(copy, folder, options, stage)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert any(word in errors[0] for word in ("space", "full", "Read-only", "disk")), errors
    copy.run("dvc", "repro", LAST)
    assert hashes(copy.path) == hashes(whole.path)


def test_a_killed_run_leaves_a_lock_that_dvc_can_take_over(whole, tmp_path):
    """`kill -9` of dvc itself: its lock files do not stop the next `dvc repro`."""
    workspace = new_workspace(tmp_path / "project")
    process = subprocess.Popen(
        ["dvc", "repro", "clean"],
        cwd=workspace.path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if "Running stage 'clean'" in line:
            break
    subprocess.run(["pkill", "-KILL", "--session", str(process.pid)], check=True)
    process.wait(timeout=30)
    workspace.run("dvc", "repro", "clean")
    made = sha256(workspace.path / "data/clean/bars.parquet")
    assert made == sha256(whole.path / "data/clean/bars.parquet")
    report = json.loads((workspace.path / "metrics/clean.json").read_text())
    assert report["rows_in"] == 12154
