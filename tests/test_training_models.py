import math

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from feature_repo.errors import ParamsError
from feature_repo.indicators import BY_NAME
from feature_repo.stage import load_params
from tests import models_for_tests as small
from training.models import BODIES, CLIP, Forecaster, Scaler, SequenceDropout
from training.select import SelectParams

PARAMS = small.PROJECT / "params.yaml"


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    rows = small.dataset_rows(small.market(4, 120, seed=6))
    return small.all_windows(small.part(rows, "train"))


@pytest.fixture(params=["ann", "lstm"])
def model(request, windows) -> Forecaster:
    """Random weights, with the scaling that these windows ask for."""
    forecaster = small.small_model(request.param).eval()
    relative = forecaster.scaler.relative(windows)
    forecaster.scaler.mean.copy_(relative.mean(dim=(0, 1)))
    forecaster.scaler.std.copy_(relative.std(dim=(0, 1)))
    forecaster.label_std.fill_(1.0)
    return forecaster


def default_model(kind: str) -> Forecaster:
    features = load_params("select", SelectParams, PARAMS).features
    return Forecaster(kind, features, 30, load_params(kind, BODIES[kind][1], PARAMS))


def shapes(model: Forecaster) -> dict[str, list[int]]:
    return {n: list(p.shape) for n, p in model.named_parameters() if "bias" not in n}


def test_the_ann_takes_570_inputs_through_256_128_64():
    model = default_model("ann")
    assert list(shapes(model).values()) == [[256, 570], [128, 256], [64, 128], [2, 64]]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3, 0.2]
    assert sum(p.numel() for p in model.parameters()) == 187_458


def test_the_lstm_has_64_and_32_units_and_16_dense():
    model = default_model("lstm")
    gates = [[4 * 64, 19], [4 * 64, 64], [4 * 32, 64], [4 * 32, 32]]
    assert list(shapes(model).values()) == [*gates, [16, 32], [2, 16]]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.2]


def test_outputs_are_a_return_and_a_probability_for_each_window(model, windows):
    log_return, p_up = model(windows)
    assert log_return.shape == p_up.shape == (len(windows),)
    assert ((p_up > 0) & (p_up < 1)).all()
    assert log_return.std() > 0


def test_outputs_are_in_the_labels_units(model, windows):
    model.label_mean.fill_(0.3)
    model.label_std.fill_(0.02)
    score, logit = model.scores(windows)
    log_return, p_up = model(windows)
    torch.testing.assert_close(log_return, 0.3 + 0.02 * score)
    torch.testing.assert_close(p_up, 1 / (1 + torch.exp(-logit)))


def test_a_window_is_forecast_alone_as_among_others(model, windows):
    among = torch.stack(model(windows[:20]))
    alone = torch.cat([torch.stack(model(windows[i : i + 1])) for i in range(20)], dim=1)
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=0)


def test_price_level_and_share_count_do_not_move_the_forecast(model, windows):
    factor = {"price": 1000.0, "price_change": 1000.0, "shares": 7.0}
    scaled = windows * torch.tensor([factor.get(BY_NAME[f].unit, 1.0) for f in small.FEATURES])
    assert not torch.equal(scaled, windows)
    torch.testing.assert_close(
        torch.stack(model(scaled)), torch.stack(model(windows)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("feature", small.FEATURES)
@pytest.mark.parametrize("session", [0, -2])
def test_every_feature_of_every_session_reaches_the_forecast(model, windows, feature, session):
    moved = windows.clone()
    moved[:, session, small.FEATURES.index(feature)] *= 1.5
    assert (model(moved)[0] != model(windows)[0]).float().mean() > 0.9


def test_the_scaler_takes_prices_to_the_last_close_and_shares_to_their_mean():
    scaler = Scaler(["daily_return", "close", "price_change", "volume", "open"])
    window = torch.tensor([[[1, 50, 5, 0, 200], [2, 100, 10, math.e**2 - 1, 100]]])
    # Out come open and close, then the price change, then the shares, then the percentage.
    expected = [[math.log(0.5), math.log(2), 0.05, -1, 1], [0, 0, 0.1, 1, 2]]
    assert scaler.order == [1, 4, 2, 3, 0]
    torch.testing.assert_close(scaler.relative(window), torch.tensor([expected]))


def test_the_scaler_standardises_and_clips():
    scaler = Scaler(["close", "daily_return"])
    scaler.mean.copy_(torch.tensor([0.0, 2.0]))
    scaler.std.copy_(torch.tensor([1.0, 4.0]))
    window = torch.tensor([[[100.0, 10.0], [100.0, 1e9], [100.0, -1e9]]])
    torch.testing.assert_close(scaler(window)[0, :, 1], torch.tensor([2.0, CLIP, -CLIP]))


def test_a_dropped_unit_is_dropped_for_the_whole_window_and_the_expectation_stays():
    torch.manual_seed(0)
    values = torch.full((20_000, 5, 4), 2.0)
    answer = SequenceDropout(0.3)(values)
    assert torch.equal(answer, answer[:, :1].expand(-1, 5, -1))
    kept = answer[:, 0] > 0
    assert kept.float().mean(dim=0).numpy() == pytest.approx(0.7, abs=0.015)
    assert answer.mean().item() == pytest.approx(2.0, abs=0.02)
    units = np.corrcoef(kept.numpy().T)
    assert np.abs(units[np.triu_indices(4, 1)]).max() < 0.03


@pytest.mark.parametrize("layer", [SequenceDropout(0.4).eval(), SequenceDropout(0.0)])
def test_dropout_is_off_outside_training_and_at_rate_zero(layer):
    values = torch.randn(5, 4, 3)
    assert torch.equal(layer(values), values)


@pytest.mark.parametrize(
    ("kind", "changed", "key"),
    [
        ("ann", {"dropout": [0.3, 0.3, 1.0]}, "dropout"),
        ("ann", {"dropout": [0.3, 0.3, -0.1]}, "dropout"),
        ("ann", {"dropout": [0.3]}, "dropout"),
        ("ann", {"hidden": [256, 0, 64]}, "hidden"),
        ("ann", {"hidden": []}, "hidden"),
        ("ann", {"dense": 16}, "dense"),
        ("lstm", {"dropout": [0.3, 1.5]}, "dropout"),
        ("lstm", {"dropout": [0.3, 0.2, 0.2]}, "dropout"),
        ("lstm", {"hidden": [64, -32]}, "hidden"),
        ("lstm", {"dense": 0}, "dense"),
    ],
)
def test_an_impossible_body_is_refused_by_name(tmp_path, kind, changed, key):
    section = yaml.safe_load(PARAMS.read_text())[kind] | changed
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({kind: section}))
    with pytest.raises(ParamsError, match=rf"{kind}.*{key}"):
        load_params(kind, BODIES[kind][1], path)
