"""The model run again on the windows that were served: are the logged forecasts its own, and of what?"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from monitoring.findings import Finding
from monitoring.importance import Windows, attention_by_session, permutation_importance
from pitwise.errors import DataError
from pitwise.evaluation.sessions import SESSION
from pitwise.features.daily import FACTORS
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.windows import WindowRows, window_ends
from pitwise.registry.attention import attention
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegisteredModel
from pitwise.workspace import Workspace

TRANSFORMER = "transformer"
"""The kind that has attention."""
SAME = 1e-5
"""Largest difference of a log return that is rounding."""
MOST_DIFFER = 0.5
SOME_DIFFER = 0.05
NOT_RUN: dict[str, Any] = {"n": 0, "differ": None, "importance": [], "attention": []}


def served_windows(
    workspace: Workspace, model: RegisteredModel, rows: pd.DataFrame, seals: pd.DataFrame
) -> tuple[Windows, pd.DataFrame]:
    """The windows of forecasts, made again of what was known when their sessions were sealed.

    Args:
        rows: of the log with outcomes: `symbol`, `event_timestamp`, `label`, `log_return`.
        seals: `date`, `sealed_at`.

    Returns:
        the windows of the rows that have one, and those rows.

    Raises:
        DataError: the features are not there, or lack one that the model wants.
    """
    columns = [*KEYS, CREATED, "close", *FACTORS, *model.features]
    path = workspace.daily_features
    absent = set(columns) - set(pq.read_schema(path).names) if path.exists() else {"everything"}
    if absent:
        raise DataError(
            f"{path}: has no {', '.join(sorted(absent))}, which model {model.version} wants."
        )
    first = rows[SESSION].min() - timedelta(days=2 * model.window + 20)
    table = pq.read_table(
        path, columns=list(dict.fromkeys(columns)), filters=[(SESSION, ">=", first)]
    ).to_pandas()
    table = table.sort_values([*KEYS, CREATED], ignore_index=True)
    by_day = seals.set_index("date")["sealed_at"]
    values, kept = [], []
    for close, wanted in rows.groupby(SESSION):
        sealed = by_day.get(close.tz_convert("America/New_York").normalize().tz_localize(None), close)
        then = known(table[table[SESSION] <= close], max(sealed, close))
        made = WindowRows(then, model.features)
        ends = window_ends(pd.factorize(then["symbol"])[0], made.base, model.window)
        ends = ends[(then[SESSION].iloc[ends] == close).to_numpy()]
        at = pd.Series(ends, then["symbol"].iloc[ends]).reindex(wanted["symbol"])
        there = at.notna().to_numpy()
        values.append(made.gather(at[there].astype(int).to_numpy(), model.window))
        kept.append(wanted[there])
    found = pd.concat(kept, ignore_index=True)
    return Windows(
        np.concatenate(values),
        found["symbol"].to_numpy(),
        pd.factorize(found[SESSION])[0],
        found["label"].to_numpy(float),
    ), found


def rerun(
    workspace: Workspace,
    model: RegisteredModel,
    rows: pd.DataFrame,
    seals: pd.DataFrame,
    most: int,
    seed: int,
    file: Path | None = None,
) -> tuple[dict[str, Any], list[Finding]]:
    """Whether the log's forecasts are the model's, and what they lean on.

    Args:
        rows: matured or not, of this version: of the sessions to look at.
        most: windows; of more, some symbols are drawn, the same in each session.
        file: `model.onnx` of the version, without which its attention is not told.

    Returns:
        `n`, `differ` (share whose log return is another), `importance` (see `permutation_importance`),
        `attention` (see `attention_by_session`; empty where the kind has none), and findings.
    """
    sessions = rows[SESSION].nunique()
    symbols = np.sort(rows["symbol"].unique())
    size = max(2, most // sessions)
    if len(symbols) > size:
        chosen = np.random.default_rng(seed).choice(symbols, size, replace=False)
        rows = rows[rows["symbol"].isin(chosen)]
    windows, rows = served_windows(workspace, model, rows, seals)
    if rows.empty:
        return dict(NOT_RUN), []
    said = run_onnx(model.session, windows.values)["log_return"]
    differ = float(np.mean(np.abs(said - rows["log_return"].to_numpy(float)) > SAME))
    findings = []
    if differ > MOST_DIFFER:
        text = f"{differ:.0%} of the logged forecasts are not what version {model.version} says"
        findings.append(Finding("act", "not_of_the_model", text))
    elif differ > SOME_DIFFER:
        text = f"{differ:.0%} of the forecasts were made of other features than the files have"
        findings.append(Finding("warn", "other_windows", text))
    ranked = permutation_importance(model.session, windows, model.features, seed)
    found = {"n": len(rows), "differ": differ, "importance": _records(ranked), "attention": []}
    if model.kind == TRANSFORMER and file is not None:
        shares = attention(file, windows.values)
        found["attention"] = _records(attention_by_session(shares, windows.sessions))
    return found, findings


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for a JSON document, which has no NaN."""
    return [
        {key: None if value != value else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
