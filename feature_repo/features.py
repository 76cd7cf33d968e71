"""Stage `features`: clean bars to the daily indicator table that Feast serves."""

import sys

import pandas as pd

from feature_repo.artifacts import CLEAN_BARS, DAILY_FEATURES, read_parquet, write_parquet
from feature_repo.indicators import NAMES, compute
from feature_repo.sessions import session_close
from feature_repo.stage import run_stage


def daily_features(bars: pd.DataFrame, progress: bool = False) -> pd.DataFrame:
    """Features of every symbol and session.

    Args:
        bars: clean bars, sorted by symbol and date.

    Returns:
        `symbol`, `event_timestamp` (the session's close, UTC) and the 22 features, row for row
        with `bars`; a feature without enough history is NaN.
    """
    features = compute(bars, progress)
    features.insert(0, "symbol", bars["symbol"].array)
    features.insert(1, "event_timestamp", session_close(bars["date"]).array)
    return features


def main() -> None:
    bars = read_parquet(CLEAN_BARS)
    features = daily_features(bars, progress=sys.stderr.isatty())
    write_parquet(features, DAILY_FEATURES)
    print(f"{len(features):,} rows of {len(NAMES)} features for {bars['symbol'].nunique():,} symbols")


if __name__ == "__main__":
    run_stage(main)
