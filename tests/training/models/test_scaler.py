import math

import torch

from training.models.scaler import CLIP, Scaler


def test_the_scaler_takes_prices_to_the_last_close_and_shares_to_their_mean():
    scaler = Scaler(["daily_return", "close", "price_change", "volume", "open"], 2)
    window = torch.tensor([[[1, 50, 5, 0, 200], [2, 100, 10, math.e**2 - 1, 100]]])
    # Out come open and close, then the price change, then the shares, then the percentage.
    expected = [[math.log(0.5), math.log(2), 0.05, -1, 1], [0, 0, 0.1, 1, 2]]
    assert scaler.order == [1, 4, 2, 3, 0]
    torch.testing.assert_close(scaler.relative(window), torch.tensor([expected]))


def test_of_fewer_sessions_each_is_what_it_is_among_all():
    features = ["daily_return", "close", "price_change", "volume", "open"]
    windows = torch.rand(4, 6, 5) + 1
    last = Scaler(features, 2).relative(windows)
    torch.testing.assert_close(last, Scaler(features, 6).relative(windows)[:, -2:])


def test_the_scaler_standardises_and_clips():
    scaler = Scaler(["close", "daily_return"], 3)
    scaler.mean.copy_(torch.tensor([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]]))
    scaler.std.copy_(torch.tensor([[1.0, 4.0], [1.0, 1.0], [1.0, 1.0]]))
    window = torch.tensor([[[100.0, 10.0], [100.0, 1e9], [100.0, -1e9]]])
    torch.testing.assert_close(scaler(window)[0, :, 1], torch.tensor([2.0, CLIP, -CLIP]))


def test_trees_see_the_last_session_with_prices_as_multiples_of_its_close():
    scaler = Scaler(["daily_return", "close", "price_change", "volume", "open"], 2)
    window = torch.tensor([[[1.0, 50, 5, 0, 200], [2, 80, 10, 9, 100]]])
    assert scaler.last_session(window).tolist() == [[1, 1.25, 0.125, 2]]
