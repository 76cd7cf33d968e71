import pytest
import torch
from support.project import PROJECT, with_params
from torch import nn

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from training.models.ann import Ann, AnnParams
from training.models.forecaster import Forecaster


def test_the_reference_ann_takes_570_inputs_through_256_128_64(weight_shapes):
    params = AnnParams(inputs="selected", hidden=(256, 128, 64), dropout=(0.3, 0.3, 0.2))
    body = Ann(30, 19, params)
    assert weight_shapes(body) == [[256, 570], [128, 256], [64, 128]]
    assert [m.p for m in body.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3, 0.2]


def test_the_ann_sees_the_last_sessions_alone():
    body = AnnParams(inputs="all", sessions=2, hidden=(4,), dropout=(0.0,))
    model = Forecaster("ann", ["close", "daily_return"], 5, body)
    windows = torch.rand(6, 5, 2) + 1
    earlier = torch.cat([torch.ones(6, 3, 2), windows[:, 3:]], dim=1)
    assert torch.equal(model.scores(windows), model.scores(earlier))
    assert not torch.equal(model.scores(windows), model.scores(windows.flip(1)))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"dropout": [0.3, 1.0]}, "dropout"),
        ({"dropout": [0.3, -0.1]}, "dropout"),
        ({"dropout": [0.3]}, "dropout"),
        ({"hidden": [256, 0]}, "hidden"),
        ({"sessions": 0}, "sessions"),
        ({"hidden": []}, "hidden"),
        ({"dense": 16}, "dense"),
    ],
)
def test_an_impossible_body_is_refused_by_name(tmp_path, changed, key):
    default = load_params(PROJECT, "ann", AnnParams).model_dump(mode="json")
    workspace = with_params(tmp_path, ann=default | changed)
    with pytest.raises(ParamsError, match=rf"ann.*{key}"):
        load_params(workspace, "ann", AnnParams)
