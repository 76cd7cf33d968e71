"""Stage `select`: the models' inputs out of all candidates, by correlation on the training dates.

An input is worth its correlation with the label, and nothing beside a stronger one that is like it.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from scipy.stats import rankdata

from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.scale_free import scale_free
from pitwise.features.served import ENDS, ServedWindows
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, replacing, write_json
from training.groups import symbol_filters

CLOSE = NAMES.index("close")
GROUP_ROWS = 250_000
"""About as many rows are in memory with their windows of share counts at a time."""
DIGITS = 4
"""Columns equal to this many digits tie, whatever the last bits of their sums."""


class SelectParams(Params):
    method: Literal["correlation", "fixed"]
    n: int = Field(ge=1)
    max_correlation: float = Field(gt=0, le=1)
    features: tuple[str, ...] = Field(min_length=1)

    @field_validator("n")
    @classmethod
    def _within_reach(cls, n: int) -> int:
        if n > len(NAMES):
            raise ValueError(f"there are only {len(NAMES)} candidates")
        return n

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


def candidates_at_window_end(
    rows: pd.DataFrame, served: pd.DataFrame, ends: np.ndarray, window: int
) -> np.ndarray:
    """Every candidate as a model sees it in the last session of a window, see `scale_free`.

    The close itself is 0 there: its information is in the sessions before, which are left aside here.

    Args:
        rows: as stage `dataset` leaves them.
        served: those served otherwise, see `ServedWindows`.
        ends: positions of the rows that end a window.

    Returns:
        (len(ends), n_candidates) in the order of `NAMES`.
    """
    last = ServedWindows(rows, served, NAMES).gather(ends, 1)[:, 0].astype("float64")
    shares = [name for name in NAMES if BY_NAME[name].unit == "shares"]
    windows = ServedWindows(rows, served, shares).gather(ends, window).astype("float64")
    usual = scale_free(windows, "shares", None).mean(axis=1)
    columns = np.empty((len(ends), len(NAMES)))
    for i, name in enumerate(NAMES):
        columns[:, i] = scale_free(last[:, i], BY_NAME[name].unit, last[:, CLOSE])
        if name in shares:
            columns[:, i] -= usual[:, shares.index(name)]
    return columns


def seen_in_training(
    groups: Iterable[tuple[pd.DataFrame, pd.DataFrame]], window: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """The candidates of the rows whose split is train, and those rows.

    Args:
        groups: the set and its rows as served, some symbols at a time.

    Returns:
        (n, n_candidates), see `candidates_at_window_end`, and `symbol`, `event_timestamp`, `label`.
    """
    columns, train = [], []
    for rows, served in groups:
        ends = np.flatnonzero(rows["split"] == "train")
        columns.append(candidates_at_window_end(rows, served, ends, window))
        train.append(rows[[*KEYS, "label"]].iloc[ends])
    return np.concatenate(columns), pd.concat(train, ignore_index=True)


def standard_ranks(columns: np.ndarray) -> np.ndarray:
    """Ranks of each column with mean 0 and variance 1; all 0 where a column does not vary."""
    ranks = np.empty(columns.shape)
    for i in np.ndindex(columns.shape[1:]):  # one at a time: a market's candidates are gigabytes
        ranks[:, *i] = rankdata(columns[:, *i])
    ranks -= ranks.mean(axis=0)
    spread = ranks.std(axis=0)
    ranks /= np.where(spread > 0, spread, 1)
    return ranks


def strength(
    ranks: np.ndarray, label_ranks: np.ndarray, sessions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spearman's correlation of each column with the label over all rows, and its t statistic.

    Pooled over symbols and sessions, as the models' loss is: it is defined for one stock as for
    five hundred, and for a column that all stocks share. Stocks move together on a day, so the
    standard error is clustered by session: a day counts once, however many stocks it has.
    Source: Petersen (2009), Estimating standard errors in finance panel data sets.

    Args:
        ranks: (n, n_candidates) standard ranks.
        label_ranks: (n,) standard ranks.
        sessions: (n,) the session of each row.

    Returns:
        correlation and t, each (n_candidates,); both 0 for a column that does not vary.
    """
    correlation = label_ranks @ ranks / len(ranks)
    day = pd.factorize(sessions)[0]
    error = np.empty(len(correlation))
    for i, column in enumerate(ranks.T):
        scores = column * (label_ranks - column * correlation[i])
        error[i] = np.sqrt((np.bincount(day, scores) ** 2).sum()) / len(ranks)
    t = np.divide(correlation, error, out=np.zeros_like(correlation), where=error > 0)
    return correlation, t


def by_strength(t: np.ndarray) -> np.ndarray:
    """Positions of the candidates, the surest correlation first; ties in the table's order."""
    return np.argsort(-np.abs(t).round(DIGITS), kind="stable")


def choose(t: np.ndarray, likeness: np.ndarray, n: int, max_correlation: float) -> list[int]:
    """Take the strongest that is not redundant with one taken, until there are `n`.

    The close is always taken: the models anchor on it. Where all that are left are redundant, the
    least redundant of them fill up.

    Args:
        likeness: (n_candidates, n_candidates) absolute correlations, to `DIGITS`.

    Returns:
        positions of the chosen, in the table's order.
    """
    taken: list[int] = [CLOSE]
    redundant: list[int] = []
    for i in by_strength(t):
        if i != CLOSE and len(taken) < n:
            (redundant if likeness[i, taken].max() > max_correlation else taken).append(int(i))
    while len(taken) < n:
        nearest = likeness[np.ix_(redundant, taken)].max(axis=1)
        taken.append(redundant.pop(int(nearest.argmin())))
    return sorted(taken)


def select(columns: np.ndarray, train: pd.DataFrame, params: SelectParams) -> dict:
    """The choice and its reasons.

    Args:
        columns: (n, n_candidates) of the training windows, see `seen_in_training`.
        train: their `symbol`, `event_timestamp` and `label`.

    Returns:
        method, features (the chosen, in the table's order), train (the rows used) and ranking:
        by candidate, the strongest first, strength (Spearman with the next log return), t, chosen,
        and which other of the chosen it resembles most (`nearest`, None where none at all) with
        Spearman's correlation between the two.
    """
    ranks = standard_ranks(columns)
    label_ranks = standard_ranks(train["label"].to_numpy())
    strengths, t = strength(ranks, label_ranks, train["event_timestamp"].to_numpy())
    between = ranks.T @ ranks / len(ranks)
    likeness = np.abs(between).round(DIGITS)
    if params.method == "correlation":
        chosen = choose(t, likeness, params.n, params.max_correlation)
    else:
        chosen = sorted(NAMES.index(name) for name in params.features)

    ranking = []
    for i in by_strength(t):
        others = [j for j in chosen if j != i]
        j = max(others, key=lambda j: likeness[i, j], default=i)
        alike = j != i and likeness[i, j] > 0
        ranking.append(
            {
                "feature": NAMES[i],
                "strength": float(strengths[i]),
                "t": float(t[i]),
                "chosen": bool(i in chosen),
                "nearest": NAMES[j] if alike else None,
                "nearest_correlation": float(between[i, j]) if alike else None,
            }
        )
    return {
        "method": params.method,
        "features": [NAMES[i] for i in chosen],
        "train": {
            "windows": len(train),
            "symbols": int(train["symbol"].nunique()),
            "sessions": int(train["event_timestamp"].nunique()),
            "first_session": f"{train['event_timestamp'].min():%Y-%m-%d}",
            "last_session": f"{train['event_timestamp'].max():%Y-%m-%d}",
        },
        "ranking": ranking,
    }


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "select", SelectParams)
    window = read_json(workspace.dataset_report)["window"]
    names = [*KEYS, *NAMES, *FACTORS, ENDS, "split", "label"]
    groups = (
        tuple(
            pd.read_parquet(path, columns=columns, filters=symbols)
            for path, columns in ((workspace.dataset_rows, names), (workspace.served_rows, None))
        )
        for symbols in symbol_filters(workspace.dataset_rows, GROUP_ROWS)
    )
    report = select(*seen_in_training(groups, window), params)
    write_json(report, workspace.selection_report)

    from training import plots

    figure = plots.selection(pd.DataFrame(report["ranking"]), params.max_correlation)
    with replacing(workspace.selection_plot) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    left_out = [name for name in NAMES if name not in report["features"]]
    print(
        f"{len(report['features'])} of {len(NAMES)} candidates, {report['method']}, on "
        f"{report['train']['windows']:,} training windows; left out: {', '.join(left_out) or 'none'}"
    )


if __name__ == "__main__":
    run_stage(main)
