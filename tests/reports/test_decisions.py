"""What an evening's page says of what to do, by hand."""

import numpy as np
import pandas as pd
import pytest
from support.report_pages import EVIL, Reader

from pitwise.reports import decisions
from pitwise.reports.page import template

pytestmark = pytest.mark.unit
PAST = {
    "count": 16222,
    "sessions": 435,
    "hit_rate": 0.54,
    "base_rate": 0.545,
    "net_bp": -0.1,
    "net_ci95": [-6.8, 7.4],
    "base_bp": 10.5,
}
NONE = dict.fromkeys(PAST) | {"count": 0, "sessions": 0}
REPORT = {
    "counts": {"BUY": 1, "SELL": 1, "HOLD": 1},
    "record": {"BUY": PAST, "SELL": NONE},
    "reliability": {"calibrated": [{"said": 0.542, "came": 0.528, "ci95": [0.506, 0.552]}]},
    "calibration": {
        "source": "walk-forward",
        "first_session": "2016-01-04",
        "last_session": "2017-12-28",
    },
    "reversals": [
        {
            "flag": flag,
            "direction": "up",
            "horizon": horizon,
            "count": 1234,
            "hit_rate": 0.5 + horizon / 100,
            "ci95": [0.5, 0.6] if flag != "rsi_divergence" else None,
            "base_rate": 0.52,
        }
        for horizon in (1, 5)
        for flag in ("rsi_divergence", "macd_cross", "average_cross")
    ],
}
SIGNALS = pd.DataFrame(
    {
        "symbol": [EVIL, "FALL", "WAIT"],
        "signal": ["BUY", "SELL", "HOLD"],
        "confidence": [0.5402, 0.5311, np.nan],
        "last_close": [1063.24, 41.12, 5.0],
        "target": [1063.46, 40.0, 5.0],
        "target_low": [1060.0, 38.0, np.nan],
        "target_high": [1066.0, 42.0, np.nan],
        "stop_loss": [1050.0, 43.0, np.nan],
        "take_profit": [1080.0, 37.0, np.nan],
        "expected_return": [0.00355, -0.00412, 0.0],
        "expected_cost": [0.00143, 0.00096, np.nan],
        "reversals": ["rsi_divergence_up,macd_cross_up", "", ""],
    }
)
MOOD = pd.Series([np.nan, 0.0, 100.0, 50.0])


def decided(**report) -> decisions.Decisions:
    return decisions.Decisions(SIGNALS, REPORT | report, MOOD, {})


def test_the_lead_counts_what_a_person_must_look_at_and_what_is_not_shown():
    said = decisions.lead(decided(), 1)
    assert said.startswith("1 to buy and 1 to sell of 3:")
    assert "That such signals earn their cost is not shown." in said
    assert said.endswith("3 to look at, 1 of them in doubt, 1 to leave.")
    earned = decided(record={"BUY": PAST | {"net_ci95": [0.1, 7.4]}})
    assert "not shown" not in decisions.lead(earned, 0)
    nothing = decided(counts={"BUY": 0, "SELL": 0, "HOLD": 3})
    assert decisions.lead(nothing, 0) == (
        "Nothing to buy or sell: no return expected of 3 symbols surely pays its cost. 0 to look at, "
        "3 to leave."
    )


def test_signals_as_text():
    rows = decisions.signal_rows(SIGNALS)
    assert [row.symbol for row in rows] == [EVIL, "FALL"]
    assert rows[0][1:] == (
        "BUY",
        "54.0",
        "1,063.24",
        "1,063.46",
        "1,060.00 to 1,066.00",
        "1,050.00",
        "1,080.00",
        "+35.5",
        "14.3",
        "rsi divergence up, macd cross up",
    )
    assert rows[1].expected == "\u221241.2"


def test_what_such_signals_came_to_has_its_interval_and_base():
    lines = decisions.record_lines(REPORT)
    assert lines == [
        "BUY before: 16,222 in 435 sessions, right in 54.0% (all symbols then: 54.5%); each earned "
        "\u22120.1 bp after its cost, \u22126.8 to +7.4 (all symbols, before costs: +10.5).",
        "Confidence before: of the rises called surest, at 54.2%, 52.8% came, 50.6 to 55.2.",
        "All measured on forecasts of the walk-forward, 2016-01-04 to 2017-12-28, each quarter's "
        "probability calibrated on those before.",
    ]
    none = {"record": None, "reliability": {"calibrated": []}, "calibration": None}
    assert decisions.record_lines(none) == []


def test_turns_have_what_came_of_them_before():
    # Of the three flags one is told, another is too but was never seen before, and one is not told.
    assert decisions.turn_lines(REPORT, SIGNALS) == [
        "Turns before, the next session: macd cross up right in 51.0% of 1,234 (50.0 to 60.0; all "
        "symbols 52.0%)."
    ]
    assert decisions.turn_lines(REPORT, SIGNALS.iloc[1:]) == []


def test_the_line_of_the_sentiment_has_0_at_the_bottom():
    assert decisions.sentiment_path(MOOD, 240, 48) == "0.0,48.0 120.0,0.0 240.0,24.0"
    assert decisions.sentiment_path(MOOD[:2], 240, 48) == ""


def test_risk_has_its_back_test_beside_it():
    row = {"method": "historical", "horizon": 1, "level": 0.95, "var": 0.0106}
    tested = {"exceptions": 3, "sessions": 254, "expected": 12.7}
    report = {
        "holdings": 489,
        "beta": 1.0,
        "drawdown": {"depth": -0.162},
        "var": [row | {"backtest": tested}, row | {"level": 0.99, "backtest": None}],
    }
    lines = decisions.risk_lines({"equal_weight": report, "holdings": None})
    assert lines == [
        "Equal weights, 489 holdings: value at risk of a session 1.06% at 95% (3 exceptions in 254 "
        "sessions before, 12.7 expected), 1.06% at 99% (untested); beta 1.00, deepest fall 16.2%."
    ]
    assert decisions.risk_lines({"equal_weight": {"why": "too short"}, "holdings": None}) == [
        "Equal weights: not told, too short"
    ]
    assert decisions.risk_lines({}) == []


def test_the_section_is_escaped_and_says_what_is_missing():
    mood = dict.fromkeys(("sentiment", "breadth", "momentum", "volatility", "highs_lows"), 66.0)
    rest = {"rules": {"interval": 0.8}}
    document = section(decided(sentiment=mood, **rest))
    page = Reader(document)
    assert "script" not in page.tags
    for words in ("1 to buy and 1 to sell of 3", "80% interval", "1,063.46", "Sentiment 66", EVIL):
        assert words in page.words
    assert "272 sessions" in section(decided(sentiment=dict.fromkeys(mood), **rest))
    empty = template("decisions.html").render(decisions=None, as_of="2017-12-29")
    assert "pitwise signals" in empty


def section(found: decisions.Decisions) -> str:
    return template("decisions.html").render(decisions=found, **decisions.shown(found, 0))
