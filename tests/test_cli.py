"""The command `pitwise`: what a person types, sees and reads when it goes wrong."""

import hashlib
import subprocess
import sys
from datetime import date
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner, Result

from pitwise import cli, extras, load, pipeline
from pitwise.bars.landing import landings
from pitwise.cli import add_commands
from pitwise.errors import PitwiseError, StoreError
from pitwise.init import new_workspace
from pitwise.load import LoadParams
from pitwise.pipeline import PipelineError, run_pipeline
from pitwise.workspace import Workspace, write_json

ROOT = Path(__file__).resolve().parents[1]
SERVING = ("predict", "serve", "replay", "update", "evening", "upgrade", "model", "key", "bars", "log")
"""The commands of the room `serving`."""
PRICES = "symbol,date,open,high,low,close,volume\nAAPL,2014-01-02,10,12,9,11,100\n"


def pitwise(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pitwise.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@cache
def whole() -> typer.Typer:
    """The command with those of all rooms."""
    add_commands(cli.app, list(entry_points(group=cli.GROUP)))
    return cli.app


def in_process(*arguments: str) -> Result:
    """What `pitwise` does, without the second that a process of its own takes to start."""
    return CliRunner().invoke(whole(), arguments)


@pytest.mark.component
def test_the_version_is_the_package_s():
    done = pitwise("--version")
    assert (done.returncode, done.stdout) == (0, f"pitwise {version('pitwise')}\n")


@pytest.mark.component
def test_help_lists_the_commands_of_every_room():
    done = pitwise("--help")
    assert done.returncode == 0
    for command in ("init", "run", "load", "reconcile", *SERVING):
        assert f"│ {command} " in done.stdout


@pytest.mark.parametrize(
    "command",
    ["init", "run", "load", "reconcile", "predict", "serve", "replay", "update", "evening", "upgrade"],
)
def test_the_help_of_every_command_has_an_example(command):
    done = in_process(command, "--help")
    assert done.exit_code == 0
    assert f"Example: pitwise {command}" in " ".join(done.stdout.split())


def test_the_help_of_run_says_what_it_costs():
    shown = " ".join(in_process("run", "--help").stdout.replace("│", " ").split())
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
    assert get_args(cli.Source) == get_args(LoadParams.model_fields["source"].annotation)


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
        (["load"], 1, "params.yaml: cannot be read"),
        (["load", "--covers", "2014"], 1, "--covers: '2014' is not two days such as"),
        (["load", "--history", "known"], 2, "'known' is not one of 'assumed', 'observed'"),
        (["load", "--source", "bloomberg"], 2, "'bloomberg' is not one of 'sample', 'csv', 'yfinance'"),
    ],
)
def test_a_mistake_is_named(tmp_path, monkeypatch, arguments, code, message):
    if "nowhere" in arguments:
        new_workspace(tmp_path / "desk")
        cwd, message = tmp_path / "desk", "nowhere: there is no such file or folder"
    else:
        cwd = tmp_path
    monkeypatch.chdir(cwd)
    done = in_process(*arguments)
    said = str(done.exception) if isinstance(done.exception, PitwiseError) else done.stderr
    assert done.exit_code == code
    assert message in " ".join(said.replace("│", " ").split())
    assert isinstance(done.exception, PitwiseError if code == 1 else SystemExit)


# Running, with DVC out of the way.


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, Path]]:
    """What the command did, in order: the workspaces that it loaded bars into, and those that it ran."""
    done: list[tuple[str, Path]] = []

    def loads(workspace, *_, **__) -> Path:
        done.append(("load", workspace.root))
        return workspace.landing / "it.parquet"

    monkeypatch.setattr(load, "load", loads)
    monkeypatch.setattr(load, "described", lambda path: f"landed: {path}")
    monkeypatch.setattr(pipeline, "run_pipeline", lambda w: done.append(("run", w.root)))
    return done


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Workspace:
    """A workspace, as the one that the shell stands in."""
    made = new_workspace(tmp_path / "desk")
    monkeypatch.setattr(cli.Path, "cwd", lambda: made.root)
    return made


@pytest.fixture
def landed(desk) -> Workspace:
    """The workspace with a delivery in it."""
    desk.landing.mkdir(parents=True)
    (desk.landing / "20240102T220000-csv-0.parquet").touch()
    return desk


def invoked(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_run_runs_the_workspace_with_the_pipeline_of_the_installed_code(landed, ran):
    pipeline_before = (landed.root / "dvc.yaml").read_text()
    (landed.root / "dvc.yaml").write_text(pipeline_before + "# older\n")
    invoked("run")
    assert ran == [("run", landed.root)]
    assert (landed.root / "dvc.yaml").read_text() == pipeline_before


def test_run_leaves_a_pipeline_that_init_did_not_make(landed, ran):
    (landed.root / "dvc.yaml").write_text("stages: {}\n")
    invoked("run")
    assert ran == [("run", landed.root)]
    assert (landed.root / "dvc.yaml").read_text() == "stages: {}\n"


def test_a_run_where_nothing_has_landed_loads_first(desk, ran):
    shown = invoked("run")
    assert ran == [("load", desk.root), ("run", desk.root)]
    assert f"landed: {desk.root}/data/landing/it.parquet" in shown


def test_run_with_a_source_loads_and_runs_below(landed, ran, tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text(PRICES)
    invoked("run", "--source", "csv", "--data", str(prices))
    invoked("run", "--source", "synthetic", "--name", "made")
    invoked("run", "--source", "yfinance")
    (landed.root / "runs/yfinance/data/landing").mkdir(parents=True)
    (landed.root / "runs/yfinance/data/landing/it.parquet").touch()
    invoked("run", "--source", "yfinance")  # a source that is named is asked again
    below = landed.root / "runs"
    names = ("csv", "made", "yfinance", "yfinance")
    assert ran == [(what, below / name) for name in names for what in ("load", "run")]


def test_a_workspace_of_an_older_version_is_not_touched(landed, ran):
    text = (landed.root / "dvc.yaml").read_text() + "# older\n"
    (landed.root / "dvc.yaml").write_text(text)
    landed.params.write_text("ingest: {source: sample, path: prices}\n")
    for more in ([], ["--source", "sample"]):
        done = CliRunner().invoke(cli.app, ["run", *more])
        assert isinstance(done.exception, StoreError)
        assert "`pitwise upgrade` in it brings it up" in str(done.exception)
    assert ran == []
    assert (landed.root / "dvc.yaml").read_text() == text
    assert not (landed.root / "runs").exists()


def test_load_lands_a_file_in_the_workspace_of_the_shell(desk, tmp_path):
    (tmp_path / "prices.csv").write_text(PRICES)
    shown = invoked("load", "--source", "csv", "--data", str(tmp_path / "prices.csv"))
    (landing,) = landings(desk)
    assert (landing.source, landing.history, len(landing.rows)) == ("csv", "assumed", 1)
    assert landing.covers == {"AAPL": (date(2014, 1, 2), date(2014, 1, 2))}
    assert shown.startswith("1 rows of 1 symbols from csv, received ")
    assert shown.endswith(f" UTC: {desk.landing / landing.name}\n")


def test_load_is_told_what_the_delivery_holds_whole_and_when_it_was_known(desk, tmp_path):
    (tmp_path / "prices.csv").write_text(PRICES)
    said = ["--covers", "2014-01-01:2014-01-31", "--history", "observed"]
    invoked("load", "--source", "csv", "--data", str(tmp_path / "prices.csv"), *said)
    (landing,) = landings(desk)
    assert landing.history == "observed"
    assert landing.covers == {"AAPL": (date(2014, 1, 1), date(2014, 1, 31))}


def test_a_source_that_is_not_installed_says_what_to_install(desk, hidden):
    hidden.add("bokeh-sampledata")
    done = CliRunner().invoke(cli.app, ["load"])
    assert isinstance(done.exception, StoreError)
    assert str(done.exception) == (
        "source sample needs bokeh-sampledata, which this Python does not have. Install it: "
        "pip install 'pitwise[sources]'"
    )
    assert landings(desk) == []


@pytest.fixture
def failing() -> list[str]:
    """How the programs begin that end with an error."""
    return []


@pytest.fixture
def commands(monkeypatch, failing) -> list[list[str]]:
    """The programs that a run started, each without its Python."""
    started: list[list[str]] = []

    def start(command, cwd, env, check):
        assert command[:2] == [sys.executable, "-m"]
        assert env["PATH"].startswith(str(Path(sys.executable).parent))
        started.append(command[2:])
        failed = any(" ".join(command[2:]).startswith(start) for start in failing)
        return subprocess.CompletedProcess(command, returncode=3 if failed else 0)

    monkeypatch.setattr(pipeline.subprocess, "run", start)
    return started


def test_a_run_has_dvc_keep_what_landed_and_make_the_rest_and_shows_the_summary(landed, commands):
    run_pipeline(landed)
    assert commands == [
        ["dvc", "add", "--quiet", "data/landing"],
        ["dvc", "repro"],
        ["monitoring.summary"],
    ]


def test_a_walk_forward_that_is_new_to_the_gate_goes_through_it_once(landed, commands):
    write_json({"horizon": 1}, landed.walk_forward_report)
    write_json({"walk_forward_sha256": None}, landed.registration_report)
    run_pipeline(landed)
    register = ["dvc", "repro", "--force", "--downstream", "register"]
    assert commands[1:] == [["dvc", "repro"], register, ["monitoring.summary"]]
    seen = {"walk_forward_sha256": hashlib.sha256(landed.walk_forward_report.read_bytes()).hexdigest()}
    write_json(seen, landed.registration_report)
    commands.clear()
    run_pipeline(landed)
    assert register not in commands


def test_a_run_where_nothing_has_landed_is_refused(desk, commands):
    with pytest.raises(StoreError, match=r"data/landing: nothing has landed there\. Run `pitwise load`"):
        run_pipeline(desk)
    assert commands == []


@pytest.mark.parametrize(("fails", "started"), [("dvc add", 1), ("dvc repro", 2)])
def test_a_step_that_fails_ends_the_run(landed, commands, failing, fails, started):
    failing.append(fails)
    with pytest.raises(PipelineError, match=f"`{fails}.* failed; its messages stand above"):
        run_pipeline(landed)
    assert len(commands) == started


def test_a_run_without_what_its_stages_import_is_refused(landed, commands, hidden):
    hidden.update({"torch", "dvc", "yfinance", "evidently", "fastapi"})
    message = "the pipeline needs dvc, evidently, fastapi, torch, yfinance, which"
    with pytest.raises(StoreError, match=message):
        run_pipeline(landed)
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
    assert rooms == dict.fromkeys(SERVING, "serving")


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
