"""What the logged forecasts would have had one do, against arithmetic by hand."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from monitoring.signals import REPORT, calibrated_before, decided, signal_figures
from pitwise.bars.calendar import session_close
from pitwise.decisions.signals import Rules
from pitwise.errors import DataError
from pitwise.workspace import Workspace, write_json, write_parquet

pytestmark = pytest.mark.unit

DAYS = pd.DatetimeIndex(["2024-06-03", "2024-06-04", "2024-06-05", "2024-06-06", "2024-06-07"])
CLOSES = pd.DatetimeIndex(session_close(DAYS.to_series()))
RULES = Rules(
    horizon=1,
    interval=0.8,
    stop_atr=2.0,
    take_profit_atr=3.0,
    dollars=1.0,
    commission_bp=1.0,
    half_spread_bp=4.0,
    impact=0.0,
    borrow_bp=0.0,
)
SYMBOLS = ["A", "B", "C", "D"]


def forecasts(says: list[list[float]]) -> pd.DataFrame:
    """Of each session, log returns of the four symbols; each outcome is 1% up."""
    n = len(says) * 4
    said = np.array(says).ravel()
    return pd.DataFrame(
        {
            "symbol": SYMBOLS * len(says),
            "event_timestamp": CLOSES[: len(says)].repeat(4),
            "for_session": np.repeat(DAYS[1 : len(says) + 1], 4),
            "log_return": said,
            "p_up": 0.5 + 10 * said,
            "scale": 0.01,
            "label": np.log(1.01),
            "label_open": np.log(1.01),
        },
        index=range(n),
    )


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path)
    rows = pd.DataFrame({"symbol": SYMBOLS * 5, "event_timestamp": CLOSES.repeat(4), "close": 100.0})
    rows = rows.assign(atr_14=1.0, volatility_20=1.0, volume_sma_20=1e6)
    write_parquet(rows, workspace.daily_features)
    write_json({"horizon": 1}, workspace.dataset_report)
    names = ("log_return", "p_up", "scale")
    past = pd.DataFrame({"symbol": "A", "event_timestamp": CLOSES - pd.Timedelta(days=100)})
    past = past.assign(
        label=[0.1, 0.1, -0.1, -0.1, 0.1], **dict.fromkeys(map("tree_{}".format, names), 0.5)
    )
    past["tree_p_up"] = [0.55, 0.55, 0.45, 0.45, 0.45]
    write_parquet(past, workspace.test_predictions)
    write_json({"kind": "tree", "rules": asdict(RULES)}, tmp_path / REPORT)
    return workspace


def test_a_position_earns_what_the_market_gave_less_the_round_trip(workspace):
    table = forecasts([[0.01, -0.01, 0.0001, 0.01]] * 2)
    found = decided(workspace, table, CLOSES[0]).iloc[:4]
    assert found["side"].tolist() == [1, -1, 0, 1]
    # 2 * (1 + 4) basis points a round trip; a forecast of one basis point does not pay it.
    assert found["net_bp"].tolist() == pytest.approx([90, -110, np.nan, 90], nan_ok=True)
    # Bought at Tuesday's open, sold at Wednesday's.
    assert (found["until"] == DAYS[2]).all()


def test_turnover_is_the_share_of_equal_weights_that_changes_hands(workspace):
    table = forecasts([[0.01, 0.01, 0, 0], [0.01, 0.01, 0, 0], [0.01, 0, 0.01, 0], [0, 0, 0, 0]])
    found = decided(workspace, table, CLOSES[0])
    week = signal_figures(found, CLOSES[1:])
    # The same; half of two; from all invested to nothing.
    assert week["signal_turnover"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    # Those of Monday are closed on Wednesday, those of Tuesday and Wednesday after it.
    assert week["signal_net_bp"] == pytest.approx(90)
    assert signal_figures(found.iloc[:0], CLOSES) == {"signal_turnover": None, "signal_net_bp": None}


def test_a_calibration_knows_nothing_of_later_outcomes():
    table = forecasts([[0.01, -0.01, 0.01, -0.01]] * 3)
    table["label"] = [0.1, -0.1, -0.1, 0.1] * 3
    early = calibrated_before(table.iloc[:0], table, CLOSES[1], RULES)
    assert early.intercept is None
    then = calibrated_before(table.iloc[:0], table, CLOSES[2], RULES)
    changed = table.assign(label=table["label"].where(table["for_session"] < DAYS[2], 0.5))
    assert then.intercept is not None
    assert calibrated_before(table.iloc[:0], changed, CLOSES[2], RULES) == then


def test_without_signals_there_are_none_and_half_a_report_says_so(workspace):
    path = workspace.root / REPORT
    path.write_text(json.dumps({"kind": "tree", "rules": {"horizon": 1}}))
    with pytest.raises(DataError, match="dvc repro signals"):
        decided(workspace, forecasts([[0.01] * 4]), CLOSES[0])
    path.unlink()
    assert decided(workspace, forecasts([[0.01] * 4]), CLOSES[0]).empty
