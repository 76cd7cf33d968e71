"""The isolation forest: its measures, its file, and bars that come after it was fitted."""

from dataclasses import fields, replace
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import IsolationForest
from support import markets

from pitwise import quality_flags
from pitwise.errors import DataError

SETTINGS = {"contamination": 0.001, "trees": 100, "sample": 256, "seed": 7}
DAYS = [f"2014-01-{d:02d}" for d in (2, 3, 6, 7, 8)]


def five_bars(**columns) -> pd.DataFrame:
    """Clean bars of one symbol at $10, high 10.10 and low 9.90."""
    bars = pd.DataFrame({"symbol": "A", "date": pd.to_datetime(DAYS), "close": 10.0})
    bars = bars.assign(high=10.1, low=9.9, volume=1000.0, price_factor=1.0, share_factor=1.0, segment=0)
    return bars.assign(**columns)


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    """2,000 clean bars of five symbols, one of them (row 777) with a high and a volume of its own."""
    bars = markets.bars(5, 400, seed=5).assign(share_factor=1.0)
    bars["volume"] = 1e6 * np.exp(np.random.default_rng(5).normal(0, 0.3, len(bars)))
    bars.loc[777, ["high", "volume"]] = [bars.loc[777, "high"] * 1.2, 1e7]
    return bars


@pytest.fixture(scope="module")
def fitted(market) -> tuple[quality_flags.Forest, pd.DataFrame]:
    return quality_flags.fit(market, **SETTINGS)


def test_measures_are_in_the_symbols_own_robust_deviations():
    bars = five_bars(volume=np.exp([1.0, 2.0, 3.0, 4.0, 9.0]) - 1)
    _, flags = quality_flags.fit(bars, **SETTINGS)
    # Median 3; distances 2, 1, 0, 1, 6 with median 1.
    assert flags["log_volume"].tolist() == pytest.approx([x / 1.4826 for x in (-2, -1, 0, 1, 6)])
    assert flags["log_return"].tolist() == [0] * 5


def test_a_split_is_no_measure_and_neither_is_the_first_bar_of_a_segment():
    closes = [10.0, 10.1, 10.0, 5.05, 5.0]
    split = five_bars(
        close=closes,
        price_factor=[1, 1, 1, 2, 2],
        share_factor=[1, 1, 1, 2, 2],
        volume=[1000.0, 1000, 1000, 2000, 2000],
    )
    _, flags = quality_flags.fit(split, **SETTINGS)
    assert flags["log_return"].abs().max() < 2
    assert flags["log_volume"].tolist() == [0] * 5
    _, apart = quality_flags.fit(five_bars(close=closes, segment=[0, 0, 0, 1, 1]), **SETTINGS)
    assert apart["log_return"].iloc[3] == 0


def test_a_planted_outlier_is_flagged_and_at_most_the_share_that_is_set(market, fitted):
    _, flags = fitted
    found = flags[flags["flagged"]]
    assert len(found) == 2  # 0.001 of 2,000 bars
    assert found["score"].idxmax() == 777
    assert found["score"].between(0.5, 1, inclusive="right").all()
    _, again = quality_flags.fit(market, **SETTINGS)
    pd.testing.assert_frame_equal(flags, again)


def test_bars_that_are_all_alike_have_no_flags():
    _, flags = quality_flags.fit(five_bars(), **SETTINGS)
    assert not flags["flagged"].any()


def test_the_kept_forest_scores_as_scikit_learn_does(market, fitted, tmp_path):
    forest, flags = fitted
    quality_flags.save(forest, tmp_path / "forest.npz")
    kept = quality_flags.load(tmp_path / "forest.npz")
    pd.testing.assert_frame_equal(kept.flags(market), flags, check_exact=True)
    measured = flags[list(quality_flags.MEASURES)].to_numpy()
    theirs = IsolationForest(n_estimators=100, max_samples=256, random_state=7).fit(measured)
    assert (kept.score(flags) == (-theirs.score_samples(measured)).round(6)).all()
    beyond = np.random.default_rng(0).normal(0, 20, (500, 3))
    frame = pd.DataFrame(beyond, columns=list(quality_flags.MEASURES))
    assert kept.score(frame) == pytest.approx(-theirs.score_samples(beyond), abs=1e-6)


def test_a_later_bar_is_scored_by_what_was_known_when_the_forest_was_fitted(market):
    """Neither the bars after it nor the bar itself moves the medians, nor does a later split."""
    days = market["date"].unique()
    before = market[market["date"] < days[-3]].reset_index(drop=True)
    forest, _ = quality_flags.fit(before, **SETTINGS)
    until = market[market["date"] <= days[-3]]
    alone = forest.flags(quality_flags.newest_two(until)).groupby("symbol").tail(1)
    among = forest.flags(market)
    pd.testing.assert_frame_equal(alone, among.loc[alone.index], check_exact=True)

    split = market.copy()
    after = market["date"] >= days[-2]
    split.loc[after, ["open", "high", "low", "close"]] /= 2
    split.loc[after, ["price_factor", "share_factor"]] *= 2
    split.loc[after, "volume"] *= 2
    assert forest.flags(split)["score"].to_numpy() == pytest.approx(among["score"].to_numpy(), abs=2e-6)


def test_of_a_symbol_that_the_forest_has_not_seen_nothing_is_known(market, fitted):
    forest, _ = fitted
    bars = pd.concat([market.tail(2), market.tail(2).assign(symbol="NEW")], ignore_index=True)
    found = forest.flags(bars)
    assert found["flagged"].isna().tolist() == [False, False, True, True]
    assert found["score"].isna().tolist() == [False, False, True, True]


def test_the_newest_bars_of_a_market_are_scored_in_milliseconds(fitted, market):
    forest, _ = fitted
    many = pd.concat(
        [market.groupby("symbol").tail(2).assign(segment=i) for i in range(100)], ignore_index=True
    )
    forest.flags(many)
    started = perf_counter()
    forest.flags(many)
    assert perf_counter() - started < 1  # 1,000 bars: 20 ms on a quiet machine


def test_the_file_is_read_whole_or_not_at_all(fitted, tmp_path):
    path = tmp_path / "quality/forest.npz"
    assert quality_flags.load(path) is None
    forest, _ = fitted
    quality_flags.save(forest, path)
    kept, first = quality_flags.load(path), path.read_bytes()
    assert kept.limit == forest.limit
    for field in fields(forest):
        np.testing.assert_array_equal(getattr(kept, field.name), getattr(forest, field.name))
    quality_flags.save(replace(forest), path)
    assert path.read_bytes() == first
    path.write_bytes(first[:1000])
    with pytest.raises(DataError, match="dvc repro -f -s quality"):
        quality_flags.load(path)
    with path.open("wb") as file:
        np.savez(file, version=99)
    with pytest.raises(DataError, match="another version"):
        quality_flags.load(path)
