import numpy as np
import pytest
import torch
from support.project import PROJECT, with_params
from torch import nn

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from training.models.lstm import Lstm, LstmParams, SequenceDropout


def test_the_lstm_has_64_and_32_units_and_16_dense(default_model, weight_shapes):
    model = default_model("lstm")
    gates = [[4 * 64, 19], [4 * 64, 64], [4 * 32, 64], [4 * 32, 32]]
    assert weight_shapes(model) == [*gates, [16, 32 + 19], [2, 16]]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.2]


def test_the_reference_lstm_has_no_way_past_its_layers(weight_shapes):
    params = LstmParams(inputs="all", hidden=(64, 32), dropout=(0.3, 0.2), dense=16)
    assert weight_shapes(Lstm(30, 19, params))[-1] == [16, 32]


def test_the_last_session_reaches_the_dense_layer_past_the_lstm():
    body = Lstm(5, 3, LstmParams(inputs="all", hidden=(4,), dropout=(0.0,), dense=2, skip=True))
    for weight in body.recurrent.parameters():
        torch.nn.init.zeros_(weight)  # and so the LSTM says 0
    scores = torch.randn(6, 5, 3)
    layer = body.dense[0]
    by_hand = torch.relu(scores[:, -1] @ layer.weight[:, 4:].T + layer.bias)
    torch.testing.assert_close(body(scores), by_hand)


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
    ("changed", "key"),
    [
        ({"dropout": [0.3, 1.5]}, "dropout"),
        ({"dropout": [0.3, 0.2, 0.2]}, "dropout"),
        ({"hidden": [64, -32]}, "hidden"),
        ({"dense": 0}, "dense"),
    ],
)
def test_an_impossible_body_is_refused_by_name(tmp_path, changed, key):
    default = load_params(PROJECT, "lstm", LstmParams).model_dump(mode="json")
    workspace = with_params(tmp_path, lstm=default | changed)
    with pytest.raises(ParamsError, match=rf"lstm.*{key}"):
        load_params(workspace, "lstm", LstmParams)
