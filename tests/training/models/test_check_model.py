"""Every kind of model as it is registered, and what it must show before it may train on a market."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from scipy.special import expit
from support import small_runs as small
from support.once import once

from pitwise.evaluation.baselines import of_model
from pitwise.features.windows import gather
from pitwise.registry.attention import attention
from pitwise.registry.contract import ALL_OUTPUTS, BATCH, open_onnx, run_onnx, run_onnx_over
from training import CANDIDATES, ENSEMBLE, KINDS
from training.evaluate import measure
from training.models.ensemble import Member, write_ensemble
from training.models.export import export_onnx, parity
from training.models.forecaster import Forecaster

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Half of a day's return comes again the next day: at best, skill 0.25 and 2/3 right."""
    return small.dataset_rows(small.market(20, 400, seed=0, momentum=0.5))


def ends_of(rows: pd.DataFrame, split: str) -> np.ndarray:
    return np.flatnonzero(rows["split"] == split)


@pytest.fixture(scope="module")
def windows(rows) -> torch.Tensor:
    return small.all_windows(small.part(rows, "validation"))[:500]


@pytest.fixture(scope="module")
def folder(rows, windows, tmp_path_factory) -> Path:
    """`<kind>/model.onnx` and `torch/<kind>.pt`; fits and exports take seconds, so all workers share."""

    def make(made: Path) -> None:
        (made / "torch").mkdir()
        for kind in KINDS:
            model = small.small_fit(kind, rows).model
            torch.save(model, made / f"torch/{kind}.pt")
            export_onnx(model, windows[:2], made / kind / "model.onnx")
        members = [Member(kind, made / kind / "model.onnx", small.FEATURES) for kind in KINDS]
        ends = ends_of(rows, "validation")
        path = made / ENSEMBLE / "model.onnx"
        write_ensemble(members, small.FEATURES, small.windows_of(rows), ends, small.WINDOW, path)

    return once(tmp_path_factory, "checked_models", make)


@pytest.fixture(scope="module")
def models(folder) -> dict[str, Forecaster]:
    load = partial(torch.load, weights_only=False)
    return {kind: load(folder / f"torch/{kind}.pt") for kind in KINDS}


@pytest.fixture(params=CANDIDATES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def session(kind, folder) -> ort.InferenceSession:
    return open_onnx(folder / kind / "model.onnx")


def check_model(file: Path, rows: pd.DataFrame) -> None:
    """The contract, and that a planted signal is found, of the size that it has."""
    assert [f.name for f in file.parent.iterdir()] == [file.name], "one whole file"
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = open_onnx(file)
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("windows", "tensor(float)")
    assert given.shape == ["batch", small.WINDOW, len(small.FEATURES)]
    assert [o.name for o in session.get_outputs()] == ["score", "log_return", "p_up", "scale"]
    assert [o.shape for o in session.get_outputs()] == [["batch"]] * 4

    said = run_onnx_over(session, small.windows_of(rows), ends_of(rows, "test"), small.WINDOW)
    slope, a = np.polyfit(said["score"], said["log_return"], 1)
    assert slope > 0
    np.testing.assert_allclose(said["log_return"], a + slope * said["score"], atol=1e-6)
    assert (said["scale"] > 0).all()
    np.testing.assert_allclose(said["p_up"], expit(said["log_return"] / said["scale"]), atol=1e-5)

    test = rows[rows["split"] == "test"]
    forecast = of_model(said["log_return"], said["p_up"], said["score"])
    figures = measure(forecast, test, small.evaluate_params())
    assert 0.1 < figures["skill_vs_persistence"] < 0.3
    assert 0.6 < figures["direction_accuracy"] < 0.72
    assert figures["direction_accuracy_ci95"][0] > 0.55
    assert figures["brier"] < 0.24
    assert figures["rank_ic_t"] > 5


def test_check_model(kind, folder, rows):
    check_model(folder / kind / "model.onnx", rows)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_any_batch_is_answered_as_torch_answers_it(kind, models, session, windows, batch):
    answers = run_onnx(session, windows[:batch].numpy())
    for name, expected in zip(ALL_OUTPUTS, models[kind](windows[:batch]), strict=True):
        assert answers[name].shape == (batch,)
        assert answers[name].dtype == np.float32
        np.testing.assert_allclose(answers[name], expected, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_parity_is_the_largest_difference_of_any_output(kind, models, session, windows):
    assert parity(models[kind], session, windows) < 2e-6
    other = models["lstm" if kind == "ann" else "ann"]
    answers, theirs = run_onnx(session, windows.numpy()), torch.stack(other(windows)).numpy()
    difference = np.abs(np.stack([answers[name] for name in ALL_OUTPUTS]) - theirs).max()
    assert parity(other, session, windows) == pytest.approx(difference)
    assert difference > 1e-3


@torch.no_grad()
def test_a_transformer_s_attention_is_read_from_its_file(models, folder, windows):
    model = models["transformer"]
    found = attention(folder / "transformer" / "model.onnx", windows.numpy())
    expected = model.body.attention(model.body.encoded(model.inputs(windows)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_file_holds_nothing_of_the_machine(kind, folder):
    content = (folder / kind / "model.onnx").read_bytes()
    for path in (str(small.PROJECT), torch.__path__[0], "site-packages", "/home", ".py"):
        assert path.encode() not in content


def test_the_same_model_is_exported_to_the_same_bytes(models, windows, folder, tmp_path):
    export_onnx(models["ann"], windows[2:5], tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "ann/model.onnx").read_bytes()


def test_many_windows_run_in_batches_as_they_do_at_once(session, rows):
    values = rows[list(small.FEATURES)].to_numpy("float32")
    ends = np.flatnonzero(rows["ends_window"])[: BATCH + 10]
    assert len(ends) > BATCH
    answers = run_onnx_over(session, small.windows_of(rows), ends, small.WINDOW)
    expected = run_onnx(session, gather(values, ends, small.WINDOW))
    for name, values_of_name in expected.items():
        np.testing.assert_allclose(answers[name], values_of_name, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_few_windows_run_bit_for_bit_as_gathered(session, rows):
    values = rows[list(small.FEATURES)]
    ends = np.flatnonzero(rows["split"] == "test")[:100]
    answers = run_onnx_over(session, small.windows_of(rows), ends, small.WINDOW)
    expected = run_onnx(session, gather(values.to_numpy("float32"), ends, small.WINDOW))
    assert all((answers[name] == expected[name]).all() for name in expected)


def test_the_ensemble_is_the_mean_of_all_kinds_in_standard_deviations(folder, rows, windows):
    """By hand from what each member's own file says."""
    held = gather(
        rows[list(small.FEATURES)].to_numpy("float32"), ends_of(rows, "validation"), small.WINDOW
    )
    scores, log_scales = 0, 0
    for kind in KINDS:
        session = open_onnx(folder / kind / "model.onnx")
        own, said = run_onnx(session, held)["score"], run_onnx(session, windows.numpy())
        scores = scores + (said["score"] - own.mean()) / own.std() / len(KINDS)
        log_scales = log_scales + np.log(said["scale"]) / len(KINDS)
    answers = run_onnx(open_onnx(folder / ENSEMBLE / "model.onnx"), windows.numpy())
    np.testing.assert_allclose(answers["score"], scores, atol=1e-5)
    np.testing.assert_allclose(answers["scale"], np.exp(log_scales), atol=1e-5)
