"""The features of the newest bars against those of the whole tail."""

import numpy as np
import pandas as pd
import pytest
from support.markets import bars

from pitwise.features.daily import daily_features
from pitwise.features.indicators import NAMES
from pitwise.features.recent import ENDLESS, NotFiniteError, recent_features


@pytest.fixture
def market() -> pd.DataFrame:
    """Three symbols of 120 sessions: one whole, one with a split and a new segment, one of ten bars."""
    clean = bars(3, 120, seed=8)
    names = clean["symbol"].unique()
    late = (clean["symbol"] == names[1]) & (clean.groupby("symbol").cumcount() >= 100)
    clean.loc[late, ["price_factor", "share_factor"]] = 2.0
    clean.loc[late, "segment"] = 1
    young = (clean["symbol"] == names[2]) & (clean.groupby("symbol").cumcount() >= 10)
    return clean[~young].reset_index(drop=True)


@pytest.mark.parametrize("newest", [1, 5, 25, 120])
def test_they_are_those_of_all_bars(market, newest):
    wanted = (market.groupby("symbol").cumcount(ascending=False) < newest).to_numpy()
    ours = recent_features(market, wanted)
    whole = daily_features(market)[wanted].reset_index(drop=True)
    assert ours["symbol"].tolist() == whole["symbol"].tolist()
    for name in ["event_timestamp", *NAMES, "price_factor", "share_factor", "segment"]:
        if name in ENDLESS:
            np.testing.assert_allclose(ours[name], whole[name], rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], whole[name], err_msg=name)


@pytest.mark.parametrize(
    ("changed", "feature"), [({"volume": 1e39}, "volume"), ({"close": np.inf}, "close")]
)
def test_a_number_that_is_none_is_an_error_that_names_it(market, changed, feature):
    last = market.groupby("symbol").tail(1).index
    market.loc[last[0], list(changed)] = list(changed.values())
    wanted = np.zeros(len(market), bool)
    wanted[last] = True
    with pytest.raises(NotFiniteError, match=f"{feature} is ") as raised:
        recent_features(market, wanted)
    assert list(raised.value.found) == [market["symbol"].iloc[0]]
