import pandas as pd

from pitwise.bars.basis import on_last_basis


def test_prices_and_volumes_are_put_on_the_last_sessions_basis():
    bars = pd.DataFrame(
        {
            "symbol": pd.array(["AAA"] * 3 + ["BBB"], dtype="string"),
            "date": pd.to_datetime(["2014-01-02", "2014-01-03", "2014-01-06", "2014-01-02"]),
            **{price: [100.0, 50.0, 40.0, 7.0] for price in ("open", "high", "low", "close")},
            "volume": [10.0, 20.0, 30.0, 5.0],
            "price_factor": [1.0, 2.0, 2.5, 1.0],  # a split 2:1, then a dividend of a fifth
            "share_factor": [1.0, 2.0, 2.0, 1.0],
            "segment": pd.array([0, 0, 0, 0], dtype="int32"),
        }
    )
    adjusted = on_last_basis(bars)
    assert list(adjusted) == [c for c in bars if c != "share_factor"]
    for price in ("open", "high", "low", "close"):
        assert adjusted[price].tolist() == [40.0, 40.0, 40.0, 7.0]
    assert adjusted["volume"].tolist() == [20.0, 20.0, 30.0, 5.0]
    assert adjusted["price_factor"].tolist() == [0.4, 0.8, 1.0, 1.0]
