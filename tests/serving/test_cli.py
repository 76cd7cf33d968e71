"""The commands of serving on a real small workspace: most in this process, some as from a shell."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from support import small_runs as small
from support.models_by_hand import contract, onnx_model, register, registry
from support.workspaces import ENVIRONMENT
from typer.testing import CliRunner, Result

from feature_repo import publish
from pitwise import quality_flags
from pitwise.bars.calendar import next_session, session_day
from pitwise.cleaning.events import event_table
from pitwise.errors import ParamsError, StoreError
from pitwise.registry.champion import move_champion
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving import cli

COMMANDS = ["predict", "serve", "replay", "model show", "model promote", "model rollback"]
COMMANDS += ["key add", "key list", "key revoke", "update", "evening", "upgrade"]
COMMANDS += ["bars withdraw", "bars seal", "log compact"]


@pytest.fixture(scope="module")
def workspace(published, tmp_path_factory) -> Workspace:
    """Versions 1 and 2; 1 is champion, by the gate's word."""
    workspace = Workspace(tmp_path_factory.mktemp("cli") / "workspace")
    shutil.copytree(published.root, workspace.root)
    for scale in (0.01, 0.02):
        register(workspace, onnx_model(scale), contract(), by_hand__skill_vs_persistence=0.125)
    move_champion(registry(workspace), "pitwise", "1", "gate", "the first")
    return workspace


@pytest.fixture
def run(monkeypatch):
    """Run a command in this process, in a workspace: MLflow and Feast are loaded once for all."""

    def invoke(workspace: Workspace, *arguments: str) -> Result:
        monkeypatch.setattr(cli, "_here", lambda: workspace)
        return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, arguments)

    return invoke


def pitwise(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command as a person does, in the workspace's folder."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pitwise.cli", *arguments],
        cwd=workspace.root,
        env=ENVIRONMENT | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command):
    done = CliRunner().invoke(cli.app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert f"Example: pitwise {command}" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "predict",
        "predict --nonsense AAPL",
        "replay --from yesterday",
        "model promote champion",
        "model promote 0",
        "serve --port 70000",
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    done = CliRunner().invoke(cli.app, arguments.split())
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


@pytest.mark.parametrize("command", ["predict AAPL", "model show", "model promote 1", "key list"])
def test_outside_a_workspace_the_message_says_so(run, command, tmp_path):
    done = run(Workspace(tmp_path), *command.split())
    assert isinstance(done.exception, ParamsError)
    assert done.stdout == ""
    missing = tmp_path / "params.yaml"
    message = f"{missing}: cannot be read (No such file or directory). "
    assert str(done.exception).startswith(message)
    assert "\n" not in str(done.exception)


def test_outside_a_workspace_the_shell_shows_one_line(tmp_path):
    done = pitwise(Workspace(tmp_path), "key", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'params.yaml'}: cannot be read ")
    assert done.stderr.count("\n") == 1


def test_the_help_loads_no_heavy_library():
    code = "import sys, serving.cli; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"mlflow", "feast", "pandas", "numpy", "onnxruntime", "fastapi", "sqlalchemy", "torch"}
    assert not heavy & set(done.stdout.split())


def test_predict_prints_a_table_and_names_what_is_missing(workspace):
    done = pitwise(workspace, "predict", "S001", "NOSUCH", "S000")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "S00" in line]
    assert [row[1] for row in rows] == ["S001", "S000"]
    assert "version " in done.stdout
    assert done.stderr == "the online store has no window of NOSUCH.\n"


def test_predict_as_json_is_the_model_s_forecast(run, workspace):
    done = run(workspace, "predict", "S001", "NOSUCH", "S001", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["missing"] == ["NOSUCH"]
    assert document["withheld"] == {}
    (row,) = document["forecasts"]
    assert row["symbol"] == "S001"
    assert row["as_of"].endswith("+00:00")
    assert (row["unusual"], row["suspect"]) == (None, None)
    assert -0.02 < row["log_return"] < 0.02
    day = pd.Timestamp(row["as_of"])
    assert (row["horizon"], row["scale"]) == (1, None)
    assert row["for_session"] == f"{next_session(session_day(day)):%Y-%m-%d}"
    assert row["price"] == pytest.approx(row["last_close"] * 2.718281828 ** row["log_return"], rel=1e-6)


def test_predict_of_unknown_symbols_alone_exits_with_1(run, workspace):
    done = run(workspace, "predict", "NOSUCH", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["forecasts"] == []
    assert str(done.exception) == "the online store has no window of NOSUCH."


def test_predict_says_what_is_known_of_the_newest_bars(run, workspace, tmp_path):
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    publish.main(copy)  # Feast's registry knows absolute paths
    clean = read_parquet(copy.clean_bars)
    forest, _ = quality_flags.fit(clean, contamination=0.01, trees=20, sample=64, seed=7)
    quality_flags.save(forest, copy.root / quality_flags.FOREST.path)
    last = clean["date"].max()
    event = event_table(symbol=["S001"], date=[last], kind=["bad_print"], confidence=[0.7])
    write_parquet(event, copy.events)
    both = ("predict", "S000", "S001")
    document = json.loads(run(copy, *both, "--json").stdout)
    assert [row["suspect"] for row in document["forecasts"]] == [None, "bad_print"]
    assert all(isinstance(row["unusual"], bool) for row in document["forecasts"])
    assert "a bad print" in run(copy, *both).stdout
    small.change_params(copy, predict={"suspect": "withhold"})
    done = run(copy, *both, "--json")
    assert json.loads(done.stdout)["withheld"] == {"S001": "bad_print"}
    assert [row["symbol"] for row in json.loads(done.stdout)["forecasts"]] == ["S000"]
    said = "withheld until later bars have settled a newest one: S001 (a bad print)."
    assert done.stderr == said + "\n"
    alone = run(copy, "predict", "S001")
    assert (str(alone.exception), alone.exit_code) == (said, 1)


def test_a_champion_that_cannot_be_opened_is_one_line(run, workspace):
    uri = registry(workspace).get_model_version_download_uri("pitwise", "1")
    model = Path(mlflow.artifacts.download_artifacts(uri)) / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(b"not a model")
    done = run(workspace, "predict", "S000")
    model.write_bytes(whole)
    assert isinstance(done.exception, StoreError)
    assert done.stdout == ""
    assert str(done.exception).startswith("the champion cannot be fetched or run (InvalidProtobuf")
    assert "\n" not in str(done.exception)


def test_the_champion_is_shown_promoted_and_rolled_back(run, workspace):
    assert (
        "version 2 is champion now, in place of version 1"
        in run(workspace, "model", "promote", "2", "--reason", "a [bold] try").stdout
    )
    shown = run(workspace, "model", "show")
    assert shown.exit_code == 0, shown.stderr
    (row,) = [line for line in shown.stdout.splitlines() if "champion" in line]
    for cell in ("2", "by_hand", "+0.12500"):
        assert cell in row
    assert "2: promote: a [bold] try" in shown.stdout.splitlines()
    back = json.loads(run(workspace, "model", "rollback", "--json").stdout)
    assert back == {"model": "pitwise", "version": "1", "before": "2"}
    again = json.loads(run(workspace, "model", "promote", "1", "--json").stdout)
    assert again == {"model": "pitwise", "version": "1", "before": "1"}
    document = json.loads(run(workspace, "model", "show", "--json").stdout)
    assert [version["aliases"] for version in document["versions"]] == [["champion"], []]
    by = [entry["by"] for entry in document["versions"][0]["terms"]]
    assert by == ["gate", "rollback"]


def test_promoting_what_is_not_there_is_one_line(run, workspace):
    done = run(workspace, "model", "promote", "9")
    assert isinstance(done.exception, StoreError)
    assert done.stdout == ""
    assert str(done.exception).startswith("model 'pitwise' has no version 9 that can be read.")
    assert "\n" not in str(done.exception)


def test_a_key_is_added_listed_and_revoked(run, workspace):
    added = json.loads(run(workspace, "key", "add", "desk", "--json").stdout)
    assert added["name"] == "desk"
    listed = run(workspace, "key", "list")
    assert "desk" in listed.stdout
    assert added["key"] not in listed.stdout
    assert "the key of desk is revoked" in run(workspace, "key", "revoke", "desk").stdout
    assert json.loads(run(workspace, "key", "list", "--json").stdout) == {"keys": []}


def test_a_key_is_given_its_scopes_last_day_and_limits(run, workspace):
    options = ["--scope", "bars", "--scope", "predict", "--expires", "2040-12-31"]
    limits = ["--per-minute", "600", "--per-day", "100000"]
    assert run(workspace, "key", "add", "feed", *options, *limits).exit_code == 0
    (listed,) = json.loads(run(workspace, "key", "list", "--json").stdout)["keys"]
    assert listed.pop("created")
    assert listed == {
        "name": "feed",
        "scopes": ["predict", "bars"],
        "expires": "2040-12-31",
        "per_minute": 600,
        "per_day": 100_000,
    }
    table = run(workspace, "key", "list").stdout
    for shown in ("feed", "predict, bars", "2040-12-31", "600", "100,000"):
        assert shown in table
    run(workspace, "key", "revoke", "feed")


def test_a_key_for_nothing_that_is_there_is_refused(run, workspace):
    refused = run(workspace, "key", "add", "feed", "--scope", "everything")
    assert isinstance(refused.exception, ParamsError)
    assert "predict, bars, model" in str(refused.exception)
