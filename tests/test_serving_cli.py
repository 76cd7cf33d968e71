"""The command `pitwise`, in a process of its own on a real small workspace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app, main
from tests.models_by_hand import contract, onnx_model, published_workspace, register

COMMANDS = ["predict", "serve", "replay", "model show", "model promote", "model rollback"]
COMMANDS += ["key add", "key list", "key revoke"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Versions 1 and 2; 1 is champion, by the gate's word."""
    from feature_repo.model import move_champion

    folder = tmp_path_factory.mktemp("cli")
    published_workspace(folder)
    for scale in (0.01, 0.02):
        register(folder, onnx_model(scale), contract(), by_hand__skill_vs_persistence=0.125)
    import mlflow

    move_champion(mlflow.MlflowClient(), "pitwise", "1", "gate", "the first")
    return folder


def pitwise(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from serving.cli import main; main()", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(command):
    done = CliRunner().invoke(app, [*command.split(), "--help"])
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
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


@pytest.mark.parametrize("command", ["predict AAPL", "model show", "model promote 1", "key list"])
def test_outside_a_project_one_line_says_so(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pitwise", *command.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: params.yaml: cannot be read (No such file or directory). ")
    assert told.err.count("\n") == 1


def test_the_help_loads_no_heavy_library():
    code = "import sys, serving.cli; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"mlflow", "feast", "pandas", "numpy", "onnxruntime", "fastapi", "sqlalchemy", "torch"}
    assert not heavy & set(done.stdout.split())


def test_predict_prints_a_table_and_names_what_is_missing(folder):
    done = pitwise(folder, "predict", "S001", "NOSUCH", "S000")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "S00" in line]
    assert [row[1] for row in rows] == ["S001", "S000"]
    assert "version " in done.stdout
    assert done.stderr == "the online store has no window of NOSUCH.\n"


def test_predict_as_json_is_what_the_model_says(folder):
    done = pitwise(folder, "predict", "S001", "NOSUCH", "S001", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["missing"] == ["NOSUCH"]
    (row,) = document["forecasts"]
    assert row["symbol"] == "S001"
    assert row["as_of"].endswith("+00:00")
    assert -0.02 < row["log_return"] < 0.02
    assert row["price"] == pytest.approx(row["last_close"] * 2.718281828 ** row["log_return"], rel=1e-6)


def test_predict_of_unknown_symbols_alone_exits_with_1(folder):
    done = pitwise(folder, "predict", "NOSUCH", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["forecasts"] == []
    assert done.stderr == "error: the online store has no window of NOSUCH.\n"


def test_a_champion_that_cannot_be_opened_is_one_line(folder):
    import mlflow

    uri = mlflow.MlflowClient().get_model_version_download_uri("pitwise", "1")
    model = Path(mlflow.artifacts.download_artifacts(uri)) / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(b"not a model")
    done = pitwise(folder, "predict", "S000")
    model.write_bytes(whole)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the champion cannot be fetched or run (InvalidProtobuf")
    assert done.stderr.count("\n") == 1


def test_the_champion_is_shown_promoted_and_rolled_back(folder):
    assert (
        "version 2 is champion now, in place of version 1"
        in pitwise(folder, "model", "promote", "2", "--reason", "a [bold] try").stdout
    )
    shown = pitwise(folder, "model", "show")
    assert shown.returncode == 0, shown.stderr
    (row,) = [line for line in shown.stdout.splitlines() if "champion" in line]
    for cell in ("2", "by_hand", "+0.12500"):
        assert cell in row
    assert "2: promote: a [bold] try" in shown.stdout.splitlines()
    back = json.loads(pitwise(folder, "model", "rollback", "--json").stdout)
    assert back == {"model": "pitwise", "version": "1", "before": "2"}
    again = json.loads(pitwise(folder, "model", "promote", "1", "--json").stdout)
    assert again == {"model": "pitwise", "version": "1", "before": "1"}
    document = json.loads(pitwise(folder, "model", "show", "--json").stdout)
    assert [version["aliases"] for version in document["versions"]] == [["champion"], []]
    by = [term["by"] for term in document["versions"][0]["terms"]]
    assert by == ["gate", "rollback"]


def test_promoting_what_is_not_there_is_one_line(folder):
    done = pitwise(folder, "model", "promote", "9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: model 'pitwise' has no version 9 that can be read.")
    assert done.stderr.count("\n") == 1


def test_a_key_is_added_listed_and_revoked(folder):
    added = json.loads(pitwise(folder, "key", "add", "desk", "--json").stdout)
    assert added["name"] == "desk"
    listed = pitwise(folder, "key", "list")
    assert "desk" in listed.stdout
    assert added["key"] not in listed.stdout
    assert "the key of desk is revoked" in pitwise(folder, "key", "revoke", "desk").stdout
    assert json.loads(pitwise(folder, "key", "list", "--json").stdout) == {"keys": []}
