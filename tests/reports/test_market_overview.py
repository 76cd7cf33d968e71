import numpy as np
import pandas as pd
import pytest
from support import markets
from support.report_pages import hand_made

from pitwise.reports import market_overview


def test_the_index_is_the_compounded_mean_return_and_joins_no_segments():
    days = ["2014-01-02", "2014-01-03", "2014-01-06"]
    bars = hand_made(
        {
            "A": dict(zip(days, (10, 11, 11), strict=True)),
            "B": dict(zip(days, (20, 18, 36), strict=True)),
        }
    )
    found = market_overview.market(bars)
    assert found["index"].tolist() == pytest.approx([100, 100, 150])  # (+10% - 10%) / 2, (0 + 100%) / 2
    assert found["volume"].tolist() == [2000, 2000, 2000]
    assert found["advancing"].tolist()[1:] == [0.5, 1.0]  # A did not move on the third session
    assert np.isnan(found["advancing"].iloc[0])
    apart = bars.assign(segment=[0, 0, 0, 0, 0, 1])
    assert market_overview.market(apart)["index"].tolist() == pytest.approx([100, 100, 100])


def test_breadth_is_the_share_above_the_50_session_mean():
    bars = markets.bars(3, 120, seed=4, gaps=0.1)
    found = market_overview.market(bars)["above_trend"]
    votes: dict = {}
    for _, own in bars.groupby("symbol"):
        closes = own["close"].to_numpy()
        for i in range(49, len(own)):
            votes.setdefault(own["date"].iloc[i], []).append(closes[i] > closes[i - 49 : i + 1].mean())
    for day, share in found.items():
        assert (np.isnan(share) and day not in votes) or share == pytest.approx(np.mean(votes[day]))


def test_a_symbols_averages_and_volatility():
    bars = markets.bars(2, 60, seed=6)
    own = bars[bars["symbol"] == "S001"]
    found = market_overview.by_symbol(bars).loc["S001"]
    assert found["volume"] == pytest.approx(own["volume"].mean())
    assert found["value"] == pytest.approx((own["close"] * own["volume"]).mean())
    daily = np.diff(np.log(own["close"]))
    assert found["volatility"] == pytest.approx(daily.std(ddof=1) * 252**0.5)
    assert np.isnan(market_overview.by_symbol(bars.groupby("symbol").head(20))["volatility"]).all()


def test_correlated_symbols_stand_side_by_side():
    bars = markets.bars(4, 250, seed=8)
    twin = bars[bars["symbol"] == "S000"].assign(symbol="S009")
    both = pd.concat([bars, twin], ignore_index=True)
    found = market_overview.correlations(both, pd.Index(both["symbol"].unique()))
    names = list(found)
    assert abs(names.index("S000") - names.index("S009")) == 1
    assert found.loc["S000", "S009"] == pytest.approx(1)
    assert list(found.index) == names
