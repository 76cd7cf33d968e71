"""What a starting service loads: torch and the other rooms stay out."""

import json

import pytest

from feature_repo.artifacts import read_parquet
from tests import models_for_tests as small

PUBLISH = """
from feature_repo import publish
publish.main()
"""
START = """
import json, sys
import serving.api, serving.cli
from feature_repo.stage import load_params
from serving.keys import Keys
from serving.serve import ServeParams, build_service
params = load_params("serve", ServeParams)
service = build_service(params, Keys(params.keys))
forecasts = service.champion.predictor.forecast(["S000"])
service.close()
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([forecasts.symbols, sorted(loaded)]))
"""
HELP = """
import json, sys
from typer.testing import CliRunner
import serving.cli
assert "predict" in CliRunner().invoke(serving.cli.app, ["--help"]).output
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {"torch", "pytorch_lightning", "training", "monitoring"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("startup")
    bars = small.market(3, 120, seed=5).assign(price_factor=1.0)
    small.make_workspace(folder, bars)
    raw = bars.drop(columns=["segment", "price_factor"]).assign(
        date=bars["date"].astype("datetime64[ns]")
    )
    (folder / "data/raw").mkdir(parents=True)
    raw.to_parquet(folder / "data/raw/bars.parquet")
    small.copy_rooms(folder)
    small.run_python(folder, PUBLISH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.register_champion(folder, read_parquet(folder / "data/dataset/rows.parquet"))
    return folder


def test_a_service_that_answers_has_loaded_neither_torch_nor_the_other_rooms(folder):
    symbols, loaded = json.loads(small.run_python(folder, START).splitlines()[-1])
    assert symbols == ["S000"]
    assert {"feast", "mlflow", "onnxruntime", "fastapi"} <= set(loaded)
    assert not HEAVY & set(loaded)


def test_help_waits_for_no_library_of_the_service(folder):
    loaded = set(json.loads(small.run_python(folder, HELP).splitlines()[-1]))
    assert "typer" in loaded
    assert not (HEAVY | {"feast", "mlflow", "onnxruntime", "fastapi"}) & loaded
