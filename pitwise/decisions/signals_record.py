"""What the rules of the signals would have said of past forecasts, and what came of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pitwise.decisions.signals import BASIS_POINT, Rules, signal
from pitwise.decisions.signals_calibration import ratio_interval
from pitwise.evaluation.sessions import SESSION
from pitwise.workspace import Workspace, read_json, read_parquet

KEYS = ["symbol", SESSION]
RANGE = ["atr_14", "volatility_20", "volume_sma_20"]
"""Features that stops and costs are made of."""


def past_forecasts(
    workspace: Workspace, kind: str | None, horizon: int
) -> tuple[pd.DataFrame, str | None]:
    """Forecasts of dates that their model was not fitted on, with what came of them.

    Those of the walk-forward, of one fit of each fold, where it has the kind; or of the test dates.

    Returns:
        symbol, event_timestamp, log_return, p_up, scale, label, label_open, of which scale and
        label_open may not be known; and where they are from. No rows, and None, where no model of the
        kind has forecast so many sessions ahead.
    """
    columns = [*KEYS, "log_return", "p_up", "scale", "label", "label_open"]
    known = ["log_return", "p_up", "label"]
    report, forecasts = workspace.walk_forward_report, workspace.walk_forward_forecasts
    if report.exists() and forecasts.exists() and read_json(report).get("horizon", 1) == horizon:
        said = read_parquet(forecasts, filters=[("kind", "==", kind)])
        said = said[said["seed"] == said["seed"].min()].dropna(subset=known)
        if len(said):
            return said.reindex(columns=columns), "walk-forward"
    if read_json(workspace.dataset_report)["horizon"] == horizon:
        said = read_parquet(workspace.test_predictions)
        own = {f"{kind}_{name}": name for name in ("log_return", "p_up", "scale")}
        if f"{kind}_p_up" in said:
            said = said.rename(columns=own).reindex(columns=columns).dropna(subset=known)
            return said, "test dates"
    return pd.DataFrame(columns=columns), None


def asked(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What `signal` is asked of each row, by name; None where it is not known."""
    named = rows[["log_return", "p_up", "scale", "suspect"]].assign(
        close=rows["last_close"],
        atr=rows["atr_14"],
        volatility=rows["volatility_20"] / 100,
        dollar_volume=rows["volume_sma_20"] * rows["last_close"],
    )
    return named.astype(object).where(named.notna(), None).to_dict("records")


def record(
    past: pd.DataFrame, features: pd.DataFrame, rules: Rules, samples: int, seed: int
) -> dict[str, dict[str, Any]] | None:
    """How signals like tonight's did. Each quarter's probabilities are calibrated on those before.

    A position is opened at the session's open after the signal and closed at the open a horizon later.

    Args:
        past: see `signals_calibration.judged`.
        features: see `signals_stage.read_rows`.
        samples: draws of blocks of sessions for the intervals.

    Returns:
        for BUY and SELL: count and sessions; hit_rate, the share whose close moved as it says, with
        ci95; base_rate, the same share of all symbols, each session counted as often as it has signals;
        net_bp, the mean return of a position with its cost out, in basis points, with net_ci95; base_bp,
        that of all symbols, without cost. None where no return from open to open is known.
    """
    rows = past[past["label_open"].notna()]
    if rows.empty:
        return None
    rows = rows.merge(features[[*KEYS, "close", *RANGE]], on=KEYS)
    side, cost = _decided(rows, rules)
    codes, sessions = pd.factorize(rows[SESSION], sort=True)
    change = rows["label"].to_numpy(float)
    bp = np.expm1(rows["label_open"].to_numpy(float)) / BASIS_POINT

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(codes, values, minlength=len(sessions))

    symbols = total(np.ones(len(rows)))
    found = {}
    for name, sign in (("BUY", 1), ("SELL", -1)):
        own, hit = side == sign, sign * change > 0
        n = total(own)
        hits, net = total(own & hit), total(own * (sign * bp - cost / BASIS_POINT))
        sums = {
            "hit_rate": hits,
            "base_rate": n * total(hit) / symbols,
            "net_bp": net,
            "base_bp": n * total(sign * bp) / symbols,
        }
        found[name] = {
            "count": int(n.sum()),
            "sessions": int((n > 0).sum()),
            **{key: float(each.sum() / n.sum()) if n.any() else None for key, each in sums.items()},
            "ci95": ratio_interval(hits, n, rules.horizon, samples, seed),
            "net_ci95": ratio_interval(net, n, rules.horizon, samples, seed),
        }
    return found


def _decided(rows: pd.DataFrame, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """(n,) 1 for BUY, -1 for SELL, 0 for HOLD; (n,) cost of each as a fraction, 0 for HOLD."""
    rows = rows.assign(last_close=rows["close"], suspect=None)
    side, cost = np.zeros(len(rows)), np.zeros(len(rows))
    for (intercept, slope), own in rows.groupby(["intercept", "slope"]):
        then = replace(rules, intercept=intercept, slope=slope)
        for i, question in zip(own.index, asked(own), strict=True):
            found = signal(**question, rules=then)
            if found.signal != "HOLD":
                side[i], cost[i] = (1 if found.signal == "BUY" else -1), found.expected_cost
    return side, cost
