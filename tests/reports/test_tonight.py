import pandas as pd
import pytest
from support.report_pages import EVIL, Reader

from pitwise.reports import tonight

DAY = pd.Timestamp("2017-12-28")
FORECASTS = pd.DataFrame(
    {
        "symbol": ["AAPL", EVIL, "MSFT"],
        "as_of": pd.Timestamp("2017-12-28T21:00Z"),
        "horizon": [1, 1, 1],
        "log_return": [0.001, -0.004, 0.002],
        "price": [100.0, 50.0, 80.0],
        "p_up": [0.51, 0.47, 0.525],
        "model_version": "7",
    }
)
ASIDE = pd.DataFrame(
    {"symbol": ["UA"], "date": [DAY], "close": [1441.0], "volume": [3.4e6], "reason": ["scale_error"]}
)
EVALUATION = {
    "lstm": {
        "direction_accuracy": 0.521,
        "direction_accuracy_ci95": [0.509, 0.533],
        "rank_ic_mean": -0.0126,
        "rank_ic_t": -1.2,
        "mape": 1.0802,
    },
    "always_up": {
        "direction_accuracy": 0.523,
        "direction_accuracy_ci95": [0.501, 0.546],
        "rank_ic_mean": None,
        "rank_ic_t": None,
        "mape": None,
    },
    "n_predictions": 92911,
    "n_symbols": 505,
    "n_sessions": 188,
    "first_session": "2017-04-03",
    "last_session": "2017-12-27",
}
WHOLE = {
    "now": pd.Timestamp("2017-12-28T22:31Z"),
    "as_of": DAY,
    "expected": DAY,
    "sealed": DAY,
    "symbols": 502,
    "symbols_before": 505,
    "forecasts": FORECASTS,
    "quarantine": ASIDE,
    "provisional": pd.DataFrame({"symbol": ["AAPL"], "date": [DAY]}).head(0),
    "evaluation": EVALUATION,
    "champion_kind": "lstm",
    "unusual": pd.DataFrame(
        {
            "symbol": ["AAPL"],
            "date": [DAY],
            "score": [0.7312],
            "log_return": [-6.21],
            "log_range": [5.5],
            "log_volume": [9.04],
        }
    ),
    "suspects": pd.DataFrame(
        {
            "symbol": ["MSFT", EVIL],
            "date": [DAY, pd.Timestamp("2017-12-27")],
            "kind": ["bad_print", "split"],
            "confidence": [float("nan"), 0.93],
            "first_known": pd.to_datetime(["2017-12-28T21:00Z", None], utc=True),
        }
    ),
    "withholds": False,
}


def evening(**changed) -> tonight.Evening:
    return tonight.Evening(**WHOLE | changed)


@pytest.mark.parametrize(
    ("changed", "state", "says"),
    [
        ({}, "done", "2017-12-28 is whole, and the forecasts for 2017-12-29 are made."),
        # 29 December, 2 and 3 January; the first is a holiday.
        ({"expected": pd.Timestamp("2018-01-03")}, "stale", "3 sessions are missing"),
        ({"expected": pd.Timestamp("2017-12-29"), "sealed": None}, "stale", "one session is missing"),
        ({"sealed": pd.Timestamp("2017-12-27")}, "incomplete", "502 of the 505 symbols"),
        ({"sealed": None}, "incomplete", "pitwise bars seal 2017-12-28"),
        ({"forecasts": FORECASTS.head(0)}, "incomplete", "There are no forecasts after 2017-12-28."),
        ({"forecasts": FORECASTS.assign(horizon=5)}, "done", "the forecasts for 2018-01-05 are made"),
        ({"expected": None}, "done", "Nothing to mend."),
        ({"expected": pd.Timestamp("2017-12-27")}, "done", "Nothing to mend."),
    ],
)
def test_the_verdict(changed, state, says):
    found = tonight.verdict(evening(**changed))
    assert found.state == state
    assert says in found.text


def test_the_ranking_is_by_expected_return_and_bars_are_shares_of_the_largest():
    rows = tonight.ranking(FORECASTS, {"MSFT"}, {"AAPL"}, {"MSFT": "bad_print"})
    assert [(row.rank, row.symbol) for row in rows] == [(1, "MSFT"), (2, "AAPL"), (3, EVIL)]
    assert [row.log_return for row in rows] == ["+0.20", "+0.10", "−0.40"]
    assert [row.share for row in rows] == pytest.approx([0.5, 0.25, 1.0])
    assert [row.rises for row in rows] == [True, True, False]
    assert rows[0].last_close == "79.84"  # 80 / exp(0.002)
    assert [row.provisional for row in rows] == [True, False, False]
    assert [row.unusual for row in rows] == [False, True, False]
    assert [row.suspect for row in rows] == ["bad print", "", ""]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0.00"), (-0.001, "0.00"), (-1.5, "−1.50"), (2.0, "+2.00"), (None, "–"), (float("nan"), "–")],
)
def test_numbers_carry_a_sign_unless_they_are_zero(number, text):
    assert tonight.signed(number, 2) == text


def test_the_champion_comes_first_and_its_interval_is_on_the_common_axis():
    rows = tonight.standings({"always_up": EVALUATION["always_up"]} | EVALUATION, "lstm")
    assert [row.name for row in rows] == ["LSTM", "always up"]
    assert rows[0].is_champion
    assert rows[1].is_baseline
    # From 0.501 to 0.546 over 0.045.
    assert rows[0].at == pytest.approx((0.008 / 0.045, 0.020 / 0.045, 0.032 / 0.045))
    assert (rows[0].rank_ic, rows[0].t) == ("−0.013", "−1.2")
    assert rows[1].rank_ic == "–"


def test_the_page_says_what_there_is_escaped_and_loads_nothing():
    document = tonight.tonight(evening(provisional=pd.DataFrame({"symbol": [EVIL], "date": [DAY]})))
    page = Reader(document)
    assert "script" not in page.tags
    assert page.loads == []
    for words in (
        "scale error",
        "1,441.00",
        "52.1%",
        "50.9 to 53.3; always up 52.3",
        EVIL,
        "provisional",
        "bad print?",
        "unusual",
    ):
        assert words in page.words
    assert "as known at 2017-12-28 22:31 UTC" in page.words


def test_verdicts_on_newest_bars_and_unusual_bars_have_their_figures():
    first, second = tonight.suspect_rows(WHOLE["suspects"])
    assert (first["symbol"], first["confidence"], first["first_known"]) == (EVIL, "93", "–")
    assert (second["kind"], second["confidence"]) == ("bad print", "–")
    assert second["first_known"] == "2017-12-28 21:00"
    (row,) = tonight.unusual_rows(WHOLE["unusual"])
    assert [*row.values()] == ["AAPL", "−6.2", "+5.5", "+9.0", "0.73"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "forecasts are marked, by predict.suspect"),
        ({"withholds": True}, "forecasts are withheld, by predict.suspect"),
        ({"suspects": WHOLE["suspects"].head(0)}, "No newest bar."),
        ({"unusual": WHOLE["unusual"].head(0)}, "No bar of 2017-12-28."),
        ({"unusual": None}, "Not known: no forest has been fitted."),
    ],
)
def test_the_page_tells_nothing_from_not_known(changed, says):
    document = tonight.tonight(evening(**changed))
    assert says in " ".join(Reader(document).words.split())


def test_an_empty_page_says_what_to_run():
    document = tonight.tonight(
        evening(forecasts=FORECASTS.head(0), quarantine=ASIDE.head(0), evaluation={}, champion_kind=None)
    )
    assert document.count("pitwise run") >= 3


def test_an_unproven_champion_is_marked_so():
    assert "champion, unproven" in tonight.tonight(evening(unproven=True))
    assert "unproven" not in tonight.tonight(evening())
