import json
from datetime import date

import numpy as np
import pandas as pd
import pytest

from monitoring.matured import accuracy, coverage, gauges, logged, matured
from pitwise.bars.calendar import session_close
from pitwise.registry.prediction_log import append, open_log
from serving.http import metrics

DAYS = pd.to_datetime(["2024-06-03", "2024-06-04", "2024-06-05", "2024-06-06"]).astype("datetime64[us]")
CLOSES = pd.DatetimeIndex(session_close(DAYS.to_series()))
PRICES = {"A": [100.0, 102.0, 101.0, 103.0], "B": [50.0, 49.0, 49.5, 51.0]}


def bars(**changes: list) -> pd.DataFrame:
    """Four sessions of two symbols; a price of None: no such bar."""
    rows = [
        {"symbol": symbol, "date": day, "open": close, "close": close, "price_factor": 1.0, "segment": 0}
        for symbol, closes in (PRICES | changes).items()
        for day, close in zip(DAYS, closes, strict=True)
        if close is not None
    ]
    return pd.DataFrame(rows)


def forecasts(horizon: int = 1, **parts: float) -> pd.DataFrame:
    """Of both symbols at each close but the last ones, that their sessions have no name here."""
    made = len(DAYS) - horizon
    rows = pd.DataFrame(
        [
            {"symbol": symbol, "event_timestamp": CLOSES[at], "for_session": DAYS[at + horizon]}
            for symbol in PRICES
            for at in range(made)
        ]
    )
    said = {"score": 0.0, "log_return": 0.0, "p_up": 0.5, "scale": np.nan} | parts
    return rows.assign(model_version="1", role="champion", horizon=horizon, **said)


def outcomes(table: pd.DataFrame) -> dict:
    return {
        (row.symbol, f"{row.for_session:%d}"): (row.outcome, round(row.label, 12))
        for row in table.itertuples()
    }


def test_an_outcome_is_the_log_return_to_the_session_that_was_forecast():
    found = outcomes(matured(forecasts(), bars(), CLOSES[-1]))
    assert found["A", "04"] == ("matured", round(np.log(102 / 100), 12))
    assert found["B", "06"] == ("matured", round(np.log(51 / 49.5), 12))
    over_two = outcomes(matured(forecasts(2), bars(), CLOSES[-1]))
    assert over_two["A", "05"] == ("matured", round(np.log(101 / 100), 12))


def test_nothing_counts_before_its_outcome_exists():
    second = pd.Timedelta(seconds=1)
    before, then = (
        outcomes(matured(forecasts(), bars(), CLOSES[2] - at)) for at in (second, 0 * second)
    )
    assert before["A", "05"][0] == "open"
    assert np.isnan(before["A", "05"][1])
    assert before["A", "04"][0] == then["A", "05"][0] == "matured"
    assert then["A", "06"][0] == "open"


def test_late_withdrawn_and_corrected_outcomes_count_once():
    late = bars()[lambda t: t["date"] < DAYS[-1]]
    assert outcomes(matured(forecasts(), late, CLOSES[-1]))["A", "06"][0] == "due"
    gone = outcomes(matured(forecasts(), bars(A=[100.0, 102.0, None, 103.0]), CLOSES[-1]))
    assert gone["A", "05"][0] == gone["A", "06"][0] == "none"
    corrected = matured(forecasts(), bars(A=[100.0, 102.0, 204.0, 103.0]), CLOSES[-1])
    assert len(corrected) == len(forecasts())
    assert outcomes(corrected)["A", "05"] == ("matured", round(np.log(2), 12))


def test_of_forecasts_of_corrected_windows_the_first_is_taken(tmp_path):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    row = {"symbol": "A", "as_of": CLOSES[0], "model_version": "1", "price": 1.0, "p_up": 0.5}
    row |= {"for_session": DAYS[1].date(), "role": None}
    append(
        log,
        pd.DataFrame(
            [
                row
                | {"window_hash": "a", "log_return": 0.2, "served_at": CLOSES[0] + pd.Timedelta("2h")},
                row
                | {"window_hash": "b", "log_return": 0.1, "served_at": CLOSES[0] + pd.Timedelta("1h")},
            ]
        ),
    )
    found = logged(log, date(2024, 6, 3), date(2024, 6, 5)).to_dict("records")
    log.dispose()
    assert [(one["log_return"], one["score"], one["role"], one["horizon"]) for one in found] == [
        (0.1, 0.1, "champion", 1)
    ]


def test_coverage_is_of_the_central_interval_of_the_stated_distribution():
    # 80% of a logistic distribution lie within ln 9 = 2.197 scales of its location.
    rows = pd.DataFrame({"label": [2.19, -2.19, 2.21, 0.0], "log_return": 0.0, "scale": 1.0})
    assert coverage(rows) == 0.75
    assert coverage(rows.assign(scale=np.nan)) is None


def test_the_service_tells_what_the_evening_found(tmp_path):
    said = forecasts(p_up=0.9)
    said["score"] = said["log_return"] = np.where(said["symbol"] == "A", 1.0, 0.0)
    table = matured(said, bars(), CLOSES[-1])
    found = gauges(table, sessions=2, samples=100, seed=1)
    assert found is not None
    # Of the last two: A fell and B rose, both rose and B by more.
    assert (found["sessions"], found["rank_ic"]) == (2, -1.0)
    assert found["direction_accuracy"] == 0.75
    assert found["matured_at"] == "2024-06-06T20:00:00+00:00"
    path = tmp_path / "accuracy.json"
    assert list(metrics._of_accuracy(path)) == []
    path.write_text(json.dumps(found))
    samples = {s.name: s.value for metric in metrics._of_accuracy(path) for s in metric.samples}
    assert samples["pitwise_rank_ic"] == -1.0
    assert samples["pitwise_accuracy_age_seconds"] > 0


def test_accuracy_says_what_it_does_not_know():
    found = accuracy(matured(forecasts(), bars(), CLOSES[1]), 1, samples=100, seed=1)
    assert found["n_sessions"] == 1
    assert found["rank_ic_mean"] is None
    assert found["rank_ic_ci95"] is None
    assert found["share_up"] == pytest.approx(0.5)
