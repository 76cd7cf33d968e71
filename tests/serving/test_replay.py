"""History played through the live path, in a copy of the default run."""

import json
from pathlib import Path

import pytest
from support.workspaces import NOT_COPIED, Run
from typer.testing import CliRunner

from pitwise.errors import PitwiseError
from serving import cli


@pytest.fixture(scope="module")
def run(default_run, tmp_path_factory) -> Run:
    return default_run.copy(tmp_path_factory.mktemp("replay") / "run", ignore=NOT_COPIED)


def files(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_played_bars_end_in_the_pipelines_windows_and_leave_the_workspace_as_it_was(run):
    assert run.workspace.published.exists()
    assert run.workspace.daily_features.exists()
    before = files(run.path)
    arguments = ("replay", "--from", "2013-02-20", "--to", "2013-02-25", "--json")
    figures = json.loads(run.stage("pitwise.cli", *arguments).stdout)
    assert files(run.path) == before
    assert (figures["first"], figures["last"], figures["sessions"]) == ("2013-02-20", "2013-02-25", 4)
    assert figures["outcomes"] == {"new": 20}
    assert figures["forecasts"] == 20
    assert figures["windows_compared"] == 5
    assert figures["windows_only_on_one_side"] == []
    assert figures["values_compared"] == 5 * 30 * 44
    assert figures["largest_relative_difference"] < 1e-5
    assert figures["median_ms"] > 0


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (("--from", "2031-01-01"), "no session from 2031-01-01"),
        (("--from", "2013-02-25", "--to", "2013-02-20"), "no session from 2013-02-25 to 2013-02-20"),
        (("--from", "1990-01-01", "--to", "1990-02-01"), "its bars are of 2000-03-01 to 2013-03-01"),
    ],
)
def test_sessions_that_cannot_be_played_are_one_clear_line(run, monkeypatch, dates, message):
    monkeypatch.setattr(cli, "_here", lambda: run.workspace)
    done = CliRunner().invoke(cli.app, ["replay", *dates])
    assert isinstance(done.exception, PitwiseError)
    assert done.stdout == ""
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
