"""The tutorial's code, run in order as a reader would, and what it prints beside what the page shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tutorial.md"
RUNNER = Path(__file__).with_name("run_blocks.py")


def run(page: Path, folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, RUNNER, page],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.component
def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path):
    done = run(PAGE, tmp_path)
    assert done.returncode == 0, done.stderr
    blocks = json.loads(done.stdout)
    assert len(blocks) == PAGE.read_text().count("```python")
    shown = [block for block in blocks if block["wanted"] is not None]
    assert shown
    for block in blocks:
        assert block["printed"] == (block["wanted"] or ""), block["code"]
    assert (tmp_path / "my-desk/params.yaml").exists()


@pytest.mark.component
@pytest.mark.parametrize(
    "block",
    [
        "```python\nraise KeyError\n```",
        "```sh\npitwise run --sauce csv\n```",
        "```sh\npitwise begin\n```",
        "```sh\nmake coffee\n```",
    ],
)
def test_a_block_that_does_not_run_is_found(tmp_path, block):
    page = tmp_path / "page.md"
    page.write_text(block + "\n")
    assert run(page, tmp_path).returncode != 0
