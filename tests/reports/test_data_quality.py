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
    _, report, found, _ = quality_page(bars)
    assert report["rows_in"] == report["rows_clean"] == 3
    assert report["coverage"] == {
        "sessions_of_symbols": 4,
        "missing": 1,
        "share": 0.75,
        "symbols_with_missing": 1,
    }
    assert report["symbols_adjusted"] == 1
    assert report["flagged"] == len(found)


def test_the_flagged_bars_are_the_share_that_is_asked_for_the_highest_score_first():
    bars = markets.bars(5, 400, seed=5)
    bars["volume"] = 1e6 * np.exp(np.random.default_rng(5).normal(0, 0.3, len(bars)))
    bars.loc[777, ["high", "volume"]] = [bars.loc[777, "high"] * 1.2, 1e7]
    _, scored, found = data_quality.flagged_bars(bars, PARAMS)
    assert list(found) == ["symbol", "date", "score", "log_return", "log_range", "log_volume"]
    assert (found["symbol"][0], found["date"][0]) == tuple(bars.loc[777, ["symbol", "date"]])
    assert len(found) == 2  # 0.001 of 2,000 bars
    assert found["score"].is_monotonic_decreasing
    assert found["score"].min() > 0.5
    assert len(scored) == 2000


def test_evidence_is_in_columns_with_units_and_what_is_not_known_is_unknown():
    known = event(
        "A",
        "2017-08-01",
        "split",
        price_ratio=2,
        confirmed_at=pd.Timestamp("2017-08-02 20:00", tz="UTC"),
        confidence=0.97,
        told_by="adjusted_close",
        move=np.log(0.5),
        overnight=0.98,
        close_before=1200.5,
    )
    bare = event("B", "2017-08-01", "split", price_ratio=np.nan)
    shown = data_quality.event_table("Splits", pd.concat([known, bare], ignore_index=True))
    assert dict(zip(shown.columns, shown.rows[0], strict=True)) == {
        "symbol": "A",
        "date": "2017-08-01",
        "status": "confirmed",
        "confidence, %": "97",
        "told by": "adjusted close",
        "first known, UTC": "2017-08-01 20:00",
        "confirmed, UTC": "2017-08-02 20:00",
        "price ratio": "2.000",
        "sessions": "1",
        "move beyond the market, %": "-50.00",
        "overnight, % of the move": "98",
        "close before, $": "1,200.50",
    }
    assert dict(zip(shown.columns, shown.rows[1], strict=True)) == {
        "symbol": "B",
        "date": "2017-08-01",
        "status": "provisional",
        "confidence, %": "unknown",
        "told by": "prices",
        "first known, UTC": "2017-08-01 20:00",
        "confirmed, UTC": "–",
        "price ratio": "unknown",
        "sessions": "1",
        "move beyond the market, %": "unknown",
        "overnight, % of the move": "unknown",
        "close before, $": "unknown",
    }


def test_a_copy_names_the_session_that_it_copies():
    copy = event("A", "2017-08-01", "displaced", copy_of=pd.Timestamp("2017-08-02"), confidence=0.9)
    shown = data_quality.event_table("Displaced", copy)
    assert dict(zip(shown.columns, shown.rows[0], strict=True))["same prices as on"] == "2017-08-02"
    words = data_quality.in_short(next(copy.itertuples()))
    assert words == "provisional, first known 2017-08-01 20:00 UTC; confidence 90%; as on 2017-08-02"


def test_what_a_picture_says_is_the_verdict_and_the_move():
    seen = event("A", "2017-08-01", move=np.log(0.75), move_noise=-7.04)
    words = data_quality.in_short(next(seen.itertuples()))
    assert words == (
        "provisional, first known 2017-08-01 20:00 UTC; confidence unknown; move −25.0%, −7.0 usual days"
    )


def test_events_are_counted_by_kind_and_status():
    later = pd.Timestamp("2017-08-02 20:00", tz="UTC")
    events = pd.concat(
        [
            event("A", "2017-08-01", "bad_print", confidence=0.5),
            event("B", "2017-08-01", "bad_print", confirmed_at=later, confidence=0.9),
            event("C", "2017-08-01", "bad_print", withdrawn_at=later, confidence=0.8),
            event("A", "2017-08-03", "no_volume"),
        ],
        ignore_index=True,
    )
    found = data_quality.by_kind(events)
    assert found["kind"].tolist() == ["bad_print", "no_volume"]
    assert found[["events", "provisional", "confirmed", "withdrawn"]].to_numpy().tolist() == [
        [3, 1, 1, 1],
        [1, 1, 0, 0],
    ]
    assert found["confidence, %"][0] == pytest.approx(80)
    with pytest.raises(ValueError, match="nova"):
        data_quality.by_kind(event("A", "2017-08-01", "nova"))


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
