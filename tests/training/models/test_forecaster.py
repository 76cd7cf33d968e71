import numpy as np
import pytest
import torch
from scipy.stats import logistic
from support import small_runs as small

from pitwise.features.indicators import BY_NAME
from training.models.forecaster import Forecaster


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    rows = small.dataset_rows(small.market(4, 120, seed=6))
    return small.all_windows(small.part(rows, "train"))


@pytest.fixture(params=["ann", "lstm", "transformer"])
def model(request, windows) -> Forecaster:
    """Random weights, with the scaling that these windows ask for."""
    forecaster = small.small_model(request.param).eval()
    relative = forecaster.scaler.relative(windows)
    forecaster.scaler.mean.copy_(relative.mean(dim=0))
    forecaster.scaler.std.copy_(relative.std(dim=0).clamp_min(1e-3))
    forecaster.calibration.location.copy_(torch.tensor([0.001, 0.02]))
    return forecaster


def test_outputs_are_of_one_logistic_distribution(model, windows):
    score, log_return, p_up, scale = model(windows)
    assert score.shape == log_return.shape == p_up.shape == scale.shape == (len(windows),)
    torch.testing.assert_close(log_return, 0.001 + 0.02 * score)
    assert (scale > 0).all()
    above_0 = logistic.sf(0, log_return.detach(), scale.detach())
    np.testing.assert_allclose(p_up.detach(), above_0, rtol=1e-5)
    assert score.std() > 0


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
