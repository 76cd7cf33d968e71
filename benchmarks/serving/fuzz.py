"""schemathesis against a running `pitwise serve`: requests made from its own OpenAPI document.

`python -m benchmarks.serving.fuzz runs/csv --examples 300` starts a service of a copy of the finished
run, first without keys and then with, and has `schemathesis run` send what the document allows and what
it does not, with every check on: no server error; status, headers, type and body as documented; what is
allowed is accepted, what is not is refused; keys are asked for.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.service import PROJECT, copied_run, pitwise_serve
from pitwise.stage import run_stage
from pitwise.workspace import Workspace

SCOPES = ("predict", "bars", "model")
WITHOUT = ("/v1/forecasts/stream",)
"""Addresses whose answer has no end."""


def found(url: str, examples: int, key: str = "", seed: int = 1, quiet: bool = False) -> str:
    """What `schemathesis run` finds wrong with a running service, as it says it; empty if nothing.

    Args:
        key: an API key to send.
    """
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{url}/openapi.json", "--url", url, "--checks", "all"]
    command += ["--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--no-color"]
    command += ["--request-timeout", "30", "--generation-database", "none"]
    for path in WITHOUT:
        command += ["--exclude-path", path]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if not quiet:
        print(done.stdout, flush=True)
    sent = re.search(r"(\d+) generated", done.stdout)
    return "" if done.returncode == 0 and sent and int(sent[1]) > examples else done.stdout


def new_key(workspace: Workspace, name: str = "fuzz", scopes: Sequence[str] = SCOPES) -> str:
    """A key for a service of this workspace, by the command."""
    command = [sys.executable, "-W", "ignore", "-m", "pitwise.cli", "key", "add", name]
    for scope in scopes:
        command += ["--scope", scope]
    environment = os.environ | {"PYTHONPATH": str(PROJECT.root)}
    done = subprocess.run(
        command, cwd=workspace.root, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.split()[-1]


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--examples", type=int, default=300, help="requests of each kind and operation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run = Workspace(project.path(options.workspace))
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        workspace = copied_run(run, Path(name) / "run", workers=2)
        with pitwise_serve(workspace) as service:
            wrong.append(found(service.url, options.examples, seed=options.seed))
            key = new_key(workspace)
            wrong.append(found(service.url, options.examples, key, options.seed + 1))
    sys.exit(1 if any(wrong) else 0)


if __name__ == "__main__":
    run_stage(main)
