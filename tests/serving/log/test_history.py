"""Forecasts as they were served, what came of them, and features as they were known."""

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.calendar import session_close, session_days, session_number
from pitwise.errors import StoreError
from pitwise.evaluation.labels import labels
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.registry.prediction_log import append, open_log, session_after
from pitwise.workspace import Workspace, write_parquet
from serving.log.history import LoggedHistory

ROOT = Path(__file__).resolve().parents[3]
DAYS = ["2024-05-28", "2024-05-29", "2024-05-30", "2024-05-31", "2024-06-03", "2024-06-04"]


def clean_bars() -> pd.DataFrame:
    """A: a split of 2 for 1 on Friday; B: a spin-off on Friday; C: no bar on Friday."""
    closes = {
        "A": [100.0, 102.0, 101.0, 51.0, 52.0, 51.5],
        "B": [50.0, 50.5, 49.0, 41.0, 41.5, 42.0],
        "C": [10.0, 10.1, 10.2, 10.2, 10.4, 10.3],
    }
    rows = [
        {
            "symbol": symbol,
            "date": pd.Timestamp(day),
            "close": close,
            "price_factor": 2.0 if symbol == "A" and day >= "2024-05-31" else 1.0,
            "segment": int(symbol == "B" and day >= "2024-05-31"),
        }
        for symbol, prices in closes.items()
        for day, close in zip(DAYS, prices, strict=True)
        if (symbol, day) != ("C", "2024-05-31")
    ]
    return pd.DataFrame(rows).astype({"symbol": "string", "date": "datetime64[us]"})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    write_parquet(clean_bars(), workspace.clean_bars)
    return workspace


@pytest.fixture
def history(workspace, url):
    history = LoggedHistory(workspace, url)
    yield history
    history.close()


def close_of(day: str) -> pd.Timestamp:
    return session_close(pd.Series([pd.Timestamp(day)]))[0]


def log(url: str, symbol: str, day: str, minutes: int = 30, **changed) -> None:
    """A forecast made at a session's close and served `minutes` later."""
    close = close_of(day)
    row = {
        "symbol": symbol,
        "as_of": close,
        "model_version": "1",
        "window_hash": "0f",
        "for_session": session_after(close),
        "log_return": 0.01,
        "price": 101.0,
        "p_up": 0.5,
        "served_at": close + timedelta(minutes=minutes),
        "role": "champion",
    }
    engine = open_log(url)
    append(engine, pd.DataFrame([row | changed]))
    engine.dispose()


def test_a_forecast_is_shown_as_it_was_served(history, url):
    log(url, "A", "2024-05-30", p_up=0.6, log_return=-0.1 / 3, score=7.0, scale=0.02, horizon=1)
    (past,) = history.of("A", None, None, 10)
    assert (past.horizon, past.score, past.scale) == (1, 7.0, 0.02)
    assert (past.symbol, past.as_of, past.for_session) == ("A", "2024-05-30T20:00:00Z", "2024-05-31")
    assert (past.model_version, past.window_hash) == ("1", "0f")
    assert (past.price, past.log_return, past.p_up) == (101.0, -0.1 / 3, 0.6)
    assert past.served_at == "2024-05-30T20:30:00Z"


def test_what_an_earlier_version_has_logged_is_of_one_session_and_ranks_by_the_log_return(history, url):
    log(url, "A", "2024-05-30")
    (past,) = history.of("A", None, None, 10)
    assert (past.horizon, past.score, past.scale) == (1, 0.01, None)


def test_an_outcome_some_sessions_ahead_wants_a_bar_in_each_of_them(history, url):
    for symbol in "ABC":
        for day in DAYS:
            log(url, symbol, day, horizon=3, for_session=session_after(close_of(day), 3))
    found = {
        (symbol, past.as_of[:10]): (past.for_session, past.realised)
        for symbol in "ABC"
        for past in history.of(symbol, None, None, 100)
        if past.matured
    }
    assert found == {
        ("A", "2024-05-28"): ("2024-05-31", pytest.approx(math.log(102.0 / 100.0))),  # over the split
        ("A", "2024-05-29"): ("2024-06-03", pytest.approx(math.log(104.0 / 102.0))),
        ("A", "2024-05-30"): ("2024-06-04", pytest.approx(math.log(103.0 / 101.0))),
    }  # B has its spin-off within, C lacks Friday


def test_outcomes_are_those_of_the_training_labels(history, url):
    for symbol in "ABC":
        for day in DAYS:
            log(url, symbol, day)
    bars = clean_bars()
    bars["event_timestamp"] = session_close(bars["date"])
    label = labels(bars.assign(open=bars["close"]), horizon=1)["label"]
    expected = {
        (row.symbol, f"{row.date:%Y-%m-%d}"): value
        for row, value in zip(bars.itertuples(), label, strict=True)
    }
    by_hand = expected["A", "2024-05-30"], expected["C", "2024-05-29"]
    assert by_hand == pytest.approx((math.log(51.0 * 2 / 101.0), math.log(10.2 / 10.1)))
    for symbol in "ABC":
        found = history.of(symbol, None, None, 100)
        assert len(found) == len(DAYS)
        for past in found:
            value = expected.get((symbol, past.as_of[:10]), math.nan)
            assert past.matured == math.isfinite(value)
            if past.matured:
                assert past.realised == pytest.approx(value, abs=1e-12)
            else:
                assert past.realised is None
    unmatured = [past.as_of[:10] for past in history.of("B", None, None, 100) if not past.matured]
    assert unmatured == ["2024-05-30", "2024-06-04"]  # across the spin-off; not over yet


def test_the_sessions_forecast_are_bounded_on_both_sides(history, url):
    for day in DAYS:
        log(url, "A", day)

    def sessions(first, last, most=10) -> list[str]:
        return [past.for_session for past in history.of("A", first, last, most)]

    every = [*DAYS[1:], "2024-06-05"]
    assert sessions(None, None) == every
    assert sessions(date(2024, 5, 31), None) == every[2:]
    assert sessions(None, date(2024, 5, 31)) == every[:3]
    assert sessions(date(2024, 5, 31), date(2024, 6, 3)) == ["2024-05-31", "2024-06-03"]
    assert sessions(date(2024, 6, 1), date(2024, 6, 2)) == []
    assert sessions(None, None, most=2) == every[:2]


def test_all_that_was_served_of_a_session_is_shown_in_order_and_no_shadow(history, url):
    log(url, "A", "2024-05-30", minutes=60, window_hash="1e")
    log(url, "A", "2024-05-30", minutes=30)
    log(url, "A", "2024-05-30", minutes=40, model_version="2", role="shadow")
    log(url, "A", "2024-05-29", minutes=90, role=None)  # as a version before roles has logged it
    assert [(past.for_session, past.window_hash) for past in history.of("A", None, None, 10)] == [
        ("2024-05-30", "0f"),
        ("2024-05-31", "0f"),
        ("2024-05-31", "1e"),
    ]


def test_nothing_is_known_of_an_unknown_symbol(history, url):
    log(url, "A", "2024-05-30")
    assert history.of("XYZ", None, None, 10) == []
    assert history.of("' OR 1=1 --", None, None, 10) == []


def test_the_market_is_that_of_the_newest_close_up_to_a_day(history, url):
    for symbol in "CAB":
        log(url, symbol, "2024-05-31")
    log(url, "A", "2024-05-30")
    log(url, "A", "2024-05-31", minutes=60, window_hash="1e")
    log(url, "B", "2024-05-31", minutes=90, model_version="2", role="shadow")

    def market(day: str, most: int = 10) -> list[tuple[str, str, str]]:
        found = history.market(date.fromisoformat(day), most)
        return [(past.symbol, past.as_of[:10], past.window_hash) for past in found]

    friday = [("A", "2024-05-31", "1e"), ("B", "2024-05-31", "0f"), ("C", "2024-05-31", "0f")]
    assert market("2024-05-31") == friday
    assert market("2024-06-02") == friday  # a Sunday
    assert market("2024-05-31", most=2) == friday[:2]
    assert market("2024-05-30") == [("A", "2024-05-30", "0f")]
    assert market("2024-05-29") == []
    outcomes = {past.symbol: past.realised for past in history.market(date(2024, 5, 31), 10)}
    assert outcomes == pytest.approx(
        {"A": math.log(52 / 51), "B": math.log(41.5 / 41), "C": None}, nan_ok=True
    )


def test_without_clean_bars_no_outcome_is_known(tmp_path, url):
    log(url, "A", "2024-05-30")
    history = LoggedHistory(Workspace(tmp_path / "empty"), url)
    assert [past.matured for past in history.of("A", None, None, 10)] == [False]
    history.close()


@pytest.fixture(scope="module")
def featured(tmp_path_factory) -> tuple[Workspace, pd.DataFrame]:
    """Features of two symbols, of which one bar was corrected a day later and one withdrawn."""
    from support import small_runs as small

    bars = small.market(2, 120, seed=3)
    daily = daily_features(bars)
    table = daily.copy()
    table.insert(2, CREATED, table["event_timestamp"])
    last = table[table["symbol"] == "S000"].iloc[-2:]
    corrected = last.iloc[[0]].assign(close=77.0)
    corrected[CREATED] = last.iloc[0]["event_timestamp"] + pd.Timedelta(hours=30)
    withdrawn = last.iloc[[1]].copy()
    withdrawn[NAMES] = np.nan
    withdrawn[CREATED] = last.iloc[1]["event_timestamp"] + pd.Timedelta(hours=40)
    table = pd.concat([table, corrected, withdrawn], ignore_index=True)
    table = table.sort_values(["symbol", "event_timestamp", CREATED], ignore_index=True)
    workspace = Workspace(tmp_path_factory.mktemp("features") / "workspace")
    write_parquet(table, workspace.daily_features)
    return workspace, daily


def test_features_are_those_known_at_an_instant(featured, tmp_path):
    workspace, daily = featured
    history = LoggedHistory(workspace, f"sqlite:///{tmp_path}/log.db")
    rows = daily[daily["symbol"] == "S000"].reset_index(drop=True)
    close = rows["event_timestamp"].iloc[-2].to_pydatetime()
    found = history.features("S000", close)
    expected = rows.iloc[-2]
    assert found.symbol == "S000"
    assert found.as_of == close.isoformat().replace("+00:00", "Z")
    assert found.session == session_number(session_days(rows["event_timestamp"].iloc[-2:-1]))[0]
    assert found.provisional is False
    assert list(found.values) == list(NAMES)
    assert found.values == {name: expected[name] for name in NAMES}

    newest = history.features("S000", close + timedelta(hours=29))  # the next bar has come
    assert newest.values["close"] == rows["close"].iloc[-1]
    later = history.features(
        "S000", close + timedelta(days=30)
    )  # withdrawn, and the one before corrected
    assert (later.as_of, later.values["close"]) == (found.as_of, 77.0)
    close_before = rows["event_timestamp"].iloc[-3]
    assert (
        history.features("S000", close - timedelta(minutes=1)).values["close"] == rows["close"].iloc[-3]
    )
    assert history.features("S000", close_before.tz_convert("America/New_York")).as_of.startswith(
        f"{close_before:%Y-%m-%d}"
    )


def test_a_value_that_is_not_known_is_none(featured, tmp_path):
    workspace, daily = featured
    history = LoggedHistory(workspace, f"sqlite:///{tmp_path}/log.db")
    first = daily["event_timestamp"].min().to_pydatetime()
    values = history.features("S001", first).values
    assert values["close"] == daily[daily["symbol"] == "S001"]["close"].iloc[0]
    assert values["sma_20"] is None


def test_nobody_knows_features_before_the_first_bar_or_of_no_symbol(featured, tmp_path):
    workspace, daily = featured
    history = LoggedHistory(workspace, f"sqlite:///{tmp_path}/log.db")
    first = daily["event_timestamp"].min().to_pydatetime()
    assert history.features("S000", first - timedelta(seconds=1)) is None
    assert history.features("XYZ", datetime.now(UTC)) is None


def test_files_that_are_not_there_are_one_message(history, tmp_path):
    with pytest.raises(StoreError, match=r"daily.parquet: cannot be read .*pitwise update"):
        history.features("A", datetime.now(UTC))


def test_a_log_that_is_away_is_one_message_and_is_found_again(workspace, server):
    url = server.new_database()
    log(url, "A", "2024-05-30")
    history = LoggedHistory(workspace, url)
    assert len(history.of("A", None, None, 10)) == 1
    server.stop()
    try:
        with pytest.raises(StoreError, match="prediction log does not answer") as caught:
            history.of("A", None, None, 10)
        assert "SELECT" not in str(caught.value)
    finally:
        server.start()
    assert len(history.of("A", None, None, 10)) == 1
    history.close()


def test_a_process_that_is_not_asked_loads_nothing_heavy(tmp_path):
    code = f"""
import sys
from pitwise.workspace import Workspace
from serving.log.history import LoggedHistory

LoggedHistory(Workspace({str(tmp_path)!r}), "sqlite:///x").close()
heavy = {{"pandas", "sqlalchemy", "numpy", "pyarrow", "mlflow", "feast"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
