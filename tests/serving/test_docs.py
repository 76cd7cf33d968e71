"""The examples of docs/serving.md, run in their order against a real service.

A ```json block is what the command above it prints: the same keys, in every depth. A ```text block is
its output to the letter, but for numbers with a decimal point. Every command ends with 0. Left out are
the examples for Redis and PostgreSQL, which `feature_repo/test_online_stores.py` and
`registry/test_prediction_log.py` try by other means, and `pitwise serve` and its `source`, which the
fixture stands for.
"""

import json
import re
import select
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from support.servers import free_port
from support.workspaces import ENVIRONMENT, NOT_COPIED, ROOT, Run
from typer.testing import CliRunner

from serving import cli
from serving.http.problems import KINDS

PAGE = (ROOT / "docs/serving.md").read_text()
ADDRESS = "http://127.0.0.1:8600"
START = "source .venv/bin/activate\npitwise serve\n"
READY_SECONDS = 60
# This environment's, whatever is on the path.
PITWISE = f'set -e\npitwise() {{ "{sys.executable}" -m pitwise.cli "$@"; }}\n'


@dataclass(frozen=True)
class Example:
    language: str
    code: str
    kind: str
    """json | text | "" where no output is shown"""
    shown: str


def examples() -> list[Example]:
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    following = [*fences[1:], ("", "")]
    return [
        Example(*fence, *(then if then[0] in ("json", "text") else ("", "")))
        for fence, then in zip(fences, following, strict=True)
        if fence[0] in ("sh", "python") and fence[1] != START and "redis" not in fence[1]
    ]


def keys(document):
    """A document's keys in every depth; of a list, those of its first item."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in document.items()}
    return [keys(item) for item in document[:1]] if isinstance(document, list) else None


@pytest.fixture(scope="module")
def service(default_run, tmp_path_factory):
    """A service in a copy of the default run, which its examples change; and its address."""
    copy = default_run.copy(tmp_path_factory.mktemp("docs") / "project", ignore=NOT_COPIED)
    copy.stage("feature_repo.publish")  # Feast's registry knows absolute paths
    port = free_port()
    log = copy.path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pitwise.cli", "serve", "--port", str(port)],
            cwd=copy.path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    try:
        ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline() if ready else ""
        assert "serves version" in line, log.read_text()
        yield copy, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def run(copy: Run, address: str, example: Example) -> str:
    code = example.code.replace(ADDRESS, address)
    lines = code.splitlines()
    if all(line.startswith("pitwise ") for line in lines):  # in this process: each start takes seconds
        commands = [shlex.split(line, comments=True)[1:] for line in lines]
        done = [CliRunner().invoke(cli.app, line, catch_exceptions=False) for line in commands]
        assert not any(one.exit_code for one in done), code
        return "".join(one.stdout for one in done)
    if example.language == "python":
        return copy.run(sys.executable, "-c", code, timeout=60).stdout
    return copy.run("bash", "-c", PITWISE + code, timeout=120).stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_every_example_prints_what_the_page_shows(service, monkeypatch):
    copy, address = service
    monkeypatch.chdir(copy.path)
    every = examples()
    assert len(every) >= 15
    for example in every:
        printed = run(copy, address, example)
        if example.kind == "json":
            assert keys(json.loads(printed)) == keys(json.loads(example.shown)), example.code
        elif example.kind == "text":
            number = re.compile(r"\d+\.\d+")
            assert number.sub("#", printed) == number.sub("#", example.shown), example.code
        else:
            assert printed.strip(), example.code
            assert '"type":"/problems/' not in printed, example.code


def test_the_page_starts_the_service_as_the_fixture_does():
    assert f"```sh\n{START}```" in PAGE
    assert PAGE.count("pitwise serve\n") == 2  # here and for Redis


def test_the_table_of_problems_is_that_of_the_code():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", PAGE, flags=re.MULTILINE)
    assert [(name, int(status)) for name, status in rows] == [(k, s) for k, (s, _) in KINDS.items()]
