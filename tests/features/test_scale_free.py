import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.features.indicators import FEATURES, SCALE_FREE
from pitwise.features.scale_free import scale_free

UNITS = sorted({feature.unit for feature in FEATURES})


def test_each_unit_by_hand():
    np.testing.assert_allclose(scale_free(np.array([110.0, 100.0]), "price", 100.0), [np.log(1.1), 0])
    assert scale_free(np.array([5.0, -5.0]), "price_change", 100.0).tolist() == [0.05, -0.05]
    np.testing.assert_allclose(scale_free(np.array([0.0, np.e - 1]), "shares", 100.0), [0, 1])


@pytest.mark.parametrize("unit", sorted(SCALE_FREE))
def test_what_has_no_scale_stays_as_it_is(unit):
    values = np.array([-3.0, 0.0, 70.0])
    assert scale_free(values, unit, 100.0) is values


def test_every_unit_of_a_feature_has_its_rule():
    assert {"price", "price_change", "shares", *SCALE_FREE} == set(UNITS)


@pytest.mark.parametrize("unit", ["price", "price_change"])
def test_prices_of_another_share_basis_give_the_same(unit):
    values, close = np.array([[90.0, 100.0], [40.0, 50.0]]), np.array([[100.0], [50.0]])
    split = scale_free(values / 8, unit, close / 8)
    np.testing.assert_array_equal(split, scale_free(values, unit, close))


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(UNITS),
    st.lists(st.floats(0.5, 1e10, width=32), min_size=6, max_size=6),
    st.floats(0.5, 10_000, width=32),
)
def test_numpy_and_torch_give_the_same_to_float_precision(unit, values, close):
    windows, closes = np.array(values, "float32").reshape(1, 2, 3), np.full((1, 1, 1), close, "float32")
    ours = scale_free(windows, unit, closes)
    theirs = scale_free(torch.from_numpy(windows), unit, torch.from_numpy(closes), torch)
    assert theirs.dtype == torch.float32
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-6)
    # In double precision numpy has a last bit of its own at most.
    exact = scale_free(windows.astype("float64"), unit, closes.astype("float64"))
    tensors = torch.from_numpy(windows).double(), torch.from_numpy(closes).double()
    np.testing.assert_allclose(
        exact, scale_free(tensors[0], unit, tensors[1], torch), rtol=1e-14, atol=1e-15
    )
