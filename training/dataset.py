"""Stage `dataset`: point-in-time rows from Feast, their labels, and the split they fall in."""

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from feature_repo.artifacts import (
    CLEAN_BARS,
    DATASET_REPORT,
    FEAST_REPO,
    PUBLISHED,
    ROWS,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from feature_repo.errors import DataError
from feature_repo.indicators import NAMES
from feature_repo.sessions import session_close, session_number
from feature_repo.stage import Params, load_params, run_stage
from feature_repo.windows import window_ends
from training.splits import split_sessions


class DatasetParams(Params):
    validation_fraction: float = Field(gt=0, lt=0.5)
    test_fraction: float = Field(gt=0, lt=0.5)
    embargo_sessions: int = Field(ge=0)
    features: tuple[str, ...] = Field(min_length=1)

    @field_validator("features")
    @classmethod
    def _known(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [f for f in features if f not in NAMES]
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(NAMES)}")
        if len(set(features)) < len(features):
            raise ValueError("a feature is named twice")
        if "close" not in features:
            raise ValueError("'close' must be among them: prices enter relative to the last close")
        return features


def labels(bars: pd.DataFrame) -> pd.DataFrame:
    """Next session's close and log return of each bar.

    A label exists only if the symbol traded on the exchange's very next session: across a halt or
    a quarantined day there is no one-session return to learn.

    Args:
        bars: clean bars sorted by symbol and date.

    Returns:
        row for row: `next_close` and `label` (log return), NaN where there is none.
    """
    following = bars.groupby("symbol")["close"].shift(-1)
    session = pd.Series(session_number(bars["date"]), index=bars.index)
    adjacent = session.groupby(bars["symbol"]).shift(-1) == session + 1
    next_close = following.where(adjacent)
    return pd.DataFrame({"next_close": next_close, "label": np.log(next_close / bars["close"])})


def point_in_time_rows(spine: pd.DataFrame) -> pd.DataFrame:
    """The daily features as they were known at each instant of the spine.

    Args:
        spine: (n,) `symbol`, `event_timestamp`.

    Returns:
        the spine with the 22 daily features, sorted by symbol and event_timestamp.
    """
    from feast import FeatureStore

    store = FeatureStore(str(FEAST_REPO))
    job = store.get_historical_features(entity_df=spine, features=store.get_feature_service("daily_v1"))
    return job.to_df().sort_values(["symbol", "event_timestamp"], ignore_index=True)


def build(rows: pd.DataFrame, bars: pd.DataFrame, params: DatasetParams, window: int) -> pd.DataFrame:
    """Mark which rows end a window and join the labels, last of all.

    Returns:
        rows with `ends_window`, `split` ('' for none), `label`, `next_close`.

    Raises:
        DataError: too little data for a window or a split.
    """
    spine = bars[["symbol", "date"]].assign(event_timestamp=session_close(bars["date"]))
    answers = pd.concat([spine[["symbol", "event_timestamp"]], labels(bars)], axis=1)

    ends = window_ends(rows["symbol"].to_numpy(object), rows[NAMES].to_numpy(), window)
    if len(ends) == 0:
        raise DataError(f"publish.window: no symbol has {window} complete sessions.")
    result = rows.assign(ends_window=False)
    result.loc[ends, "ends_window"] = True
    result = result.merge(answers, on=["symbol", "event_timestamp"], validate="one_to_one")
    usable = result["ends_window"] & result["label"].notna()
    sessions = pd.DatetimeIndex(result.loc[usable, "event_timestamp"].unique()).sort_values()
    split = split_sessions(
        sessions, params.validation_fraction, params.test_fraction, params.embargo_sessions
    )
    result["split"] = np.where(usable, split.label(result["event_timestamp"]), "")
    return result


def main() -> None:
    params = load_params("dataset", DatasetParams)
    window = read_json(PUBLISHED)["window"]
    bars = read_parquet(CLEAN_BARS)
    spine = pd.DataFrame({"symbol": bars["symbol"], "event_timestamp": session_close(bars["date"])})
    rows = build(point_in_time_rows(spine), bars, params, window)
    write_parquet(rows, ROWS)

    report: dict = {"window": window, "features": list(params.features), "splits": {}}
    for name, part in rows[rows["split"] != ""].groupby("split"):
        report["splits"][name] = {
            "windows": len(part),
            "symbols": int(part["symbol"].nunique()),
            "sessions": int(part["event_timestamp"].nunique()),
            "first_session": f"{part['event_timestamp'].min():%Y-%m-%d}",
            "last_session": f"{part['event_timestamp'].max():%Y-%m-%d}",
        }
    write_json(report, DATASET_REPORT)
    counts = ", ".join(f"{part['windows']:,} {name}" for name, part in report["splits"].items())
    print(f"windows of {window} x {len(params.features)}: {counts}")


if __name__ == "__main__":
    run_stage(main)
