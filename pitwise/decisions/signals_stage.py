"""Stage `signals`: what to do with the newest forecasts, how far to believe them, and the market's mood.

Features and forecasts are taken as they are known now. The walk-forward's forecasts are no dependency in
`dvc.yaml`, since most runs have none: they are read where they are.
"""

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.bars.calendar import session_days
from pitwise.decisions import reversals
from pitwise.decisions.sentiment import sentiment
from pitwise.decisions.signals import Rules, Signal, signal
from pitwise.decisions.signals_calibration import fit_platt, judged, reliability, scores
from pitwise.decisions.signals_record import KEYS, RANGE, asked, past_forecasts, record
from pitwise.decisions.strategies import BacktestParams
from pitwise.evaluation.sessions import SESSION
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Artifact, Workspace, read_json, read_parquet, write_json, write_parquet

SIGNALS = Artifact("data/predictions/signals.parquet")
SENTIMENT = Artifact("data/predictions/sentiment.parquet")
REPORT = Artifact("metrics/signals.json")
ROW = [*KEYS, "close", "price_factor", "segment", "price_to_sma_20", *reversals.COLUMNS]
OF_SIGNAL = {f.name: "string" if f.name in ("signal", "reason") else "float64" for f in fields(Signal)}
"""What `signal` says, and its type in the table."""


class SignalsParams(Params):
    interval: float = Field(gt=0, lt=1)
    """Probability between the two ends of a price target's interval."""
    stop_atr: float = Field(gt=0)
    """Average true ranges that a stop-loss is away from the close, at least."""
    take_profit_atr: float = Field(gt=0)
    bootstrap_samples: int = Field(ge=100)
    """Draws of blocks of sessions for the 95% intervals."""
    seed: int = Field(ge=0)


def main(workspace: Workspace) -> dict[str, Any]:
    """Write the signals, the sentiment's history, and the report, which is returned.

    Raises:
        DataError, ParamsError: there are no forecasts yet, or a section of params.yaml is wrong.
    """
    params = load_params(workspace, "signals", SignalsParams)
    trading = load_params(workspace, "backtest", BacktestParams)
    forecasts = read_parquet(workspace.latest_predictions)
    kind = read_json(workspace.registration_report)["champion_kind"]
    horizon = int(forecasts["horizon"].max()) if len(forecasts) else 1
    said, source = past_forecasts(workspace, kind, horizon)
    past = judged(said, horizon)
    calibration = calibrate(said, source, past, horizon, params)
    fitted = calibration["calibration"] or {}
    rules = Rules(
        horizon=horizon,
        interval=params.interval,
        stop_atr=params.stop_atr,
        take_profit_atr=params.take_profit_atr,
        dollars=trading.capital / trading.k,
        **trading.costs.model_dump(exclude={"delisting_haircut"}),
        intercept=fitted.get("intercept"),
        slope=fitted.get("slope"),
    )
    rows = read_rows(workspace)
    told = reversals.flags(rows)
    newest = rows.groupby("symbol", sort=False).tail(1)
    newest = newest.assign(reversals=reversals.named(told.loc[newest.index]))
    table, mood = signals(forecasts, newest, rules), sentiment(rows)
    report = {
        "as_of": f"{rows['date'].max():%Y-%m-%d}",
        "for_session": str(table["for_session"].max()) if len(table) else None,
        "kind": kind,
        "counts": {name: int((table["signal"] == name).sum()) for name in ("BUY", "SELL", "HOLD")},
        "rules": asdict(rules),
        **calibration,
        "record": record(past, rows, rules, params.bootstrap_samples, params.seed),
        "sentiment": newest_mood(mood),
        "reversals": reversals.hit_rates(told, rows, params.bootstrap_samples, params.seed),
    }
    write_parquet(table, workspace.root / SIGNALS.path)
    write_parquet(mood, workspace.root / SENTIMENT.path)
    write_json(report, workspace.root / REPORT.path)
    return report


def described(report: dict[str, Any]) -> str:
    """The report in one line."""
    counts = ", ".join(f"{n:,} {name}" for name, n in report["counts"].items())
    return f"signals for {report['for_session']}: {counts}"


def read_rows(workspace: Workspace) -> pd.DataFrame:
    """The last known version of every symbol's session, sorted by both.

    Returns:
        `ROW` and `RANGE`; date (naive midnight); adjusted, the close with splits and known dividends
        taken out; run, the number of a symbol's sessions without a break.
    """
    rows = read_parquet(workspace.daily_features, [*ROW, *RANGE])
    rows = rows.drop_duplicates(KEYS, keep="last", ignore_index=True)
    starts = rows["symbol"].ne(rows["symbol"].shift()) | rows["segment"].ne(rows["segment"].shift())
    return rows.assign(
        date=session_days(rows[SESSION]),
        adjusted=rows["close"] * rows["price_factor"],
        run=starts.cumsum(),
    )


def signals(forecasts: pd.DataFrame, newest: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """A row a forecast: BUY and SELL first, then by what is left of the expected return.

    Args:
        forecasts: see `serving.inference.latest.latest_forecasts`.
        newest: each symbol's newest row of `read_rows`, with `reversals`. Where it is not of the session
            of the forecast, range and volume are not known.
    """
    rows = forecasts.rename(columns={"as_of": SESSION}).merge(
        newest[[*KEYS, *RANGE, "reversals"]], how="left", on=KEYS
    )
    rows["last_close"] = rows["price"] / np.exp(rows["log_return"])
    found = [asdict(signal(**each, rules=rules)) for each in asked(rows)]
    said = ["symbol", "as_of", "for_session", "horizon", "p_up", "score", "last_close"]
    table = pd.concat(
        [
            rows.rename(columns={SESSION: "as_of"})[said],
            pd.DataFrame(found, columns=list(OF_SIGNAL)).astype(OF_SIGNAL),
            rows[["reversals", "unusual", "suspect", "model_version"]].fillna({"reversals": ""}),
        ],
        axis=1,
    )
    table["held"] = table["signal"] == "HOLD"
    table = table.sort_values(
        ["held", "expected_net", "symbol"], ascending=[True, False, True], ignore_index=True
    )
    return table.drop(columns="held")


def newest_mood(mood: pd.DataFrame) -> dict[str, Any]:
    """The last session's row; None for a part that lacks its history."""
    last = mood.iloc[-1]
    figures = {name: float(last[name]) if np.isfinite(last[name]) else None for name in mood.columns[1:]}
    return {"date": f"{last['date']:%Y-%m-%d}"} | figures


def calibrate(
    said: pd.DataFrame, source: str | None, past: pd.DataFrame, horizon: int, params: SignalsParams
) -> dict[str, Any]:
    """How far the stated probabilities can be believed, as the report has it.

    Args:
        said, source: see `past_forecasts`.
        past: the same, see `judged`.

    Returns:
        calibration: intercept and slope, fitted on all of them for tonight, and what they are of; None
        where there is nothing to fit on. calibrations: the quarters' own, each with the day that it is
        `from`. scores and reliability: of calibrations that were fitted on
        what was known before each quarter, see `signals_calibration`; None and empty where there is but
        one quarter.
    """
    fitted = fit_platt(said["p_up"].to_numpy(float), said["label"].to_numpy(float) > 0)
    nothing: dict[str, list] = {"calibrated": [], "stated": []}
    if fitted is None:
        return {"calibration": None, "calibrations": [], "scores": None, "reliability": nothing}
    table = {
        name: reliability(past[column], past, horizon, params.bootstrap_samples, params.seed)
        for name, column in (("calibrated", "calibrated"), ("stated", "p_up"))
    }
    quarters = past.drop_duplicates(["intercept", "slope"])
    from_days = session_days(quarters[SESSION])
    return {
        "calibrations": [
            {"from": f"{day:%Y-%m-%d}", "intercept": float(intercept), "slope": float(slope)}
            for day, intercept, slope in zip(
                from_days, quarters["intercept"], quarters["slope"], strict=True
            )
        ],
        "calibration": {
            **fitted._asdict(),
            "source": source,
            "first_session": f"{said[SESSION].min():%Y-%m-%d}",
            "last_session": f"{said[SESSION].max():%Y-%m-%d}",
            "sessions": int(said[SESSION].nunique()),
            "forecasts": len(said),
        },
        "scores": scores(past) if len(past) else None,
        "reliability": table,
    }


if __name__ == "__main__":
    run_stage(lambda workspace: print(described(main(workspace)), flush=True))
