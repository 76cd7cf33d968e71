"""The command `pitwise`: what a person types, sees and reads when it goes wrong."""

import subprocess
import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from pitwise import cli, extras, pipeline
from pitwise.cli import add_commands
from pitwise.errors import StoreError
from pitwise.ingest import IngestParams
from pitwise.init import new_workspace
from pitwise.pipeline import PipelineError, run_pipeline
from pitwise.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]


def pitwise(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pitwise.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.component
def test_the_version_is_the_package_s():
    done = pitwise("--version")
    assert (done.returncode, done.stdout) == (0, f"pitwise {version('pitwise')}\n")


@pytest.mark.component
def test_help_lists_the_commands_of_every_room():
    done = pitwise("--help")
    assert done.returncode == 0
    for command in ("init", "run", "predict", "serve", "replay", "model", "key"):
        assert f"│ {command} " in done.stdout


@pytest.mark.component
@pytest.mark.parametrize("command", ["init", "run", "predict", "serve", "replay"])
def test_the_help_of_every_command_has_an_example(command):
    done = pitwise(command, "--help")
    assert done.returncode == 0
    assert f"Example: pitwise {command}" in " ".join(done.stdout.split())


@pytest.mark.component
def test_the_help_of_run_says_what_it_costs():
    shown = " ".join(pitwise("run", "--help").stdout.replace("│", " ").split())
    for figure in ("minutes", "GB of memory", "GB of disk", "network"):
        assert figure in shown


@pytest.mark.component
def test_help_loads_nothing_heavy():
    program = (
        "import sys; from typer.testing import CliRunner; from importlib.metadata import entry_points\n"
        "from pitwise import cli; cli.add_commands(cli.app, list(entry_points(group=cli.GROUP)))\n"
        "assert CliRunner().invoke(cli.app, ['--help']).exit_code == 0\n"
        "heavy = {'pandas', 'pyarrow', 'mlflow', 'feast', 'fastapi', 'torch', 'dvc'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_sources_of_run_are_those_of_the_params():
    assert get_args(cli.Source) == get_args(IngestParams.model_fields["source"].annotation)


@pytest.mark.component
def test_init_makes_a_workspace(tmp_path):
    done = pitwise("init", "my desk", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "my desk") in done.stdout
    assert (tmp_path / "my desk/dvc.yaml").exists()


@pytest.mark.component
def test_an_error_is_one_message_without_a_traceback(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = pitwise("init", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}: holds files that `pitwise init` did not make")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.component
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["run"],
            1,
            "is not a workspace: it has no params.yaml and dvc.yaml. `pitwise init DIR` makes one.",
        ),
        (["run", "--source", "csv", "--data", "nowhere"], 1, "params.yaml"),
        (["run", "--source", "csv"], 1, "--data: say which prices"),
        (["run", "--source", "bloomberg"], 2, "'bloomberg' is not one of 'sample', 'csv', 'yfinance'"),
        (["run", "--data", "prices"], 2, "--data and --name go with --source"),
        (["run", "--name", "x"], 2, "--data and --name go with --source"),
        (["init"], 2, "Missing argument"),
    ],
)
def test_a_mistake_is_named(tmp_path, arguments, code, message):
    if "nowhere" in arguments:
        new_workspace(tmp_path / "desk")
        cwd, message = tmp_path / "desk", "nowhere: there is no such file or folder"
    else:
        cwd = tmp_path
    done = pitwise(*arguments, cwd=cwd)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


# Running, with DVC out of the way.


@pytest.fixture
def ran(monkeypatch) -> list[tuple[Path, bool]]:
    """The workspaces that the command had run."""
    runs: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        pipeline, "run_pipeline", lambda w, retrieve=False: runs.append((w.root, retrieve))
    )
    return runs


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Workspace:
    """A workspace, as the one that the shell stands in."""
    made = new_workspace(tmp_path / "desk")
    monkeypatch.setattr(cli.Path, "cwd", lambda: made.root)
    return made


def run(*arguments: str) -> None:
    done = CliRunner().invoke(cli.app, ["run", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_run_runs_the_workspace_with_the_pipeline_of_the_installed_code(desk, ran):
    pipeline_before = (desk.root / "dvc.yaml").read_text()
    (desk.root / "dvc.yaml").write_text(pipeline_before + "# older\n")
    run()
    assert ran == [(desk.root, False)]
    assert (desk.root / "dvc.yaml").read_text() == pipeline_before


def test_run_leaves_a_pipeline_that_init_did_not_make(desk, ran):
    (desk.root / "dvc.yaml").write_text("stages: {}\n")
    run()
    assert ran == [(desk.root, False)]
    assert (desk.root / "dvc.yaml").read_text() == "stages: {}\n"


def test_run_with_a_source_runs_below(desk, ran, tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text("symbol,date,close\n")
    run("--source", "csv", "--data", str(prices))
    run("--source", "synthetic", "--name", "made")
    run("--source", "yfinance")
    below = desk.root / "runs"
    assert ran == [(below / "csv", False), (below / "made", False), (below / "yfinance", True)]


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The programs that a run started, each without its Python."""
    started: list[list[str]] = []

    def start(command, cwd, env, check):
        assert command[:2] == [sys.executable, "-m"]
        assert env["PATH"].startswith(str(Path(sys.executable).parent))
        started.append(command[2:])
        return subprocess.CompletedProcess(command, returncode=3 if "fail" in str(cwd) else 0)

    monkeypatch.setattr(pipeline.subprocess, "run", start)
    return started


def test_a_run_is_dvc_and_then_the_summary(desk, commands):
    run_pipeline(desk)
    assert commands == [["dvc", "repro"], ["monitoring.summary"]]


def test_a_source_on_the_network_is_asked_again(desk, commands):
    run_pipeline(desk, retrieve=True)
    assert commands[0] == ["dvc", "repro", "--force", "--single-item", "ingest"]
    assert commands[1:] == [["dvc", "repro"], ["monitoring.summary"]]


def test_a_stage_that_fails_ends_the_run(tmp_path, commands):
    with pytest.raises(PipelineError, match="`dvc repro` failed; its messages stand above"):
        run_pipeline(new_workspace(tmp_path / "fail"))
    assert commands == [["dvc", "repro"]]


def test_a_run_without_what_its_stages_import_is_refused(desk, commands, hidden):
    hidden.update({"torch", "dvc", "yfinance", "evidently", "fastapi"})
    message = "the pipeline needs dvc, evidently, fastapi, torch, yfinance, which"
    with pytest.raises(StoreError, match=message):
        run_pipeline(desk)
    assert commands == []


# Rooms that are not installed, or only in part.


def room(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=cli.GROUP)


@pytest.fixture
def hidden(monkeypatch) -> set[str]:
    """Distributions that count as not installed."""
    names: set[str] = set()
    real = extras._is_installed
    monkeypatch.setattr(extras, "_is_installed", lambda name: name not in names and real(name))
    return names


@pytest.fixture
def fresh() -> typer.Typer:
    app = typer.Typer()
    app.command("init")(lambda: None)
    return app


def test_a_room_that_cannot_be_imported_breaks_no_help(fresh):
    add_commands(fresh, [room("desks", "no_such_package.cli:app"), room("serving", "serving.cli:app")])
    done = CliRunner().invoke(fresh, ["--help"])
    assert done.exit_code == 0
    assert "│ desks " in done.output
    assert " predict " in done.output


def test_the_command_of_a_room_that_cannot_be_imported_says_why(fresh):
    add_commands(fresh, [room("desks", "no_such_package.cli:app")])
    done = CliRunner().invoke(fresh, ["desks"])
    assert isinstance(done.exception, StoreError)
    assert "No module named 'no_such_package'" in str(done.exception)


def test_the_room_of_every_command_is_known(fresh):
    rooms = add_commands(fresh, [room("serving", "serving.cli:app")])
    assert rooms == dict.fromkeys(["predict", "serve", "replay", "model", "key"], "serving")


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ("serving", ["fastapi", "mlflow"]),
        ("training", ["mlflow", "torch"]),
        ("monitoring", ["evidently"]),
        ("all", ["evidently", "fastapi", "mlflow", "torch"]),
        ("dev", ["evidently", "fastapi", "mlflow", "ruff", "torch"]),
        ("sources", []),
    ],
)
def test_what_an_extra_lacks_is_found_by_way_of_its_parts(hidden, extra, found):
    assert extras.missing(extra) == []
    hidden.update({"evidently", "fastapi", "mlflow", "pandas", "ruff", "torch"})
    assert extras.missing(extra) == found


def test_a_command_whose_extra_is_not_installed_says_what_to_install(desk, hidden, fresh):
    hidden.update({"fastapi", "mlflow"})
    app = typer.Typer()
    app.callback()(cli.options)
    rooms = add_commands(app, [room("serving", "serving.cli:app")])
    done = CliRunner().invoke(app, ["predict", "AAPL"], obj=rooms)
    assert isinstance(done.exception, StoreError)
    assert str(done.exception) == (
        "pitwise predict needs fastapi, mlflow, which this Python does not have. Install it: "
        "pip install 'pitwise[serving]'"
    )
