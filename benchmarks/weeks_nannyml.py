"""NannyML's defaults on the same weeks as `benchmarks/weeks.py alarms`: how often a quiet one alarms.

NannyML wants older libraries than we have, so this runs in an environment of its own, with nothing of
ours: `python -m venv peer && peer/bin/pip install nannyml`, then
`peer/bin/python benchmarks/weeks_nannyml.py runs/csv/data/features/daily.parquet`.
"""

import argparse

import numpy as np
import pandas as pd
from nannyml import UnivariateDriftCalculator

COLUMNS = ["daily_return", "volume_ratio", "rsi_14", "volatility_20"]
REFERENCE, WEEKS, SEED = 504, 12, 7

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features")
    path = parser.parse_args().features
    table = pd.read_parquet(path, columns=["event_timestamp", *COLUMNS]).dropna()
    sessions = np.sort(table["event_timestamp"].unique())
    starts = np.arange(REFERENCE + 80, len(sessions) - 5, 5)
    counted = pd.Series(0, COLUMNS)
    for at in np.random.default_rng(SEED).choice(starts, WEEKS, replace=False):
        known = table["event_timestamp"]
        before = table[(known >= sessions[at - REFERENCE]) & (known < sessions[at])]
        week = table[(known >= sessions[at]) & (known <= sessions[at + 4])]
        calculator = UnivariateDriftCalculator(column_names=COLUMNS, chunk_size=len(week))
        result = calculator.fit(before[COLUMNS]).calculate(week[COLUMNS])
        found = result.filter(period="analysis").to_df()
        for name in COLUMNS:
            counted[name] += bool(found[(name, "jensen_shannon", "alert")].any())
    print(
        f"of {WEEKS} weeks, an alarm in\n{counted.to_string()}\nin all {counted.sum() / WEEKS / 4:.0%}"
    )
