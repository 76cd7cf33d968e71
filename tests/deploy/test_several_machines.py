"""The settings in deploy/several_machines, on real servers: PostgreSQL, Redis, and S3's API by moto."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from support import small_runs as small
from support.models_by_hand import contract, onnx_model
from support.servers import Postgres, redis

from feature_repo import publish
from feature_repo.store import open_store
from pitwise.engine import EngineParams
from pitwise.registry.champion import move_champion, open_experiment
from pitwise.registry.model import RegistryParams
from pitwise.registry.prediction_log import PREDICTIONS, open_log
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet
from serving.inference.latest import latest_forecasts
from serving.inference.predictor import load_champion
from serving.settings import PredictParams

pytestmark = pytest.mark.component
SETTINGS = small.PROJECT / "deploy/several_machines"
SYMBOLS = ["S000", "S001", "S002"]


def settings(name: str, places: dict[str, str]) -> str:
    """A file of the settings with the servers' places in place of the examples."""
    text = (SETTINGS / name).read_text()
    for example, place in places.items():
        text = text.replace(example, place)
    return text


@pytest.mark.parametrize("name", ["feature_store.yaml", "params.yaml", "dvc.config"])
def test_the_page_shows_the_settings_as_they_are(name):
    page = (small.PROJECT / "docs/several_machines.md").read_text()
    assert (SETTINGS / name).read_text() in page


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, server: Postgres) -> Iterator[Workspace]:
    """A market that is published with these settings, and a champion in the registry."""
    databases = {
        f"db.example:5432/{name}": server.new_database().rpartition("@")[2]
        for name in ("feast", "mlflow", "log")
    }
    sections = yaml.safe_load(settings("params.yaml", databases))
    EngineParams(**sections.pop("engine"))
    folder = tmp_path_factory.mktemp("machines") / "workspace"
    made = small.make_workspace(folder, small.market(3, 120, seed=5), **sections)
    with redis() as online:
        text = settings("feature_store.yaml", databases | {"redis.example:6379": online.address})
        (made.feast_repo / "feature_store.yaml").write_text(text)
        publish.main(made)
        register(made)
        yield made


def register(workspace: Workspace) -> None:
    registry = load_params(workspace, "registry", RegistryParams)
    client = open_experiment(workspace, registry, "by_hand")
    with mlflow.start_run():
        version = mlflow.onnx.log_model(
            onnx_model(),
            name="model",
            registered_model_name=registry.model,
            metadata=contract(),
            pip_requirements=["onnxruntime"],
        ).registered_model_version
    move_champion(client, registry.model, str(version), "promote", "the first")


def test_the_store_of_any_machine_has_the_newest_features(workspace):
    expected = read_parquet(workspace.daily_features).groupby("symbol")["close"].last()
    entities = [{"symbol": symbol} for symbol in SYMBOLS]
    answer = open_store(workspace).get_online_features(["daily:close"], entities)
    assert answer.to_dict()["close"] == expected[SYMBOLS].tolist()


def test_the_champion_of_the_registry_forecasts_into_the_log(workspace):
    champion = load_champion(workspace, load_params(workspace, "registry", RegistryParams))
    latest_forecasts(workspace, champion)
    made = read_parquet(workspace.latest_predictions).set_index("symbol")
    log = open_log(load_params(workspace, "predict", PredictParams).log_url)
    logged = pd.read_sql(sa.select(PREDICTIONS), log).set_index("symbol")
    log.dispose()
    assert sorted(logged.index) == SYMBOLS
    assert logged["log_return"].to_dict() == made["log_return"].to_dict()


def test_the_folder_has_the_models_files_and_no_database(workspace):
    assert not list(workspace.root.rglob("*.db"))
    assert list(workspace.mlflow_artifacts.rglob("model.onnx"))


@pytest.fixture
def s3(monkeypatch) -> Iterator[str]:
    """Address of an S3 with the settings' bucket, which is empty."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="pitwise")
    yield f"http://{host}:{port}"
    server.stop()


def test_landings_go_to_an_object_store_and_come_back(tmp_path: Path, s3: str):
    from dvc.repo import Repo

    workspace = Workspace(tmp_path)
    workspace.landing.mkdir(parents=True)
    for name in ("first", "second"):
        (workspace.landing / f"{name}.parquet").write_bytes(name.encode())
    Repo.init(tmp_path, no_scm=True).close()
    text = settings("dvc.config", {"http://s3.example:9000": s3})
    (tmp_path / ".dvc/config.local").write_text(text)
    with Repo(tmp_path) as repo:
        repo.add(str(workspace.landing))
        assert repo.push() == 3  # two files, and the list of them
        shutil.rmtree(workspace.landing)
        shutil.rmtree(repo.cache.local.path)
        repo.pull()
    landed = {path.name: path.read_bytes() for path in workspace.landing.iterdir()}
    assert landed == {"first.parquet": b"first", "second.parquet": b"second"}
