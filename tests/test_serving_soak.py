"""Mixed load on a real service, every answer checked against the batch path."""

from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
import yaml

from benchmarks.serving import soak
from feature_repo.artifacts import RAW_BARS, write_parquet
from tests import models_by_hand as by_hand
from tests import models_for_tests as small
from tests.markets import raw_market

WINDOW = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What a soak needs of a run: raw bars of six symbols, and two versions of a model."""
    folder = tmp_path_factory.mktemp("run")
    params = yaml.safe_load((small.PROJECT / "params.yaml").read_text())
    params["publish"]["window"] = WINDOW
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for part in ("clean", "features", "feast"):
        (folder / "data" / part).mkdir(parents=True)
    write_parquet(raw_market(5, symbols=6, sessions=160), folder / RAW_BARS)
    for scale in (0.01, 0.02):
        model = by_hand.onnx_model(scale, window=WINDOW)
        version = by_hand.register(folder, model, by_hand.contract(window=WINDOW))
    mlflow.MlflowClient().set_registered_model_alias("pitwise", "champion", version)
    return folder


def test_a_service_under_mixed_load_gives_no_wrong_answer(run, tmp_path):
    with chdir(tmp_path):  # soak moves into its copy
        figures = soak.soak(run, tmp_path / "soak", seconds=18, sessions=3)
    assert figures["wrong"] == []
    happened = ["forecasts_checked", "features_checked", "swaps", "restarts"]
    happened += ["bars new", "bars repeated"]
    assert [name for name in happened if not figures.get(name)] == []
    # Which of these come is for the draw, and for how far a slow machine gets.
    assert sum(f"bars {outcome}" in figures for outcome in ("late", "corrected", "refused")) >= 1
