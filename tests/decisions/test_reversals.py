"""Each flag on a few sessions by hand, and what came after flags."""

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions import reversals

pytestmark = pytest.mark.unit
QUIET = {
    "macd": 0.0,
    "macd_signal": 0.0,
    "sma_5": 1.0,
    "sma_20": 1.0,
    "bollinger_pct_b": 0.5,
    "rsi_14": 50.0,
    "adjusted": 1.0,
    "run": 1,
}


def flagged(flag: str, **columns) -> list[int]:
    """One flag of sessions in which all but these columns stand still."""
    rows = pd.DataFrame(QUIET | {name: np.asarray(values) for name, values in columns.items()})
    told = reversals.flags(rows)
    assert not told.drop(columns=flag).to_numpy().any()
    return told[flag].tolist()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([-1, 2, 3, -1, -2], [0, 1, 0, -1, 0]),
        ([-1, 0, 2, 0, -1], [0, 0, 1, 0, -1]),
        ([np.nan, 1, np.nan, -1, 1], [0, 0, 0, 0, 1]),
    ],
)
def test_a_cross_is_told_once_and_not_out_of_nothing(values, told):
    assert flagged("macd_cross", macd=values) == told
    assert flagged("average_cross", sma_5=np.array(values) + 1) == told


def test_a_cross_does_not_reach_over_the_end_of_a_run():
    assert flagged("macd_cross", macd=[-1, 2, -3], run=[1, 2, 3]) == [0, 0, 0]


def test_the_close_comes_back_into_the_bands():
    pct_b = [0.5, -0.1, -0.2, 0.0, 0.9, 1.1, 1.0, 1.2, -0.1]
    assert flagged("bollinger_reentry", bollinger_pct_b=pct_b) == [0, 0, 0, 1, 0, 0, -1, 0, 0]


def lows(last: float, rsi: float, gap: int = 6) -> dict:
    """20 closes of which the lowest before the last is `gap` sessions back, at 90 with an RSI of 30."""
    close, index = np.full(20, 100.0), np.full(20, 50.0)
    close[19 - gap], index[19 - gap] = 90.0, 30.0
    close[19], index[19] = last, rsi
    return {"adjusted": close, "rsi_14": index}


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (lows(89.0, 31.0), 1),
        (lows(89.0, 29.0), 0),  # RSI fell with the close
        (lows(91.0, 31.0), 0),  # no new low
        (lows(89.0, 31.0, gap=4), 0),  # the low before is too near: at 5 back, the close was 100, RSI 50
    ],
)
def test_a_divergence_needs_a_new_low_with_a_higher_rsi(case, told):
    assert flagged("rsi_divergence", **case) == [0] * 19 + [told]
    highs = {"adjusted": 200 - case["adjusted"], "rsi_14": 100 - case["rsi_14"]}
    assert flagged("rsi_divergence", **highs) == [0] * 19 + [-told]


def test_a_divergence_is_told_in_its_first_session_and_within_one_run():
    case = lows(89.0, 31.0)
    again = {
        name: np.append(values, {"adjusted": 88.0, "rsi_14": 32.0}[name])
        for name, values in case.items()
    }
    assert flagged("rsi_divergence", **again) == [0] * 19 + [1, 0]
    assert flagged("rsi_divergence", **case, run=[1] + [2] * 19) == [0] * 20


def test_rows_too_few_for_a_window_have_no_divergence():
    assert flagged("rsi_divergence", adjusted=[3.0, 2.0, 1.0]) == [0, 0, 0]


def test_hit_rates_by_hand():
    # Two symbols, three sessions: A rises and then falls, B rises twice.
    rows = pd.DataFrame(
        {
            "run": [1, 1, 1, 2, 2, 2],
            "date": list(pd.date_range("2016-01-04", periods=3)) * 2,
            "adjusted": [10.0, 11.0, 10.0, 10.0, 11.0, 12.0],
        }
    )
    told = pd.DataFrame(0, index=rows.index, columns=list(reversals.FLAGS))
    told["macd_cross"] = [1, 1, 1, 0, 1, 0]  # the third has no session after it
    found = {
        (r["flag"], r["direction"], r["horizon"]): r for r in reversals.hit_rates(told, rows, 200, 7)
    }
    assert len(found) == 4 * 2 * 3
    up = found["macd_cross", "up", 1]
    # A's first rose, as both did; of the two of the second session one rose, as half did.
    assert (up["count"], up["sessions"]) == (3, 2)
    assert up["hit_rate"] == pytest.approx(2 / 3)
    assert up["base_rate"] == pytest.approx((1 * 1 + 2 * 0.5) / 3)
    assert up["difference"] == pytest.approx(0.0)
    assert up["difference_ci95"] == pytest.approx([0.0, 0.0])
    down = found["macd_cross", "down", 1]
    assert (down["count"], down["hit_rate"], down["ci95"]) == (0, None, None)
    assert found["macd_cross", "up", 5]["count"] == 0


def test_flags_in_words():
    told = pd.DataFrame([[1, 0, -1, 0], [0, 0, 0, 0]], columns=list(reversals.FLAGS))
    assert reversals.named(told) == ["macd_cross_up,bollinger_reentry_down", ""]
