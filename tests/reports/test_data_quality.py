import numpy as np
import pandas as pd
import pytest
from support import markets
from support.report_pages import PARAMS, Reader, event, hand_made, quality_page

from pitwise.reports import data_quality


def test_coverage_counts_the_sessions_between_a_symbols_first_and_last_bar():
    # 2014-01-02 and 03 are a Thursday and a Friday, 06 to 08 the Monday to Wednesday after them.
    bars = hand_made(
        {
            "A": {"2014-01-02": 10, "2014-01-03": 10, "2014-01-07": 10, "2014-01-08": 10},
            "B": {"2014-01-03": 5, "2014-01-06": 5},
            "C": {"2014-01-02": 5, "2014-01-08": 5},
        }
    )
    found = data_quality.coverage_by_symbol(bars).set_index("symbol")
    assert list(found.index) == ["C", "A", "B"]
    assert found["sessions"].to_dict() == {"A": 5, "B": 2, "C": 5}
    assert found["missing"].to_dict() == {"A": 1, "B": 0, "C": 3}
    assert found["share"].to_dict() == {"A": 0.8, "B": 1.0, "C": 0.4}
    sessions = data_quality.coverage_by_session(bars)
    assert [f"{d:%d}" for d in sessions.index] == ["02", "03", "06", "07", "08"]
    assert sessions["listed"].tolist() == [2, 3, 3, 2, 2]
    assert sessions["there"].tolist() == [2, 2, 1, 1, 2]


def test_the_report_holds_the_cleaning_and_the_coverage():
    bars = hand_made({"A": {"2014-01-02": 10, "2014-01-06": 10}, "B": {"2014-01-02": 5}})
    bars.loc[bars["date"] == "2014-01-02", "price_factor"] = [0.5, 1.0]
    _, report, found = quality_page(bars)
    assert report["rows_in"] == report["rows_clean"] == 3
    assert report["coverage"] == {
        "sessions_of_symbols": 4,
        "missing": 1,
        "share": 0.75,
        "symbols_with_missing": 1,
    }
    assert report["symbols_adjusted"] == 1
    assert report["flagged"] == len(found)


def test_measures_are_in_the_symbols_own_robust_deviations():
    days = [f"2014-01-{d:02d}" for d in (2, 3, 6, 7, 8)]
    bars = hand_made({"A": dict.fromkeys(days, 10.0)})
    bars["volume"] = np.exp([1.0, 2.0, 3.0, 4.0, 9.0]) - 1
    found = data_quality.measures(bars)
    # Median 3; distances 2, 1, 0, 1, 6 with median 1.
    assert found["log_volume"].tolist() == pytest.approx([x / 1.4826 for x in (-2, -1, 0, 1, 6)])
    assert found["log_return"].tolist() == [0] * 5


def test_a_measure_takes_no_return_across_a_segment():
    bars = markets.bars(1, 200, seed=1)
    half = bars.index >= 100
    joined = bars.assign(close=bars["close"] * np.where(half, 10, 1))
    joined[["open", "high", "low"]] = joined[["open", "high", "low"]].mul(np.where(half, 10, 1), axis=0)
    assert data_quality.measures(joined)["log_return"].abs().iloc[100] > 20
    apart = joined.assign(segment=half.astype("int32"))
    assert data_quality.measures(apart)["log_return"].iloc[100] == 0


def test_a_planted_outlier_is_flagged_and_the_flags_repeat():
    bars = markets.bars(5, 400, seed=5)
    bars["volume"] = 1e6 * np.exp(np.random.default_rng(5).normal(0, 0.3, len(bars)))
    row = 777
    bars.loc[row, ["high", "volume"]] = [bars.loc[row, "high"] * 1.2, 1e7]
    first, again = (data_quality.flags(bars, data_quality.measures(bars), PARAMS) for _ in range(2))
    assert (first["symbol"][0], first["date"][0]) == tuple(bars.loc[row, ["symbol", "date"]])
    assert len(first) == 2  # 0.001 of 2,000 bars
    assert first["score"].between(0.5, 1, inclusive="right").all()
    pd.testing.assert_frame_equal(first, again)


def test_bars_that_are_all_alike_have_no_flags():
    days = [f"2014-01-{d:02d}" for d in (2, 3, 6, 7, 8)]
    bars = hand_made({"A": dict.fromkeys(days, 10.0)})
    assert data_quality.flags(bars, data_quality.measures(bars), PARAMS).empty


def test_pictures_are_shared_among_the_kinds_and_the_rest_is_counted():
    bars = markets.bars(1, 200, seed=2)
    days = bars["date"]
    ratios = {10: 1.1, 20: 3, 30: 0.2, 40: 1.5, 50: 2}
    jumps = [event("S000", days[i], price_ratio=ratio) for i, ratio in ratios.items()]
    halts = [event("S000", days[100 + i], "halt", 1.0, i) for i in range(1, 4)]
    events = pd.concat([*jumps, *halts], ignore_index=True)
    order = data_quality.ranked(events)
    assert order.loc[order["kind"] == "jump", "price_ratio"].tolist() == [0.2, 3, 2, 1.5, 1.1]
    assert order.loc[order["kind"] == "halt", "sessions"].tolist() == [3, 2, 1]
    document, *_ = quality_page(bars, events=events)
    pictured = [line for line in Reader(document).words.splitlines() if line.endswith(": close, US$")]
    wanted = [days[30], days[20], days[103], days[102]]
    assert pictured == [f"S000, {d:%Y-%m-%d}: close, US$" for d in wanted]
    assert "8 events" in document


@pytest.mark.component
def test_quarantine_shows_the_first_rows_of_a_reason_and_counts_the_rest(pages):
    assert "and 2 more in data/clean/quarantine.parquet" in pages["quality"]
