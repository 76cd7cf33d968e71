"""History played through the live path, in the default run's workspace."""

import json

import pytest

from feature_repo.artifacts import DAILY_FEATURES, PUBLISHED


def files(workspace) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in workspace.path.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_played_bars_end_in_the_pipelines_windows_and_leave_the_workspace_as_it_was(default_run):
    assert (default_run.path / PUBLISHED).exists()
    assert (default_run.path / DAILY_FEATURES).exists()
    before = files(default_run)
    arguments = ("replay", "--from", "2013-02-20", "--to", "2013-02-25", "--json")
    figures = json.loads(default_run.stage("serving.cli", *arguments).stdout)
    assert files(default_run) == before
    assert (figures["first"], figures["last"], figures["sessions"]) == ("2013-02-20", "2013-02-25", 4)
    assert figures["outcomes"] == {"new": 20}
    assert figures["forecasts"] == 20
    assert figures["windows_compared"] == 5
    assert figures["windows_only_on_one_side"] == []
    assert figures["values_compared"] == 5 * 30 * 32
    assert figures["largest_relative_difference"] < 1e-5
    assert figures["median_ms"] > 0


@pytest.mark.parametrize(
    ("dates", "told"),
    [
        (("--from", "2031-01-01"), "no session from 2031-01-01"),
        (("--from", "2013-02-25", "--to", "2013-02-20"), "no session from 2013-02-25 to 2013-02-20"),
        (("--from", "1990-01-01", "--to", "1990-02-01"), "its bars are of 2000-03-01 to 2013-03-01"),
    ],
)
def test_sessions_that_cannot_be_played_are_one_clear_line(default_run, dates, told):
    done = default_run.stage("serving.cli", "replay", *dates, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert told in done.stderr.replace("\n", " ")
    assert done.stderr.count("error:") == 1
