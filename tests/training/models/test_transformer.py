import pytest
import torch
from support.project import PROJECT, with_params

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from training.models.transformer import Transformer, TransformerParams


def body(**changed) -> Transformer:
    params = {"width": 8, "layers": 1, "heads": 2, "feedforward": 16, "dropout": 0.0, "dense": 4}
    torch.manual_seed(0)
    return Transformer(5, 3, TransformerParams(**{"inputs": "all", **params, **changed})).eval()


def test_sessions_differ_by_their_positions():
    scores = torch.randn(6, 5, 3)
    earlier = torch.cat([scores[:, [1, 0]], scores[:, 2:]], dim=1)
    net = body()
    assert not torch.allclose(net(scores), net(earlier))
    torch.nn.init.zeros_(net.positions)
    torch.testing.assert_close(net(scores), net(earlier))


def test_the_last_session_reaches_the_dense_layer_past_the_encoder():
    net = body(skip=True)
    layer = net.dense[0]
    torch.nn.init.zeros_(layer.weight[:, :8].detach())  # nothing of the encoder
    scores = torch.randn(6, 5, 3)
    by_hand = torch.relu(scores[:, -1] @ layer.weight[:, 8:].T + layer.bias)
    torch.testing.assert_close(net(scores), by_hand)


def test_attention_is_the_softmax_of_the_last_session_s_query_and_every_key():
    net, encoded = body(), torch.randn(2, 5, 8)
    query = encoded[:, -1] @ net.query.weight.T + net.query.bias
    key = encoded @ net.key.weight.T + net.key.bias
    score = torch.stack([key[i] @ query[i] for i in range(2)]) / 8**0.5
    torch.testing.assert_close(net.attention(encoded), score.exp() / score.exp().sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("changed", "key"), [({"heads": 3}, "multiple of 'heads'"), ({"dropout": 1.0}, "dropout")]
)
def test_an_impossible_body_is_refused_by_name(tmp_path, changed, key):
    default = load_params(PROJECT, "transformer", TransformerParams).model_dump(mode="json")
    workspace = with_params(tmp_path, transformer=default | changed)
    with pytest.raises(ParamsError, match=rf"transformer.*{key}"):
        load_params(workspace, "transformer", TransformerParams)
