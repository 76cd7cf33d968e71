"""Killed at any moment, on a full disk, in a folder that cannot be written: the next run goes on."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.once import once
from support.workspaces import ENVIRONMENT, Run, new_run

from pitwise.workspace import sha256

KILLED_AT_EACH_WRITE = """
import os, pathlib, signal, sys
from importlib import import_module
from pitwise.workspace import Workspace

main, rename = import_module(sys.argv[1]).main, pathlib.Path.replace
for write, folder in enumerate(sys.argv[2:]):
    child = os.fork()
    if child == 0:
        left = write

        def replace(self, target):
            global left
            if left == 0:  # the temporary file is whole, and its place not yet taken
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return rename(self, target)

        pathlib.Path.replace = replace
        try:
            main(Workspace(folder))
        finally:
            os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs a stage in each of some folders, in the n-th killed at its n-th write; prints the exit codes."""


class Stage(NamedTuple):
    module: str
    outputs: list[str]
    """Files in the order in which the stage writes them."""


STAGES = {
    "bars": Stage(
        "pitwise.bars.__main__",
        [
            "data/bars/versions.parquet",
            "data/bars/factors.parquet",
            "data/bars/seals.parquet",
            "data/bars/actions.parquet",
            "data/bars/landings.json",
        ],
    ),
    "clean": Stage(
        "pitwise.cleaning.__main__",
        [
            "data/clean/bars.parquet",
            "data/clean/quarantine.parquet",
            "data/clean/events.parquet",
            "data/clean/changes.parquet",
            "data/clean/market.parquet",
            "data/clean/session_copies.parquet",
            "data/clean/absent.parquet",
            "metrics/clean.json",
        ],
    ),
    "features": Stage(
        "pitwise.features.__main__", ["data/features/daily.parquet", "data/features/revisions.parquet"]
    ),
    "publish": Stage(
        "feature_repo.publish", ["data/features/windows.parquet", "data/feast/published.json"]
    ),
    "dataset": Stage(
        "training.dataset",
        ["data/dataset/served.parquet", "data/dataset/rows.parquet", "metrics/dataset.json"],
    ),
}
STATE = ("data/feast/registry.db", "data/feast/online.db", "data/feast/materialized.json")
"""What publish leaves beside its outputs; without it the store is made again as it is opened."""
LAST = "dataset"


def hashes(folder: Path) -> dict[str, str]:
    return {name: sha256(folder / name) for stage in STAGES.values() for name in stage.outputs}


def hidden(folder: Path) -> list[Path]:
    return list((folder / "data").rglob(".*.tmp"))


def stopped_before(stage: str, whole: Run, folder: Path) -> Run:
    """A fresh workspace with what `dvc repro` had done before it came to a stage."""
    run = new_run(folder)
    # Without the run cache, from which DVC would take the stage's results and not run it.
    shutil.copytree(whole.path / ".dvc/cache/files", run.path / ".dvc/cache/files")
    shutil.copytree(whole.workspace.landing, run.workspace.landing)
    shutil.copy2(whole.path / "data/landing.dvc", run.path / "data/landing.dvc")
    lock = yaml.safe_load((whole.path / "dvc.lock").read_text())
    earlier = list(STAGES)[: list(STAGES).index(stage)]
    for name in [name for done in earlier for name in STAGES[done].outputs]:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(whole.path / name, run.path / name)
    if "publish" in earlier:
        for name in STATE:
            shutil.copy2(whole.path / name, run.path / name)
    lock["stages"] = {name: lock["stages"][name] for name in earlier}
    (run.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    return run


@pytest.fixture(scope="module")
def killed(default_run, tmp_path_factory):
    """Of a stage, by the number of a write: the workspace in which the stage was killed at it."""

    def kill(stage: str, folder: Path) -> None:
        module, outputs = STAGES[stage]
        runs = [stopped_before(stage, default_run, folder / str(i)) for i in range(len(outputs))]
        folders = [str(run.path) for run in runs]
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AT_EACH_WRITE, module, *folders],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        codes = [int(code) for code in done.stdout.split()]
        assert codes == [-signal.SIGKILL] * len(outputs), done.stderr

    def folders(stage: str) -> Path:
        return once(tmp_path_factory, f"killed_{stage}", lambda folder: kill(stage, folder))

    return folders


@pytest.mark.parametrize(
    ("stage", "write"),
    [(name, write) for name, stage in STAGES.items() for write in range(len(stage.outputs))],
)
def test_a_stage_killed_at_any_write_is_made_good_by_the_next_dvc_repro(
    default_run, killed, tmp_path, stage, write
):
    outputs = STAGES[stage].outputs
    run = Run(killed(stage) / str(write)).copy(tmp_path / "project")
    for name in outputs[:write]:
        assert (run.path / name).exists(), name
    for name in outputs[write:]:
        assert not (run.path / name).exists(), name
    shown = run.run("dvc", "repro", stage).stdout
    assert shown.count("Running stage") == 1
    assert f"Running stage '{stage}'" in shown
    for output in outputs:
        assert sha256(run.path / output) == sha256(default_run.path / output)
    assert not hidden(run.path)


def in_a_mount(run: Run, folder: str, options: str, stage: str) -> subprocess.CompletedProcess:
    """Run a stage with a small file system of its own mounted at `folder`."""
    probe = subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    (run.path / folder).mkdir(parents=True, exist_ok=True)
    command = f"mount -t tmpfs -o {options} tmpfs {folder} && exec {sys.executable} -m {stage}"
    return run.run("unshare", "--mount", "--map-root-user", "sh", "-c", command, check=False)


@pytest.mark.parametrize(
    ("folder", "options", "stage"),
    [
        ("data/landing", "size=64k", "pitwise.cli load"),
        ("data/bars", "size=64k", "pitwise.bars"),
        ("data/clean", "size=64k", "pitwise.cleaning"),
        ("data/features", "size=256k", "pitwise.features"),
        ("data/feast", "size=64k", "feature_repo.publish"),
        ("data/dataset", "size=256k", "training.dataset"),
        ("data/landing", "ro", "pitwise.cli load"),
        ("data/clean", "ro", "pitwise.cleaning"),
        ("data/dataset", "ro", "training.dataset"),
    ],
)
def test_a_full_or_locked_disk_is_one_clear_message_and_the_next_run_goes_on(
    default_run, tmp_path, folder, options, stage
):
    copy = default_run.copy(tmp_path / "project")
    done = in_a_mount(copy, folder, options, stage)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert any(word in errors[0] for word in ("space", "full", "Read-only", "disk")), errors
    copy.run("dvc", "repro", LAST)
    assert hashes(copy.path) == hashes(default_run.path)


def test_a_killed_run_leaves_a_lock_that_dvc_can_take_over(default_run, tmp_path):
    """`kill -9` of dvc itself: its lock files do not stop the next `dvc repro`."""
    run = new_run(tmp_path / "project")
    run.run("pitwise", "load")
    process = subprocess.Popen(
        ["dvc", "repro", "clean"],
        cwd=run.path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        for line in process.stdout:
            if "Running stage 'clean'" in line:
                break
        subprocess.run(["pkill", "-KILL", "--session", str(process.pid)], check=True)
        process.wait(timeout=30)
    run.run("dvc", "repro", "clean")
    assert sha256(run.workspace.clean_bars) == sha256(default_run.workspace.clean_bars)
    assert run.report("metrics/clean.json")["rows_in"] == 12154
