"""What was delivered, in DVC's hands and by the project's own .gitignore."""

import subprocess
import sys
from pathlib import Path
from shutil import copyfile

import pytest
from support.project import PROJECT

NAME = "20240102T210000000000Z-csv-0123456789ab.parquet"


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one landing that DVC tracks."""
    folder = tmp_path / "project"
    (folder / "data/landing").mkdir(parents=True)
    run(folder, "git", "init", "--quiet")
    for key, value in (("email", "a@example.org"), ("name", "A")):
        run(folder, "git", "config", f"user.{key}", value)
    copyfile(PROJECT.root / ".gitignore", folder / ".gitignore")
    dvc(folder, "init", "--quiet")
    (folder / "data/landing" / NAME).write_bytes(b"delivered")
    dvc(folder, "add", "--quiet", "data/landing")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "one delivery")
    return folder


def test_git_has_the_hash_and_dvc_brings_the_files_back(project, tmp_path):
    assert "data/landing.dvc" in run(project, "git", "ls-files").splitlines()
    (project / "data/landing" / NAME).unlink()
    dvc(project, "checkout", "--quiet")
    assert (project / "data/landing" / NAME).read_bytes() == b"delivered"
    dvc(project, "remote", "add", "--quiet", "--default", "here", str(tmp_path / "remote"))
    dvc(project, "push", "--quiet")
    run(project, "git", "commit", "--quiet", "--all", "--message", "a remote")
    run(tmp_path, "git", "clone", "--quiet", str(project), "clone")
    dvc(tmp_path / "clone", "pull", "--quiet")
    assert (tmp_path / "clone/data/landing" / NAME).read_bytes() == b"delivered"
