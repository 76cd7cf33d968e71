"""How well stage `clean` finds planted events and faults, and what it finds in the S&P 500's file.

Planted: 1,252 of twelve kinds in 200 synthetic stocks of 1,000 sessions, their sizes and volumes as
the S&P 500's own (see pitwise/simulation/faults.py). A find counts if its symbol, first session
and kind are right. True jumps are left out of the sums: they are what is left alone, and the market
makes large moves of its own that nobody planted.
"""

import argparse

import pandas as pd
from market import PROJECT, market_path

from pitwise.bars.sources.csv_files import csv_bars
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.simulation.market import SyntheticParams, synthetic_market
from pitwise.stage import load_params

PLANTED = {
    "split": 250,
    "spin_off": 200,
    "jump": 200,
    "bad_print": 250,
    "scale_error": 100,
    "stale": 60,
    "absurd_volume": 60,
    "halt": 60,
    "gap": 20,
    "symbol_reused": 12,
    "conflicting_duplicate": 20,
    "duplicate": 20,
}
LEFT_ALONE = "jump"


def set_aside(quarantine: pd.DataFrame) -> pd.DataFrame:
    """The rows that simpler checks refused, under the kind of fault they were planted as."""
    rows = quarantine[["symbol", "date"]].assign(
        # A wrong close beyond the session's high fails the check of the range before all others.
        kind=quarantine["reason"].replace("close_outside_range", "bad_print")
    )
    simple = quarantine["reason"].isin(["close_outside_range", "duplicate", "conflicting_duplicate"])
    return rows[simple].drop_duplicates()


def scores(seed: int) -> pd.DataFrame:
    """Of each kind: how many were planted, found and found rightly."""
    market = synthetic_market(
        SyntheticParams(
            symbols=200, start="2012-01-03", sessions=1000, seed=seed, signal=0, faults=PLANTED
        )
    )
    _, quarantine, events = clean(market.bars, load_params(PROJECT, "clean", CleanParams))
    found = pd.concat([events[["symbol", "date", "kind"]], set_aside(quarantine)], ignore_index=True)
    hits = found.merge(market.truth, on=["symbol", "date", "kind"])
    counts = {"planted": market.truth, "found": found, "right": hits}
    return pd.DataFrame({name: part["kind"].value_counts() for name, part in counts.items()}).reindex(
        list(PLANTED), fill_value=0
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="markets to plant in")
    arguments = parser.parse_args()
    total = sum(scores(seed).fillna(0) for seed in range(arguments.seeds)).astype(int)
    sums = total.drop(index=LEFT_ALONE).sum().to_frame("all but jumps").T
    table = pd.concat([total, sums])
    table["precision"] = (table["right"] / table["found"]).round(3)
    table["recall"] = (table["right"] / table["planted"]).round(3)
    table.loc[LEFT_ALONE, "precision"] = float("nan")
    print(f"{arguments.seeds} synthetic markets\n{table.to_string()}\n")

    bars, quarantine, events = clean(csv_bars(market_path()), load_params(PROJECT, "clean", CleanParams))
    print(f"the S&P 500's file\n{events['kind'].value_counts().to_string()}")
    print(quarantine["reason"].value_counts().to_string())
    for event in events[events["kind"] != LEFT_ALONE].itertuples():
        print(f"{event.symbol:6}{event.date:%Y-%m-%d}  {event.kind:14}{event.evidence}")
