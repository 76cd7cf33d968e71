"""What the logged forecasts would have had one do, and what that earned with its costs out.

The rules are those of stage `signals` (`metrics/signals.json`). Probabilities are calibrated on what was
known before the quarter of the forecast, not on all that is known now.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from monitoring.features import first_known
from pitwise.bars.calendar import session_close, session_date, session_days, session_number
from pitwise.decisions.signals import BASIS_POINT, Rules, signal
from pitwise.decisions.signals_calibration import fit_platt
from pitwise.decisions.signals_record import RANGE, asked, past_forecasts
from pitwise.errors import DataError
from pitwise.evaluation.sessions import SESSION
from pitwise.features.history import KEYS
from pitwise.workspace import Workspace, read_json

REPORT = "metrics/signals.json"
"""What stage `signals` writes: its rules, and the kind of model they are calibrated for."""
SIDE = {"BUY": 1, "SELL": -1, "HOLD": 0}
COLUMNS = [*KEYS, "until", "side", "net_bp"]


def decided(workspace: Workspace, forecasts: pd.DataFrame, since: pd.Timestamp) -> pd.DataFrame:
    """The forecasts as signals.

    Args:
        forecasts: the champion's with their outcomes, see `matured`; one a symbol and session.
        since: the first session (close, UTC) that is wanted; calibrations are of those before, too.

    Returns:
        symbol, event_timestamp; until (naive date), the session at whose open a position is closed;
        side, 1 for BUY, -1 for SELL and 0 for HOLD; net_bp, the return from open to open of a position
        less the cost of its round trip, in basis points, NaN without one or while it is not known. No
        rows where stage `signals` has not run.

    Raises:
        DataError: its report is of another version, or there are no features.
    """
    path = workspace.root / REPORT
    wanted = forecasts[forecasts[SESSION] >= since]
    if not path.exists() or wanted.empty:
        return pd.DataFrame(columns=COLUMNS)
    try:
        report = read_json(path)
        rules = Rules(**report["rules"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: has no rules of signals. Run `dvc repro signals`.") from error
    past, _ = past_forecasts(workspace, report["kind"], rules.horizon)
    features = first_known(workspace, ["close", *RANGE], [(SESSION, ">=", since)])
    rows = wanted.merge(features, on=KEYS).assign(suspect=None)
    rows["last_close"] = rows["close"]
    side, cost = np.zeros(len(rows), int), np.zeros(len(rows))
    quarters = rows[SESSION].dt.tz_localize(None).dt.to_period("Q")
    for quarter, own in rows.groupby(quarters):
        then = calibrated_before(past, forecasts, quarter.start_time.tz_localize("UTC"), rules)
        for at, question in zip(own.index, asked(own), strict=True):
            told = signal(**question, rules=then)
            side[at], cost[at] = SIDE[told.signal], told.expected_cost or 0.0
    earned = side * np.expm1(rows["label_open"].to_numpy(float)) - cost
    until = session_date(session_number(rows["for_session"]) + 1)
    net = np.where(side == 0, np.nan, earned / BASIS_POINT)
    return rows.assign(until=until, side=side, net_bp=net)[COLUMNS]


def calibrated_before(
    past: pd.DataFrame, forecasts: pd.DataFrame, at: pd.Timestamp, rules: Rules
) -> Rules:
    """The rules with a calibration on the outcomes known at an instant (UTC).

    Args:
        past: of `past_forecasts`; its labels count from twice the horizon and four days on, by when
            their sessions are over.
        forecasts: see `decided`.
    """
    old = past[past[SESSION] < at - pd.Timedelta(days=2 * rules.horizon + 4)]
    came = forecasts[forecasts["label"].notna()]
    came = came[session_close(came["for_session"]) < at]
    said = pd.concat(
        [old[["p_up", "label"]], came.loc[~came[SESSION].isin(old[SESSION]), ["p_up", "label"]]]
    )
    fitted = fit_platt(said["p_up"].to_numpy(float), said["label"].to_numpy(float) > 0)
    parts = fitted._asdict() if fitted else {"intercept": None, "slope": None}
    return replace(rules, **parts)


def signal_figures(table: pd.DataFrame, closes: pd.DatetimeIndex) -> dict[str, float | None]:
    """A week's.

    Args:
        table: see `decided`.
        closes: of the week's sessions, UTC.

    Returns:
        signal_turnover: of equal weights of a session's signals, half the sum of the changes since the
        session before, the mean over the week: from 0, the same signals, to 1, all others.
        signal_net_bp: the mean of the positions that were closed in the week. None where there are none.
    """
    if table.empty:
        return {"signal_turnover": None, "signal_net_bp": None}
    closed = table["net_bp"][table["until"].isin(session_days(closes.to_series()))].dropna()
    return {
        "signal_turnover": _turnover(table, closes),
        "signal_net_bp": float(closed.mean()) if len(closed) else None,
    }


def _turnover(table: pd.DataFrame, closes: pd.DatetimeIndex) -> float | None:
    sessions = pd.DatetimeIndex(table[SESSION].drop_duplicates()).sort_values()
    wanted = sessions[sessions < closes.min()][-1:].append(closes.intersection(sessions))
    if len(wanted) < 2:
        return None
    rows = table[table[SESSION].isin(wanted)]
    side = rows.pivot(index=SESSION, columns="symbol", values="side").fillna(0.0)
    weights = side.div(side.abs().sum(axis=1).clip(lower=1), axis=0)
    return float(weights.diff().iloc[1:].abs().sum(axis=1).mean() / 2)
