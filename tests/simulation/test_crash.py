"""The market that crashes, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.calendar import is_session
from pitwise.bars.schema import COLUMNS
from pitwise.cleaning.row_checks import reasons
from pitwise.simulation.crash import MOVES, crash_market, crash_sessions

SESSIONS = 240


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return crash_market(80, SESSIONS, seed=4)


@pytest.fixture(scope="module")
def log_returns(bars) -> pd.DataFrame:
    return np.log(bars.pivot(index="date", columns="symbol", values="close")).diff()


def test_the_bars_are_raw_bars_of_consecutive_sessions_without_a_fault(bars):
    assert list(bars.columns) == COLUMNS
    assert len(bars) == 80 * SESSIONS
    assert is_session(bars["date"]).all()
    assert (reasons(bars) == "").all()
    assert (bars["close"] > 0.5).all(), "no stock falls to where a cent is a move"


def test_twelve_sessions_move_the_median_stock_by_5_to_12_percent_both_ways(log_returns):
    moves = np.expm1(log_returns.median(axis=1).iloc[crash_sessions(SESSIONS, 4)]).abs()
    assert len(moves) == 12
    assert moves.between(MOVES[0] - 0.02, MOVES[1] + 0.02).all()
    assert (log_returns.median(axis=1).abs() > 0.035).sum() <= 14


def test_stocks_spread_and_trade_more_in_the_crash(bars, log_returns):
    at = crash_sessions(SESSIONS, 4)
    spread = log_returns.std(axis=1).to_numpy()
    volume = bars.groupby("date")["volume"].median().to_numpy()
    before = slice(1, at[0])
    assert np.median(spread[at]) > 2 * np.median(spread[before])
    assert np.median(volume[at]) > 1.8 * np.median(volume[before])


def test_the_seed_says_it_all():
    pd.testing.assert_frame_equal(crash_market(5, 100, seed=1), crash_market(5, 100, seed=1))
    assert not crash_market(5, 100, seed=1).equals(crash_market(5, 100, seed=2))
