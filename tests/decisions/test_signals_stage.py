"""Signals of a small workspace: what is written, what confidence is of, and what signals came to."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pitwise.bars.calendar import session_close, session_date
from pitwise.decisions import risk_stage, signals_cli, signals_stage
from pitwise.decisions.holdings import Market
from pitwise.decisions.signals import Rules
from pitwise.decisions.signals_record import past_forecasts, record
from pitwise.errors import DataError
from pitwise.workspace import Workspace, read_json, read_parquet, write_json, write_parquet

pytestmark = pytest.mark.unit
PROJECT = Path(__file__).resolve().parents[2]
N = 320
DAYS = pd.Series(session_date(np.arange(11_600, 11_600 + N)))
CLOSES = session_close(DAYS)
SYMBOLS = ("A", "B", "C")
FORECASTS = {"A": (0.03, 0.6), "B": (-0.03, 0.3), "C": (0.0001, 0.51)}
"""Log return and probability of a rise: up, down, and not worth its cost."""
QUIET = {
    "price_factor": 1.0,
    "segment": 0,
    "macd": 0.0,
    "macd_signal": 0.0,
    "sma_5": 1.0,
    "sma_20": 1.0,
    "price_to_sma_20": 1.1,
    "bollinger_pct_b": 0.5,
    "rsi_14": 50.0,
    "atr_14": 1.0,
    "volatility_20": 1.0,
    "volume_sma_20": 1e7,
}


def daily() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    parts = []
    for symbol in SYMBOLS:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, N)))
        rows = {"symbol": symbol, "event_timestamp": CLOSES.array, "close": close}
        parts.append(pd.DataFrame(rows | QUIET))
    rows = pd.concat(parts, ignore_index=True)
    # B's MACD crosses its signal line in the newest session. A's newest row came in two versions.
    rows.loc[2 * N - 2, "macd"], rows.loc[2 * N - 1, "macd"] = 1.0, -1.0
    first = rows.iloc[[N - 1]].assign(atr_14=np.nan)
    return pd.concat([rows.iloc[: N - 1], first, rows.iloc[N - 1 :]], ignore_index=True)


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    newest = rows.groupby("symbol").tail(1).reset_index(drop=True)
    returns = np.array([FORECASTS[symbol][0] for symbol in newest["symbol"]])
    return pd.DataFrame(
        {
            "symbol": newest["symbol"],
            "as_of": newest["event_timestamp"],
            "for_session": DAYS.iloc[-1].date(),
            "horizon": 1,
            "score": returns,
            "log_return": returns,
            "price": newest["close"] * np.exp(returns),
            "p_up": [FORECASTS[symbol][1] for symbol in newest["symbol"]],
            "scale": np.nan,
            "model_version": "7",
            "unusual": pd.array([False, None, False], "boolean"),
            "suspect": pd.array([None] * 3, "string"),
        }
    )


def on_test_dates() -> pd.DataFrame:
    """Forecasts of the last 200 sessions: of those that said 0.6 sixty in a hundred rose, and so on."""
    said = np.tile([0.6, 0.4], 200)
    rose = np.where(said > 0.5, np.arange(400) % 10 < 6, np.arange(400) % 10 < 4)
    keys = {"symbol": ["A", "B"] * 200, "event_timestamp": CLOSES.iloc[-200:].repeat(2).array}
    label = np.where(rose, 0.01, -0.01)
    return pd.DataFrame(keys | {"lstm_log_return": 0.001, "lstm_p_up": said, "label": label})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("signals"))
    shutil.copy(PROJECT / "params.yaml", workspace.root)
    rows = daily()
    write_parquet(rows, workspace.daily_features)
    write_parquet(latest(rows), workspace.latest_predictions)
    write_parquet(on_test_dates(), workspace.test_predictions)
    write_json({"champion_kind": "lstm"}, workspace.registration_report)
    write_json({"horizon": 1}, workspace.dataset_report)
    signals_stage.main(workspace)
    return workspace


def test_a_row_a_forecast_and_what_to_do_first(made):
    table = read_parquet(made.root / signals_stage.SIGNALS.path)
    assert table[["symbol", "signal", "reason"]].to_numpy().tolist() == [
        ["A", "BUY", ""],
        ["B", "SELL", ""],
        ["C", "HOLD", "expected return does not pay its cost"],
    ]
    assert table["reversals"].tolist() == ["", "macd_cross_down", ""]
    a = table.iloc[0]
    # The later version of A's row has a range: two of them are 2 dollars.
    assert a["stop_loss"] == pytest.approx(a["last_close"] * np.exp(-2 / a["last_close"]), rel=1e-6)
    assert table["stop_loss"].isna().tolist() == [False, False, True]
    assert table["model_version"].tolist() == ["7"] * 3


def test_the_report_says_what_the_confidence_is_of(made):
    report = read_json(made.root / signals_stage.REPORT.path)
    assert report["counts"] == {"BUY": 1, "SELL": 1, "HOLD": 1}
    assert report["as_of"] == f"{DAYS.iloc[-1]:%Y-%m-%d}"
    found = report["calibration"]
    assert (found["source"], found["forecasts"], found["sessions"]) == ("test dates", 400, 200)
    # What was said came true: nothing is changed.
    assert (found["intercept"], found["slope"]) == (
        pytest.approx(0, abs=1e-3),
        pytest.approx(1, abs=1e-3),
    )
    assert report["record"] is None  # there are no returns from open to open
    assert report["sentiment"]["date"] == report["as_of"]
    assert 0 <= report["sentiment"]["sentiment"] <= 100
    assert len(report["reversals"]) == 24
    assert [row["said"] < 0.5 for row in report["reliability"]["stated"]] == [True, False]
    assert len(read_parquet(made.root / signals_stage.SENTIMENT.path)) == N


def test_a_row_of_another_session_tells_no_range(made):
    rows = signals_stage.read_rows(made)
    newest = rows.groupby("symbol").tail(1).assign(reversals="")
    rules = Rules(**read_json(made.root / signals_stage.REPORT.path)["rules"])
    later = latest(rows).assign(as_of=CLOSES.iloc[-1] + pd.Timedelta(days=1))
    table = signals_stage.signals(later, newest, rules)
    assert set(table["reason"]) == {"range, volatility or volume is not known"}
    assert table["reversals"].tolist() == [""] * 3


def walked(seed: int, p_up: float) -> pd.DataFrame:
    table = on_test_dates().rename(columns={"lstm_log_return": "log_return"}).drop(columns="lstm_p_up")
    return table.assign(kind="lstm", fold=0, seed=seed, score=0.0, p_up=p_up, label_open=0.01)


def test_a_walk_forward_of_the_kind_and_horizon_comes_first(made, tmp_path):
    workspace = Workspace(tmp_path)
    write_parquet(pd.concat([walked(8, 0.7), walked(7, 0.55)]), workspace.walk_forward_forecasts)
    write_json({"horizon": 1}, workspace.walk_forward_report)
    said, source = past_forecasts(workspace, "lstm", 1)
    assert (source, len(said), said["p_up"].unique().tolist()) == (
        "walk-forward",
        400,
        [0.55],
    )  # one fit
    shutil.copytree(made.root / "data/evaluation", tmp_path / "data/evaluation", dirs_exist_ok=True)
    write_json({"horizon": 1}, workspace.dataset_report)
    write_json({"horizon": 5}, workspace.walk_forward_report)
    assert past_forecasts(workspace, "lstm", 1)[1] == "test dates"
    for kind, horizon in (("lstm", 20), ("ann", 1), (None, 1)):
        said, source = past_forecasts(workspace, kind, horizon)
        assert source is None
        assert said.empty
        nothing = signals_stage.calibrate(said, source, said, horizon, None)
        assert nothing["calibration"] is None


def test_what_signals_came_to_by_hand():
    keys = {"symbol": ["A", "B"] * 2, "event_timestamp": CLOSES.iloc[[0, 0, 1, 1]].array}
    past = pd.DataFrame(
        keys
        | {
            "log_return": [0.02, 0.0001] * 2,  # A is bought, B does not pay its cost
            "p_up": [0.6, 0.6] * 2,
            "scale": 0.02,
            "intercept": 0.0,
            "slope": 1.0,
            "label": [0.01, -0.01, -0.01, -0.02],
            "label_open": [0.03, -0.01, -0.02, 0.01],
        }
    )
    features = pd.DataFrame(
        keys | {"close": 100.0, "atr_14": 2.0, "volatility_20": 1.0, "volume_sma_20": 1e7}
    )
    rules = Rules(1, 0.8, 2, 3, 1e6, commission_bp=0.5, half_spread_bp=2.0, impact=0.0, borrow_bp=0.0)
    found = record(past, features, rules, 200, 7)
    buy = found["BUY"]
    assert (buy["count"], buy["sessions"], buy["hit_rate"]) == (2, 2, 0.5)
    assert buy["base_rate"] == (1 / 2 + 0 / 2) / 2
    opened = 1e4 * np.expm1([0.03, -0.01, -0.02, 0.01])
    assert buy["net_bp"] == pytest.approx((opened[0] + opened[2]) / 2 - 5)
    assert buy["base_bp"] == pytest.approx(opened.mean())
    low, high = buy["net_ci95"]
    assert low <= buy["net_bp"] <= high
    assert found["SELL"] == {
        "count": 0,
        "sessions": 0,
        **dict.fromkeys(("hit_rate", "base_rate", "net_bp", "base_bp", "ci95", "net_ci95")),
    }


def test_the_command_shows_and_makes_anew_what_is_older_than_the_forecasts(made, monkeypatch):
    monkeypatch.chdir(made.root)
    runner, path = CliRunner(), made.root / signals_stage.SIGNALS.path
    before = path.stat().st_mtime_ns
    shown = runner.invoke(signals_cli.app, ["C", "A", "--json"])
    document = json.loads(shown.stdout)
    assert [row["symbol"] for row in document["signals"]] == ["C", "A"]
    assert document["signals"][0]["stop_loss"] is None
    assert path.stat().st_mtime_ns == before
    os.utime(made.latest_predictions)
    shown = runner.invoke(signals_cli.app, ["--top", "1"])
    assert "1 BUY, 1 SELL, 1 HOLD" in shown.stdout
    assert "All measured on forecasts of the test dates" in shown.stdout
    assert path.stat().st_mtime_ns > before
    refused = runner.invoke(signals_cli.app, ["A", "NONE"])
    assert isinstance(refused.exception, DataError)
    assert "no forecast of NONE" in str(refused.exception)


def test_equal_weights_are_of_what_trades_and_has_the_history(monkeypatch):
    asked = {}

    def report(returns, weights, window):
        asked.update(weights=weights.to_dict(), window=window)
        rows = [{"symbol": str(i)} for i in range(30)]
        return {"correlation": {"mean": 0.5, "matrix": [[1.0]]}, "contributions": rows}

    monkeypatch.setattr(risk_stage, "risk_report", report)
    returns = pd.DataFrame(0.01, index=DAYS, columns=["OLD", "ALSO", "YOUNG", "GONE"])
    returns.iloc[:100, 2] = np.nan
    returns.iloc[-10:, 3] = np.nan
    found = risk_stage.equal_weight(Market(returns, pd.Series(dtype=float)), 500)
    assert asked == {"weights": {"OLD": 0.5, "ALSO": 0.5}, "window": 500}
    assert found["left_out"] == 1
    assert found["correlation"] == {"mean": 0.5}
    assert len(found["contributions"]) == 20


def test_a_young_market_has_no_risk_yet():
    returns = pd.DataFrame(0.01, index=DAYS[:100], columns=["A", "B"])
    found = risk_stage.equal_weight(Market(returns, pd.Series(dtype=float)), 500)
    assert "has 100 sessions of history" in found["why"]


def test_what_cannot_be_held_is_said(tmp_path):
    returns = pd.DataFrame(0.01, index=DAYS, columns=["A"])
    path = tmp_path / "held.csv"
    path.write_text("symbol,shares\nNONE,3\n")
    found = risk_stage.holdings(Market(returns, pd.Series({"A": 10.0})), path, 250)
    assert "'NONE' not among the 1 symbols" in found["why"]
