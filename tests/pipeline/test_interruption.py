"""Killed at any moment, on a full disk, in a folder that cannot be written: the next run goes on."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.workspaces import ENVIRONMENT, Run, new_run

from pitwise.workspace import sha256

KILLED_AT_EACH_WRITE = """
import json, os, pathlib, signal, sys
from importlib import import_module
from pitwise.workspace import Workspace

module, outputs, folders = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
main, rename = import_module(module).main, pathlib.Path.replace

def run(folder, left):
    def replace(self, target):
        nonlocal left
        if left == 0:  # the temporary file is whole, and its place not yet taken
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return rename(self, target)

    child = os.fork()
    if child == 0:
        pathlib.Path.replace = replace
        try:
            main(Workspace(folder))
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for write, folder in enumerate(folders):
    killed = run(folder, write)
    there = [name for name in outputs if pathlib.Path(folder, name).exists()]
    print(json.dumps([killed, there, run(folder, -1)]), flush=True)
"""
"""Runs a stage in each of some folders, in the n-th killed at its n-th write and then run again; prints
for each the exit code, the outputs that were there then, and the second exit code."""
ON_OTHER_DISKS = """
import json, os, runpy, subprocess, sys
from importlib import import_module

cases = json.loads(sys.argv[1])
for module, *_ in cases:
    import_module(module)  # once for all
for module, arguments, folder, options in cases:
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    shown = os.memfd_create("shown")
    child = os.fork()
    if child == 0:
        os.dup2(shown, 2)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as stopped:
            sys.stderr.flush()
            os._exit(stopped.code or 0)
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    subprocess.run(["umount", folder], check=True)
    os.lseek(shown, 0, 0)
    print(json.dumps([code, os.read(shown, 100_000).decode()]), flush=True)
"""
"""Runs stages one by one, each with a small file system of its own mounted over one of its folders;
prints each one's exit code and standard error."""


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
            "data/clean/market.parquet",
            "data/clean/session_copies.parquet",
            "data/clean/absent.parquet",
            "data/clean/bars.parquet",
            "data/clean/quarantine.parquet",
            "data/clean/events.parquet",
            "data/clean/changes.parquet",
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
    shutil.copytree(whole.workspace.landing, run.workspace.landing)
    earlier = list(STAGES)[: list(STAGES).index(stage)]
    for name in [name for done in earlier for name in STAGES[done].outputs]:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(whole.path / name, run.path / name)
    if "publish" in earlier:
        for name in STATE:
            shutil.copy2(whole.path / name, run.path / name)
    return run


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_at_any_write_is_made_good_by_its_next_run(default_run, tmp_path, stage):
    module, outputs = STAGES[stage]
    runs = [stopped_before(stage, default_run, tmp_path / str(write)) for write in range(len(outputs))]
    folders = [str(run.path) for run in runs]
    command = [sys.executable, "-c", KILLED_AT_EACH_WRITE, module, ",".join(outputs), *folders]
    shown = runs[0].run(*command).stdout
    happened = [json.loads(line) for line in shown.splitlines() if line.startswith("[")]
    assert happened == [[-signal.SIGKILL, outputs[:write], 0] for write in range(len(outputs))]
    for run in runs:
        for output in outputs:
            assert sha256(run.path / output) == sha256(default_run.path / output)
        assert not hidden(run.path)


@pytest.mark.parametrize("stage", ["clean", "publish"])
def test_what_a_killed_stage_left_does_not_pass_for_done(default_run, tmp_path, stage):
    """All its outputs but the last are there when `dvc repro` comes to it again."""
    run = stopped_before(stage, default_run, tmp_path / "project")
    # Without the run cache, from which DVC would take the stage's results and not run it.
    shutil.copytree(default_run.path / ".dvc/cache/files", run.path / ".dvc/cache/files")
    shutil.copy2(default_run.path / "data/landing.dvc", run.path / "data/landing.dvc")
    lock = yaml.safe_load((default_run.path / "dvc.lock").read_text())
    earlier = list(STAGES)[: list(STAGES).index(stage)]
    lock["stages"] = {name: lock["stages"][name] for name in earlier}
    (run.path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    outputs = STAGES[stage].outputs
    for name in outputs[:-1]:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(default_run.path / name, run.path / name)
    shown = run.run("dvc", "repro", stage).stdout
    assert re.findall("Running stage '(.*)'", shown) == [stage]
    for output in outputs:
        assert sha256(run.path / output) == sha256(default_run.path / output)


DISKS = [
    ("pitwise.cli", ["load"], "data/landing", "size=64k"),
    ("pitwise.bars", [], "data/bars", "size=64k"),
    ("pitwise.cleaning", [], "data/clean", "size=64k"),
    ("pitwise.features", [], "data/features", "size=256k"),
    ("feature_repo.publish", [], "data/feast", "size=64k"),
    ("training.dataset", [], "data/dataset", "size=256k"),
    ("pitwise.cli", ["load"], "data/landing", "ro"),
    ("pitwise.cleaning", [], "data/clean", "ro"),
    ("training.dataset", [], "data/dataset", "ro"),
]


def test_a_full_or_locked_disk_is_one_clear_message_and_the_next_run_goes_on(default_run, tmp_path):
    namespace = ("unshare", "--mount", "--map-root-user")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    copy = default_run.copy(tmp_path / "project")
    shown = copy.run(*namespace, sys.executable, "-c", ON_OTHER_DISKS, json.dumps(DISKS)).stdout
    happened = [json.loads(line) for line in shown.splitlines() if line.startswith("[")]
    for case, (code, said) in zip(DISKS, happened, strict=True):
        assert code == 1, (case, said)
        assert "Traceback" not in said, case
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, case
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
