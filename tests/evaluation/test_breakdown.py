import math

import numpy as np
import pandas as pd
import pytest

from pitwise.evaluation.breakdown import (
    REPORT,
    SHOWN,
    breakdown,
    dollar_volume,
    report_breakdown,
    size_third,
    volatility_regime,
    year,
)
from pitwise.evaluation.figures import figures
from pitwise.workspace import Workspace, read_json, write_parquet

DAYS = pd.to_datetime([f"2023-12-{d} 21:00" for d in (27, 28, 29)] + ["2024-01-02 21:00"], utc=True)


def table(scores: list[list[float]], labels: list[list[float]], symbols: str) -> pd.DataFrame:
    """Forecasts of each session's symbols."""
    n, width = len(labels), len(symbols)
    return pd.DataFrame(
        {
            "symbol": list(symbols) * n,
            "event_timestamp": np.repeat(DAYS[:n], width),
            "score": np.ravel(scores).astype(float),
            "log_return": math.nan,
            "p_up": math.nan,
            "label": np.ravel(labels).astype(float),
            "label_open": np.ravel(labels).astype(float),
        }
    )


FOUR = table([[1, 2, 3, 4]] * 4, [[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 4, 3], [2, 1, 3, 4]], "ABCD")
"""Rank ICs 1, -1, 0.8 and 0.8: 1 - 6 / (4 (16 - 1)) x the sum of squared differences of rank, 2."""


def test_each_way_to_part_by_hand():
    sector = FOUR["symbol"].map({"A": "x", "B": "x", "C": "y"})
    found = breakdown(FOUR, {"year": year(FOUR), "sector": sector}, 1)
    assert list(found["year"]) == ["2023", "2024"]
    assert found["year"]["2023"]["rank_ic_mean"] == pytest.approx(0.8 / 3)
    # Deviations 2.2 / 3, -3.8 / 3, 1.6 / 3: squares 21.84 / 9 in sum, half of it the variance.
    t = 0.8 / 3 / math.sqrt(21.84 / 18 / 3)
    assert found["year"]["2023"]["rank_ic_t"] == pytest.approx(t)
    assert found["year"]["2024"]["n_sessions"] == 1
    # A before B: right, wrong, right, wrong. C alone ranks nothing, and D is in no sector.
    assert list(found["sector"]) == ["x", "y"]
    assert found["sector"]["x"]["rank_ic_mean"] == 0
    assert found["sector"]["y"]["rank_ic_mean"] is None
    assert [part["n_predictions"] for part in found["sector"].values()] == [8, 4]
    assert list(found["year"]["2023"]) == list(SHOWN)


def test_one_part_of_all_has_the_figures_of_the_whole():
    found = breakdown(FOUR, {"all": pd.Series("x", FOUR.index)}, 1)["all"]["x"]
    whole = figures(FOUR, 1)
    assert found == {name: whole[name] for name in SHOWN}


def test_a_regime_is_told_by_the_sessions_before():
    # Deviations of two returns, times sqrt(2), are their distances: none, 1, 3, 2, 9, 2.5, 1.
    market = pd.Series([0.0, 1, 4, 2, 11, 8.5, 9.5])
    found = volatility_regime(market, sessions=2, before=3)
    # Before the fifth are 1, 3, 2: thirds at 5/3 and 7/3, so 9 is high. Before the sixth 1, 2, 3, 9:
    # at 2 and 3, so 2.5 is in the middle. Before the last 1, 2, 2.5, 3, 9: at 2 1/6 and 2 5/6.
    assert found.tolist()[4:] == ["high", "middle", "low"]
    assert found.isna().tolist() == [True] * 4 + [False] * 3


def test_what_comes_later_changes_no_regime():
    market = pd.Series(np.random.default_rng(4).normal(0, 1, 60))
    calm, wild = (market.where(market.index < 40, market * scale) for scale in (0.1, 10))
    before, after = (volatility_regime(one, sessions=5, before=10) for one in (calm, wild))
    pd.testing.assert_series_equal(before[:40], after[:40])
    assert (before[40:] != after[40:]).any()


def test_size_thirds_are_of_each_session():
    rows = table([[1, 2, 3]] * 2, [[1, 2, 3]] * 2, "ABC")
    found = size_third(rows, pd.Series([5.0, 1, 9, 300, 200, 100]))
    assert found.tolist() == ["middle", "low", "high", "high", "middle", "low"]


def test_dollar_volume_is_each_symbols_own_and_looks_back():
    rows = pd.DataFrame(
        {"symbol": list("AAABB"), "close": [1.0, 2, 1, 10, 20], "volume": [10.0, 20, 30, 1, 2]}
    )
    # 10, 40, 30 and 10, 40.
    np.testing.assert_array_equal(dollar_volume(rows, 2), [math.nan, 25, 35, math.nan, 25])


def test_the_report_reads_sectors_where_there_are_some(tmp_path):
    workspace = Workspace(tmp_path)
    rows = FOUR[["symbol", "event_timestamp"]].sort_values(["symbol", "event_timestamp"])
    write_parquet(rows.assign(close=1.0, volume=1.0, daily_return=0.0), workspace.dataset_rows)
    without = report_breakdown(workspace, {"ridge": FOUR}, 1)
    assert list(without["ridge"]) == ["year", "volatility", "size"]
    assert list(without["ridge"]["year"]) == ["2023", "2024"]
    (tmp_path / "universe").mkdir()
    sectors = "symbol,from,to,value\nA,2023-01-02,,x\nB,2023-01-02,,x\nC,2023-01-02,2024-01-01,y\n"
    (tmp_path / "universe/sectors.csv").write_text(sectors)
    found = report_breakdown(workspace, {"ridge": FOUR}, 1)["ridge"]["sector"]
    assert {part: one["n_predictions"] for part, one in found.items()} == {"x": 8, "y": 3}
    assert read_json(tmp_path / REPORT)["ridge"]["sector"] == found
