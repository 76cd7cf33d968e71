import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.errors import DataError
from pitwise.evaluation import sessions

DAYS = pd.to_datetime(["2024-01-02 21:00", "2024-01-03 21:00", "2024-01-04 21:00"], utc=True)


def test_the_mean_of_the_seeds_takes_the_place_of_them():
    table = pd.DataFrame(
        {
            "symbol": ["B", "A", "B", "A"],
            "event_timestamp": DAYS[0],
            "kind": "ann",
            "fold": 3,
            "seed": [1, 1, 2, 2],
            "score": [1.0, 5, 3, 7],
            "log_return": [0.1, 0.0, 0.3, 0.0],
            "p_up": [0.5, math.nan, 0.7, math.nan],
            "label": [0.2, -0.1, 0.2, -0.1],
            "label_open": [0.3, math.nan, 0.3, math.nan],
        }
    )
    mean = sessions.mean_of_seeds(table)
    assert list(mean) == [name for name in sessions.COLUMNS if name != "seed"]
    assert mean["symbol"].tolist() == ["A", "B"]
    assert mean["score"].tolist() == [6, 2]
    assert mean["log_return"].tolist() == pytest.approx([0, 0.2])
    assert mean["p_up"].tolist() == pytest.approx([math.nan, 0.6], nan_ok=True)
    assert mean["label"].tolist() == [-0.1, 0.2]
    assert mean["label_open"].tolist() == pytest.approx([math.nan, 0.3], nan_ok=True)
    assert mean["fold"].tolist() == [3, 3]


def test_hit_rates_are_of_those_on_a_side_of_both_medians():
    # Medians 3 and 0. Said: below, below, at, above, above; came: below, above, below, at, above. The
    # third and the fourth are at a median; of the others the first and the last are right.
    scores, returns = np.array([1.0, 2, 3, 4, 5]), np.array([-0.2, 0.1, -0.1, 0.0, 0.3])
    assert sessions.hit_rates(scores, returns, np.zeros(5)) == pytest.approx([2 / 3])


def test_hit_rates_do_not_ask_which_way_the_market_went():
    scores, returns = np.array([1.0, 2, 3, 4]), np.array([0.01, 0.02, 0.03, 0.04])
    both_days = np.concatenate([returns, returns - 0.1])
    rates = sessions.hit_rates(np.tile(scores, 2), both_days, np.repeat([0, 1], 4))
    assert rates.tolist() == [1, 1]


def test_hit_rates_are_nan_without_differences():
    rates = sessions.hit_rates(np.array([2.0, 2, 1]), np.array([0.1, 0.2, 0.1]), np.array([0, 0, 1]))
    assert np.isnan(rates).tolist() == [True, True]


@pytest.mark.parametrize(("n", "places"), [(10, 1), (19, 1), (20, 2), (39, 3)])
def test_a_leg_is_a_tenth_rounded_down_in_equal_parts(n, places):
    weights = sessions.decile_books(np.arange(n)[::-1].astype(float), np.zeros(n))
    assert weights.tolist() == [1 / places] * places + [0] * (n - 2 * places) + [-1 / places] * places


def test_fewer_than_ten_symbols_have_no_deciles():
    assert sessions.decile_books(np.arange(9.0), np.zeros(9)).tolist() == [0] * 9


def test_those_that_tie_share_the_places_left():
    # 20 symbols, two places a leg: one takes the first, three share the second.
    scores = np.array([99.0, 50, 50, 50, *range(16)])
    weights = sessions.decile_books(scores, np.zeros(20))
    assert weights[:4] == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert weights[4:].tolist() == [-1 / 2, -1 / 2, *[0] * 14]


def test_equal_scores_have_no_book():
    assert sessions.decile_books(np.ones(30), np.zeros(30)).tolist() == [0] * 30


def filled(scores: list[float]) -> dict[float, float]:
    """The weight of a symbol by its score in a long leg, filled group by group from the top."""
    left = places = len(scores) // 10
    weights = {}
    for score in sorted(set(scores), reverse=True):
        equal = scores.count(score)
        taken = min(left, equal)
        weights[score] = taken / equal / places if places else 0.0
        left -= taken
    return weights


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=45), min_size=1, max_size=3))
def test_books_are_filled_from_both_ends(days):
    scores = np.array([score for day in days for score in day], dtype=float)
    codes = np.repeat(np.arange(len(days)), [len(day) for day in days])
    shuffled = np.random.default_rng(0).permutation(len(scores))
    expected = []
    for day in days:
        long, short = filled(day), filled([-score for score in day])
        expected += [long[score] - short[-score] for score in day]
    weights = sessions.decile_books(scores[shuffled], codes[shuffled])
    np.testing.assert_allclose(weights, np.array(expected)[shuffled], atol=1e-12)


def test_what_is_traded_by_hand():
    # Symbols 0, 1, 2. Kept; turned round: 2 + 2; then short 2 in place of 0: 1 + 1.
    books = [[1, -1, 0], [1, -1, 0], [-1, 1, 0], [0, 1, -1]]
    weights = np.array(books, dtype=float).ravel()
    symbols, codes = np.tile([0, 1, 2], 4), np.repeat(np.arange(4), 3)
    one = sessions.traded(weights, symbols, codes, 1)
    assert one.tolist() == pytest.approx([math.nan, 0, 4, 2], nan_ok=True)
    # Against the book of two sessions before, half of the capital in each: 4 / 2, (1 + 2 + 1) / 2.
    two = sessions.traded(weights, symbols, codes, 2)
    assert two.tolist() == pytest.approx([math.nan, math.nan, 2, 2], nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_what_is_traded_is_the_change_of_the_books_held_together(seed, horizon):
    rng = np.random.default_rng(seed)
    books = rng.integers(-2, 3, (7, 4)).astype(float)
    there = rng.random(books.shape) < 0.8
    there[:, 0] = True
    books[~there] = 0
    codes, symbols = np.nonzero(there)
    found = sessions.traded(books[there], symbols, codes, horizon)
    for t in range(horizon, len(books)):
        held = sum(books[t - age] for age in range(horizon)) / horizon
        before = sum(books[t - 1 - age] for age in range(horizon)) / horizon
        assert found[t] == pytest.approx(np.abs(held - before).sum())
    assert np.isnan(found[:horizon]).all()


def ten_symbols(returns: list[tuple[float, float]]) -> pd.DataFrame:
    """Sessions of ten symbols, the largest score of which is S9's; simple returns of S0 and S9."""
    parts = []
    for day, (lowest, highest) in zip(DAYS, returns, strict=False):
        simple = np.array([lowest, *[0.0] * 8, highest])
        symbols = [f"S{i}" for i in range(10)]
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbols,
                    "event_timestamp": day,
                    "score": np.arange(10.0),
                    "label": np.log1p(simple),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_the_spread_is_of_simple_returns_of_one_session():
    table = ten_symbols([(-0.005, 0.01), (0.002, 0.007)])
    assert sessions.by_session(table, 1)["decile_spread"].tolist() == pytest.approx([0.015, 0.005])
    assert sessions.by_session(table, 5)["decile_spread"].tolist() == pytest.approx([0.003, 0.001])


def test_rows_without_score_or_label_take_no_part():
    table = ten_symbols([(-0.005, 0.01), (0.002, 0.007)])
    extra = table.iloc[[0, 1]].assign(symbol=["X", "Y"], score=[math.nan, 99], label=[9.0, math.nan])
    together = pd.concat([extra, table], ignore_index=True)
    pd.testing.assert_frame_equal(sessions.by_session(together, 1), sessions.by_session(table, 1))


def test_sessions_are_in_order_whatever_the_order_of_the_rows():
    table = ten_symbols([(-0.005, 0.01), (0.002, 0.007), (0.0, 0.03)])
    shuffled = table.sample(frac=1, random_state=1)
    found = sessions.by_session(shuffled, 1)
    assert found.index.tolist() == DAYS.tolist()
    pd.testing.assert_frame_equal(found, sessions.by_session(table, 1))


def test_a_table_without_labels_has_no_sessions():
    table = ten_symbols([(0.0, 0.0)]).assign(label=math.nan)
    assert len(sessions.by_session(table, 1)) == 0


def test_a_score_that_ranks_nothing_has_no_figures():
    table = ten_symbols([(-0.005, 0.01), (0.002, 0.007)]).assign(score=0.0)
    assert sessions.by_session(table, 1).isna().all(axis=None)


def test_seeds_that_were_not_averaged_are_refused():
    table = ten_symbols([(-0.005, 0.01), (0.002, 0.007)])
    with pytest.raises(DataError, match="several forecasts of one symbol and session"):
        sessions.by_session(pd.concat([table, table]), 1)


def test_price_errors_by_hand():
    # A price that rises by a quarter, where no move is forecast, is missed by 1 - 1 / 1.25 = 20% of the
    # actual one, one that falls by half by 100%; one that rises by a tenth as forecast by nothing.
    table = pd.DataFrame(
        {
            "event_timestamp": [DAYS[0], DAYS[0], DAYS[1], DAYS[1], DAYS[2]],
            "log_return": [0, 0, math.log(1.1), math.nan, 0],
            "label": [math.log(1.25), math.log(0.5), math.log(1.1), 0.3, math.nan],
        }
    )
    found = sessions.price_errors(table)
    assert found.index.tolist() == [DAYS[0], DAYS[1]]
    assert found.tolist() == pytest.approx([60, 0])
