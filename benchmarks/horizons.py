"""What a longer horizon costs and brings: one table, by the walk-forward of the baselines.

Usage: python -m benchmarks.horizons runs/csv

The folder is of a finished run: its features are labelled anew for each horizon, and the baselines are
fitted as stage `evaluate_walk_forward` does with the folder's params, trees with one seed. All horizons
are judged on the sessions that each has labels for.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd

from pitwise.evaluation.baselines import baselines
from pitwise.evaluation.figures import Figures, figures
from pitwise.evaluation.labels import labels
from pitwise.evaluation.ranking import BoostedTrees, TreesParams
from pitwise.evaluation.sessions import GROSS, SESSION
from pitwise.evaluation.walk_forward import first_test_session, folds
from pitwise.features.history import KEYS, known
from pitwise.features.served import ENDS, last_sessions
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet
from training.walk_forward import WalkForwardParams

HORIZONS = (1, 5, 20)
COMPARED = ("reversal", "ridge", "gradient_boosting")
COST = 4
"""Basis points of each unit bought or sold: about half a large stock's spread, and fees."""
ANSWERS = ["label", "label_open"]


def forecasts(rows: pd.DataFrame, horizon: int, params: WalkForwardParams) -> dict[str, pd.DataFrame]:
    """What each baseline says out of sample, with what came: see `evaluation.sessions`.

    Args:
        rows: the last session of every window with a label.
    """
    sessions = pd.DatetimeIndex(rows[SESSION].unique()).sort_values()
    first = first_test_session(sessions, params.first_test, params.step)
    said: dict[str, list[pd.DataFrame]] = {name: [] for name in COMPARED}
    for fold in folds(sessions, first, params.step, params.embargo_sessions, horizon):
        train, test = (rows[rows[SESSION].isin(part)] for part in (fold.train, fold.test))
        trees = {"gradient_boosting": BoostedTrees(horizon, TreesParams())}
        known_baselines = baselines(horizon) | trees
        for name, parts in said.items():
            forecast = known_baselines[name].fit(train).predict(test)
            parts.append(test[[*KEYS, *ANSWERS]].join(forecast))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in said.items()}


def labelled(workspace: Workspace, horizon: int) -> pd.DataFrame:
    """The last session of every window, as it was served, that has a label of this horizon."""
    rows = read_parquet(workspace.dataset_rows).drop(columns=["next_close", *ANSWERS])
    daily = known(read_parquet(workspace.daily_features))
    answers = pd.concat([daily[KEYS], labels(daily, horizon)], axis=1)
    rows = rows.merge(answers, on=KEYS, how="left", validate="one_to_one")
    ends = np.flatnonzero(rows[ENDS] & rows["label"].notna())
    return last_sessions(rows, read_parquet(workspace.served_rows), ends)


def table(found: dict[int, dict[str, Figures]]) -> Iterator[str]:
    """Lines of Markdown; both prices, the one that could be traded second."""
    yield (
        "| baseline | sessions ahead | price | rank IC (t) | spread, bp a horizon | bp a session | "
        "turnover a session | break-even, bp | net of 4 bp a side, bp a session |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in COMPARED:
        for horizon, of_name in found.items():
            for price, suffix in (("close", ""), ("next open", "_open")):
                of = of_name[name]
                spread, turnover = of[f"decile_spread_bp{suffix}"], of["turnover"]
                net = spread - COST * turnover * 2 * GROSS
                yield (
                    f"| {name} | {horizon} | {price} | {of[f'rank_ic_mean{suffix}']:+.4f} "
                    f"({of[f'rank_ic_t{suffix}']:+.1f}) | {spread * horizon:+.1f} | {spread:+.2f} | "
                    f"{turnover:.1%} | {of[f'break_even_bp{suffix}']:+.1f} | {net:+.2f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Workspace, help="folder of a finished run")
    workspace = parser.parse_args().workspace
    params = load_params(workspace, "walk_forward", WalkForwardParams)
    said = {h: forecasts(labelled(workspace, h), h, params) for h in HORIZONS}
    have_both = [
        t[t["label_open"].notna()][SESSION] for by_name in said.values() for t in by_name.values()
    ]
    first, last = max(s.min() for s in have_both), min(s.max() for s in have_both)
    found = {
        h: {name: figures(t[t[SESSION].between(first, last)], h) for name, t in by_name.items()}
        for h, by_name in said.items()
    }
    n = found[1]["reversal"]["n_sessions"]
    print(f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {n} sessions\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
