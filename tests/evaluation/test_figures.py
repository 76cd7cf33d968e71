import itertools
import math

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import CircularBlockBootstrap

from pitwise.evaluation import figures as figures_of
from pitwise.evaluation.figures import KEYS, by, figures, paired

DAYS = pd.to_datetime([f"2024-01-{day:02d} 21:00" for day in (2, 3, 4, 5, 8, 9)], utc=True)


def table(scores, labels, days=DAYS, symbols=None, **columns) -> pd.DataFrame:
    """Forecasts of (n_sessions, n_symbols) scores and labels; no other part unless given."""
    scores, labels = np.broadcast_arrays(np.asarray(scores, float), np.asarray(labels, float))
    n, width = labels.shape
    names = symbols or [f"S{i:02d}" for i in range(width)]
    rows = pd.DataFrame(
        {
            "symbol": np.tile(names, n),
            "event_timestamp": np.repeat(days[:n], width),
            "score": scores.ravel(),
            "log_return": math.nan,
            "p_up": math.nan,
            "label": labels.ravel(),
            "label_open": math.nan,
        }
    )
    return rows.assign(**{name: np.ravel(values) for name, values in columns.items()})


def outer(lowest: float, highest: float) -> list[float]:
    """Log returns of ten symbols, of which all but the first and the last stand still."""
    return [math.log1p(lowest), *[0.0] * 8, math.log1p(highest)]


UP = list(range(10))
THREE = table(
    [UP, UP, UP[::-1]],
    [outer(-0.005, 0.01), outer(0.002, 0.007), outer(0.004, -0.006)],
    label_open=[outer(-0.001, 0.001), outer(0.0, 0.006), outer(0.002, -0.002)],
)


def test_the_keys_are_these_in_this_order():
    assert list(figures(THREE, 1)) == list(KEYS)


def test_rank_ic_ic_and_icir_by_hand():
    # Two symbols a session: the correlations are 1, 1 and -1, whichever they are. Mean 1/3, deviations
    # 2/3, 2/3, -4/3: variance (4 + 4 + 16) / 9 / 2 = 4/3.
    found = figures(table([[1, 2]] * 3, [[0.1, 0.2], [-0.1, 0.0], [0.3, 0.2]]), 1)
    assert found["rank_ic_mean"] == found["ic_mean"] == pytest.approx(1 / 3)
    assert found["icir"] == pytest.approx(1 / 3 / math.sqrt(4 / 3))
    assert found["rank_ic_t"] == pytest.approx(1 / 3 / math.sqrt(4 / 3) * math.sqrt(3))


def test_ic_weighs_sizes_and_rank_ic_does_not():
    # Pearson of (1, 2, 3) and (1, 2, 4) / 100 is 9 / sqrt(84); their ranks agree.
    found = figures(table([[1, 2, 3]] * 2, [[0.01, 0.02, 0.04]] * 2), 1)
    assert found["rank_ic_mean"] == 1
    assert found["ic_mean"] == pytest.approx(9 / math.sqrt(84))
    assert found["rank_ic_t"] is None


def test_icir_is_of_pearsons_ic():
    # 9 / sqrt(84) and -1, their distance / sqrt(2) is the deviation.
    found = figures(table([[1, 2, 3]] * 2, [[0.01, 0.02, 0.04], [0.03, 0.02, 0.01]]), 1)
    first = 9 / math.sqrt(84)
    assert found["rank_ic_mean"] == 0
    assert found["icir"] == pytest.approx((first - 1) / 2 / ((first + 1) / math.sqrt(2)))


def test_overlapping_horizons_take_newey_wests_t():
    # Rank ICs 1, 1, -1, 1 of two symbols: mean 1/2, deviations (1, 1, -3, 1) / 2: squares 3 in sum,
    # products of neighbours (1 - 3 - 3) / 4 = -5/4; lag 1, weight 1/2: 3 - 5/4 = 7/4. Of the mean:
    # 7/4 / (4 * 3).
    labels = [[0.1, 0.2], [-0.1, 0.0], [0.3, 0.2], [0.0, 0.1]]
    found = figures(table([[1, 2]] * 4, labels), 2)
    assert found["rank_ic_t"] == pytest.approx(0.5 / math.sqrt(7 / 48))


def test_the_decile_spread_its_t_and_what_it_costs_by_hand():
    # Spreads 150, 50 and 100 basis points: mean 100, deviation 50. The book is kept once and turned
    # round once: 0 and 4 traded, of at most 4; 100 / 2 is left for each unit.
    found = figures(THREE, 1)
    assert found["decile_spread_bp"] == pytest.approx(100)
    assert found["decile_spread_t"] == pytest.approx(2 * math.sqrt(3))
    assert found["turnover"] == pytest.approx(0.5)
    assert found["break_even_bp"] == pytest.approx(50)


def test_the_price_of_the_next_open_has_its_own_figures():
    # Spreads 20, 60 and 40 basis points; the same book.
    found = figures(THREE, 1)
    assert found["decile_spread_bp_open"] == pytest.approx(40)
    assert found["break_even_bp_open"] == pytest.approx(20)
    same = figures(THREE.assign(label=THREE["label_open"]), 1)
    assert found["rank_ic_mean_open"] == same["rank_ic_mean"] != found["rank_ic_mean"]
    assert found["rank_ic_t_open"] == same["rank_ic_t"]


def test_a_longer_horizon_earns_and_trades_a_share_a_session():
    # Of two sessions each: half of 150, 50 and 100 basis points a session. The third book against the
    # first is turned round, with half of the capital: 2 traded, of at most 4.
    found = figures(THREE, 2)
    assert found["decile_spread_bp"] == pytest.approx(50)
    assert found["turnover"] == pytest.approx(0.5)
    assert found["break_even_bp"] == pytest.approx(25)
    # Deviations 25, -25, 0: squares 1250, products of neighbours -625; lag 1, weight 1/2: half the
    # variance of 625.
    assert found["decile_spread_t"] == pytest.approx(50 / math.sqrt(625 / 2 / 3))


def test_a_spread_that_costs_before_trading_breaks_even_below_zero():
    found = figures(THREE.assign(label=-THREE["label"]), 1)
    assert found["decile_spread_bp"] < 0
    assert found["break_even_bp"] < 0


def test_the_hit_rate_is_a_mean_over_sessions():
    # Of four symbols none is at the median. All right, then two of four.
    found = figures(table([[1, 2, 3, 4]] * 2, [[-2, -1, 1, 2], [-2, 1, -1, 2]]), 1)
    assert found["hit_rate_median"] == 0.75


def test_mape_and_brier_by_hand():
    # The price rises by a quarter, falls by half, where no move is forecast: 1 - 1 / 1.25 = 20% and
    # 1 / 0.5 - 1 = 100% of the actual price. p_up 0.8 and 0.4: 0.04 and 0.16.
    labels = [[math.log(1.25), math.log(0.5)]]
    found = figures(table([[1, 2]], labels, log_return=[0, 0], p_up=[0.8, 0.4]), 1)
    assert found["mape"] == pytest.approx(60)
    assert found["brier"] == pytest.approx(0.1)


def test_sessions_and_predictions_are_counted_with_a_label():
    labels = [[0.1, math.nan], [math.nan, math.nan], [0.1, 0.2]]
    found = figures(table([[1, 2]] * 3, labels), 1)
    assert (found["n_sessions"], found["n_predictions"]) == (2, 3)


def test_what_ranks_nothing_has_no_figures_of_ranks():
    found = figures(THREE.assign(score=0.0, log_return=0.0), 1)
    known = {name for name, value in found.items() if value is not None}
    assert known == {"mape", "n_sessions", "n_predictions"}


def test_a_table_without_labels_has_no_figures():
    found = figures(THREE.assign(label=math.nan, label_open=math.nan), 1)
    assert {name: value for name, value in found.items() if value is not None} == {
        "n_sessions": 0,
        "n_predictions": 0,
    }


def test_a_market_of_chance_has_figures_of_chance():
    rng = np.random.default_rng(5)
    days = pd.date_range("2020-01-01", periods=250, tz="UTC")
    found = figures(table(*rng.normal(0, 0.02, (2, 250, 50)), days=days), 1)
    assert abs(found["rank_ic_t"]) < 3
    assert found["hit_rate_median"] == pytest.approx(0.5, abs=0.02)
    # Another ten of 50 each session: an old member is in the same leg again with 1/10, in the other
    # with 1/10: |dw| is 0, 2 or 1, on average 2 * (1 - 1/10) * 2 legs of at most 4.
    assert found["turnover"] == pytest.approx(0.9, abs=0.01)


def test_a_planted_ic_is_found_of_its_size():
    rng = np.random.default_rng(6)
    days = pd.date_range("2020-01-01", periods=250, tz="UTC")
    score, noise = rng.normal(size=(2, 250, 100))
    label = 0.01 * (0.1 * score + math.sqrt(1 - 0.01) * noise)
    found = figures(table(score, label, days=days), 1)
    # Spearman's of two normals: 6/pi asin(0.1 / 2).
    assert found["ic_mean"] == pytest.approx(0.1, abs=0.02)
    assert found["rank_ic_mean"] == pytest.approx(6 / math.pi * math.asin(0.05), abs=0.02)
    # A session's IC has the deviation 1 / sqrt(n - 1).
    assert found["icir"] == pytest.approx(0.1 * math.sqrt(99), rel=0.25)


# By parts


def test_by_year_each_session_counts_in_its_year():
    days = pd.to_datetime(["2023-12-28", "2023-12-29", "2024-01-02"], utc=True)
    labels = [outer(-0.005, 0.01), outer(0.002, 0.007), outer(0.004, -0.006)]
    rows = table([UP, UP, UP[::-1]], labels, days=days)
    found = by(rows, rows["event_timestamp"].dt.year, 1)
    assert list(found) == ["2023", "2024"]
    assert [part["n_sessions"] for part in found.values()] == [2, 1]
    assert found["2023"]["decile_spread_bp"] == pytest.approx(100)
    # The new year's first book replaces the old year's last.
    assert found["2024"]["turnover"] == pytest.approx(1)


def test_by_a_key_that_cuts_through_sessions_ranks_each_part_by_itself():
    # Within each half the order is right; across them it is wrong.
    rows = table([[1, 2, 3, 4]] * 2, [[0.3, 0.4, 0.1, 0.2]] * 2)
    found = by(rows, pd.Series(["a", "a", "b", "b"] * 2), 1)
    assert figures(rows, 1)["rank_ic_mean"] < 0
    assert [found[part]["rank_ic_mean"] for part in "ab"] == [1, 1]


def test_by_leaves_out_what_is_in_no_part():
    rows = table([[1, 2]] * 3, [[0.1, 0.2], [0.2, 0.1], [0.1, 0.2]])
    found = by(rows, pd.Series(["a", "a", None, None, "a", "a"]), 1)
    assert list(found) == ["a"]
    assert found["a"]["rank_ic_mean"] == 1
    assert found["a"]["n_predictions"] == 4


def test_the_parts_of_a_whole_session_key_are_the_whole():
    rng = np.random.default_rng(8)
    rows = table(*rng.normal(0, 0.02, (2, 6, 12)))
    regime = rows["event_timestamp"].map(dict(zip(DAYS, "abcabc", strict=True)))
    parts = by(rows, regime, 1).values()
    whole = figures(rows, 1)
    mean = sum(part["rank_ic_mean"] * part["n_sessions"] for part in parts) / 6
    assert mean == pytest.approx(whole["rank_ic_mean"])
    assert sum(part["n_predictions"] for part in parts) == whole["n_predictions"]


# Pairs


def series(values) -> pd.Series:
    return pd.Series(values, index=DAYS[: len(values)], dtype=float)


def test_a_paired_difference_by_hand():
    # Differences 0 and 1: mean 1/2, deviation 1 / sqrt(2), t = 1/2 / (1 / sqrt(2)) * sqrt(2) = 1.
    # Drawing two of two sessions: 0, 1/2 or 1, the outer ones in a quarter of the draws each.
    found = paired(series([0.1, 1.3]), series([0.1, 0.3]), 1, 2000, 7)
    assert list(found) == ["difference", "t", "ci95"]
    assert found["difference"] == pytest.approx(0.5)
    assert found["t"] == pytest.approx(1)
    assert found["ci95"] == pytest.approx([0, 1])


def test_a_block_of_all_sessions_has_one_mean():
    # Two sessions are one block where neighbours share a label. The variance with lag 1 is half.
    found = paired(series([0.1, 1.3]), series([0.1, 0.3]), 2, 2000, 7)
    assert found["ci95"] == pytest.approx([0.5, 0.5])
    assert found["t"] == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("n", "horizon", "block"), [(502, 1, 8), (502, 5, 12), (502, 20, 27), (3, 20, 3), (2, 1, 1)]
)
def test_a_block_is_the_cube_root_and_what_labels_share(n, horizon, block):
    assert figures_of.block_length(n, horizon) == block


def test_sessions_that_one_lacks_are_left_out():
    ours, theirs = series([1, math.nan, 3, 4]), series([0, 5, 1])
    assert paired(ours, theirs, 1, 100, 0)["difference"] == pytest.approx(1.5)


@pytest.mark.parametrize("common", [0, 1])
def test_too_few_sessions_have_no_difference(common):
    found = paired(series([1.0] * common), series([0.5, 0.4]), 1, 100, 0)
    assert found == {"difference": None, "t": None, "ci95": None}


def test_block_means_are_of_every_way_to_join_blocks():
    values = np.array([1.0, 2, 4, 8, 16])
    blocks = [np.roll(values, -i)[:2] for i in range(5)]
    every = [np.concatenate(three)[:5].mean() for three in itertools.product(blocks, repeat=3)]
    drawn = figures_of.block_means(values, 2, 60_000, 3)
    assert set(drawn.round(9)) == set(np.round(every, 9))
    assert drawn.mean() == pytest.approx(np.mean(every), rel=0.01)
    assert drawn.std() == pytest.approx(np.std(every), rel=0.01)


def test_draws_lie_about_the_mean_whatever_stands_at_the_ends():
    values = np.zeros(100)
    values[[0, -1]] = 10
    drawn = figures_of.block_means(values, 8, 20_000, 1)
    assert drawn.mean() == pytest.approx(0.2, rel=0.03)


def test_the_bootstrap_is_archs():
    rng = np.random.default_rng(4)
    values = np.convolve(rng.normal(0.01, 0.1, 206), np.ones(5) / 5, "valid")
    arch = CircularBlockBootstrap(6, values, seed=1).apply(np.mean, 500).ravel()
    np.testing.assert_allclose(
        figures_of.block_means(values, 6, 500, 1), arch, atol=1e-12
    )  # draw by draw


def test_the_interval_is_the_seeds():
    rng = np.random.default_rng(0)
    ours, theirs = (pd.Series(values) for values in rng.normal(size=(2, 60)))
    assert paired(ours, theirs, 1, 500, 7) == paired(ours, theirs, 1, 500, 7)
    assert paired(ours, theirs, 1, 500, 7)["ci95"] != paired(ours, theirs, 1, 500, 8)["ci95"]


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(horizon):
    rng = np.random.default_rng(horizon)
    held = []
    for _ in range(300):
        # What two forecasts share is far larger than what tells them apart.
        shared = rng.normal(size=500)
        apart = np.convolve(rng.normal(size=500 + horizon - 1), np.ones(horizon), "valid") / 10
        ours, theirs = pd.Series(shared + apart), pd.Series(shared)
        low, high = paired(ours, theirs, horizon, 400, 0)["ci95"]
        held.append(low <= 0 <= high)
    # The block bootstrap is known to be somewhat narrow.
    assert 0.87 <= np.mean(held) <= 0.98
