import pytest
from support.project import PROJECT, with_params
from torch import nn

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from training.models.ann import AnnParams


def test_the_ann_takes_570_inputs_through_256_128_64(default_model, weight_shapes):
    model = default_model("ann")
    assert weight_shapes(model) == [[256, 570], [128, 256], [64, 128], [2, 64]]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3, 0.2]
    assert sum(p.numel() for p in model.parameters()) == 187_458


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"dropout": [0.3, 0.3, 1.0]}, "dropout"),
        ({"dropout": [0.3, 0.3, -0.1]}, "dropout"),
        ({"dropout": [0.3]}, "dropout"),
        ({"hidden": [256, 0, 64]}, "hidden"),
        ({"hidden": []}, "hidden"),
        ({"dense": 16}, "dense"),
    ],
)
def test_an_impossible_body_is_refused_by_name(tmp_path, changed, key):
    default = load_params(PROJECT, "ann", AnnParams).model_dump(mode="json")
    workspace = with_params(tmp_path, ann=default | changed)
    with pytest.raises(ParamsError, match=rf"ann.*{key}"):
        load_params(workspace, "ann", AnnParams)
