from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from support import small_runs as small
from support.once import once

from pitwise.features.windows import gather
from pitwise.registry.contract import ALL_OUTPUTS, BATCH, open_onnx, run_onnx, run_onnx_over
from training import KINDS
from training.models.export import export_onnx, parity
from training.models.fit import fit_scaling
from training.models.forecaster import Forecaster

pytestmark = pytest.mark.component

N_FEATURES = len(small.FEATURES)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(20, 200, seed=8))


@pytest.fixture(scope="module")
def windows(rows) -> torch.Tensor:
    return small.all_windows(small.part(rows, "validation"))


@pytest.fixture(scope="module")
def models(rows) -> dict[str, Forecaster]:
    """Trees that are grown, and nets with the weights they begin with."""
    built = {kind: small.small_model(kind).eval() for kind in small.BODIES}
    for model in built.values():
        fit_scaling(model, small.part(rows, "train"))
        model.calibration.location.copy_(torch.tensor([0.001, 0.02]))
        model.calibration.log_scale.copy_(torch.tensor([-0.5, 0.9]))
    built["gradient_boosting"] = small.small_fit("gradient_boosting", rows).model
    return built


@pytest.fixture(scope="module")
def folder(models, windows, tmp_path_factory) -> Path:
    """`<kind>/model.onnx` of each kind; an export takes seconds, so all workers share it."""

    def export(made: Path) -> None:
        for kind, model in models.items():
            export_onnx(model, windows[:2], made / kind / "model.onnx")

    return once(tmp_path_factory, "exported_models", export)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def session(kind, folder) -> ort.InferenceSession:
    return open_onnx(folder / kind / "model.onnx")


def test_the_model_is_one_whole_file(kind, folder):
    assert [f.name for f in (folder / kind).iterdir()] == ["model.onnx"]
    onnx.checker.check_model(onnx.load(folder / kind / "model.onnx"), full_check=True)


def test_inputs_and_outputs_have_names_and_a_free_batch(session):
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("windows", "tensor(float)")
    assert given.shape == ["batch", small.WINDOW, N_FEATURES]
    assert [o.name for o in session.get_outputs()] == ["score", "log_return", "p_up", "scale"]
    assert [o.shape for o in session.get_outputs()] == [["batch"]] * 4


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_any_batch_is_answered_as_torch_answers_it(kind, models, session, windows, batch):
    answers = run_onnx(session, windows[:batch].numpy())
    for name, expected in zip(ALL_OUTPUTS, models[kind](windows[:batch]), strict=True):
        assert answers[name].shape == (batch,)
        assert answers[name].dtype == np.float32
        np.testing.assert_allclose(answers[name], expected, atol=2e-6)


@torch.no_grad()
def test_parity_is_the_largest_difference_of_any_output(kind, models, session, windows):
    assert parity(models[kind], session, windows) < 2e-6
    other = models["lstm" if kind == "ann" else "ann"]
    answers, theirs = run_onnx(session, windows.numpy()), torch.stack(other(windows)).numpy()
    difference = np.abs(np.stack([answers[name] for name in ALL_OUTPUTS]) - theirs).max()
    assert parity(other, session, windows) == pytest.approx(difference)
    assert difference > 1e-3


def test_the_file_holds_nothing_of_the_machine(kind, folder):
    content = (folder / kind / "model.onnx").read_bytes()
    for path in (str(small.PROJECT), torch.__path__[0], "site-packages", "/home", ".py"):
        assert path.encode() not in content


def test_the_same_model_is_exported_to_the_same_bytes(kind, models, windows, folder, tmp_path):
    export_onnx(models[kind], windows[2:5], tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (folder / kind / "model.onnx").read_bytes()


def test_many_windows_run_in_batches_as_they_do_at_once(session, rows):
    values = rows[list(small.FEATURES)].to_numpy("float32")
    ends = np.flatnonzero(rows["ends_window"])
    assert len(ends) > BATCH
    answers = run_onnx_over(session, small.windows_of(rows), ends, small.WINDOW)
    expected = run_onnx(session, gather(values, ends, small.WINDOW))
    for name, values_of_name in expected.items():
        np.testing.assert_allclose(answers[name], values_of_name, atol=1e-6)


def test_few_windows_run_bit_for_bit_as_gathered(session, rows):
    values = rows[list(small.FEATURES)]
    ends = np.flatnonzero(rows["split"] == "test")
    answers = run_onnx_over(session, small.windows_of(rows), ends, small.WINDOW)
    expected = run_onnx(session, gather(values.to_numpy("float32"), ends, small.WINDOW))
    assert all((answers[name] == expected[name]).all() for name in expected)
