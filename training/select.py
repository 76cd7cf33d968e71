"""Stage `select`: the models' inputs out of all candidates, by what they say on the training dates.

An input is worth keeping if it ranks the symbols of a session, session after session and in every part
of the training dates; beside a stronger one that is like it, it is worth nothing.
"""

from collections.abc import Collection, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from scipy.stats import rankdata

from pitwise.evaluation import metrics
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.scale_free import scale_free
from pitwise.features.served import ENDS, ServedWindows
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json
from training.groups import symbol_filters

CLOSE = NAMES.index("close")
GROUP_ROWS = 250_000
"""About as many rows are in memory with their windows of share counts at a time."""
DIGITS = 4
"""Columns equal to this many digits tie, whatever the last bits of their sums."""
GROUPS: dict[str, tuple[str, ...]] = {
    "close": (
        "open",
        "high",
        "low",
        "close",
        "price_change",
        "price_change_pct",
        "daily_return",
        "high_low_range",
        "high_low_pct",
        "high_low_pct_20",
        "overnight_return",
        "close_location",
        "close_location_5",
    ),
    "averages": ("sma_5", "sma_10", "sma_20", "price_to_sma_5", "price_to_sma_20"),
    "volume": (
        "volume",
        "volume_sma_20",
        "volume_ratio",
        "obv_20",
        "mfi_14",
        "log_dollar_volume_20",
        "log_amihud_20",
    ),
}
GROUPS["indicators"] = tuple(name for name in NAMES if name not in sum(GROUPS.values(), ()))
"""Candidates by what they are made of."""
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


class SelectParams(Params):
    method: Literal["stable", "correlation", "fixed"]
    n: int = Field(ge=1)
    max_correlation: float = Field(gt=0, le=1)
    min_t: float = Field(default=3.0, ge=0)
    """Of the mean rank IC of a stable candidate. Of dozens that are tried some reach 2 by luck.
    Source: Harvey, Liu and Zhu (2016), … and the cross-section of expected returns."""
    periods: int = Field(default=4, ge=1)
    """Equal parts of the training sessions, in each of which a stable candidate's sign is the same."""
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


class SessionIC(NamedTuple):
    """What one candidate says of the symbols of a session, over all sessions."""

    mean: float | None
    """Of the rank IC; None where no session has symbols to rank."""
    t: float | None
    by_period: list[float | None]
    """The mean in each part of the sessions."""

    def stable(self, min_t: float) -> bool:
        """Sure over all sessions, and of one sign in every part of them."""
        if self.t is None or abs(self.t) < min_t:
            return False
        return all(mean is not None and mean * self.t > 0 for mean in self.by_period)


def session_ics(
    columns: np.ndarray, label: np.ndarray, sessions: np.ndarray, horizon: int, periods: int
) -> list[SessionIC]:
    """The rank IC of each candidate, session by session, summed up.

    Args:
        columns: (n, n_candidates).
        label: (n,) log returns over `horizon` sessions; t is Newey and West's where they overlap.
        sessions: (n,) the session of each row.
    """
    days = pd.factorize(sessions, sort=True)[0]
    label_ranks = metrics.ranks(label, days)
    found = []
    for column in columns.T:
        ic = metrics.ic(metrics.ranks(column, days), label_ranks, days)
        mean, t = metrics.mean_and_t(ic, horizon - 1)
        parts = [metrics.mean_and_t(part)[0] for part in np.array_split(ic, periods)]
        found.append(SessionIC(mean, t, parts))
    return found


def by_strength(t: np.ndarray) -> np.ndarray:
    """Positions of the candidates, the surest correlation first; ties in the table's order."""
    return np.argsort(-np.abs(t).round(DIGITS), kind="stable")


def choose(
    t: np.ndarray,
    likeness: np.ndarray,
    n: int,
    max_correlation: float,
    among: Collection[int] | None = None,
) -> list[int]:
    """Take the strongest that is not redundant with one taken, until there are `n`.

    The close is always taken: the models anchor on it. Where all that are left are redundant, the
    least redundant of them fill up.

    Args:
        likeness: (n_candidates, n_candidates) absolute correlations, to `DIGITS`.
        among: those that may be taken; then fewer than `n` may come of it, and nothing fills up.

    Returns:
        positions of the chosen, in the table's order.
    """
    taken: list[int] = [CLOSE]
    redundant: list[int] = []
    for i in by_strength(t):
        if i != CLOSE and len(taken) < n and (among is None or i in among):
            (redundant if likeness[i, taken].max() > max_correlation else taken).append(int(i))
    while among is None and len(taken) < n:
        nearest = likeness[np.ix_(redundant, taken)].max(axis=1)
        taken.append(redundant.pop(int(nearest.argmin())))
    return sorted(taken)


def select(
    columns: np.ndarray, train: pd.DataFrame, params: SelectParams, horizon: int = 1
) -> dict[str, Any]:
    """The choice and its reasons.

    Method `stable` takes those that `SessionIC.stable` holds for, the surest first. Where there is none,
    a model needs inputs all the same: then it takes what `correlation` takes, and says so.

    Args:
        columns: (n, n_candidates) of the training windows, see `seen_in_training`.
        train: their `symbol`, `event_timestamp` and `label`.
        horizon: sessions that the label looks ahead.

    Returns:
        method; chosen_by (the method that did choose); features (the chosen, in the table's order);
        stable (those that are, chosen or redundant); train (the rows used); groups, see `by_group`;
        ranking: by candidate, the strongest first, group, strength (Spearman with the label over all
        rows), t, rank_ic_mean, rank_ic_t, rank_ic_by_period, stable, chosen, and which other of the
        chosen it resembles most (`nearest`, None where none at all) with Spearman's correlation between
        the two.
    """
    label, sessions = train["label"].to_numpy(), train["event_timestamp"].to_numpy()
    ranks = standard_ranks(columns)
    strengths, t = strength(ranks, standard_ranks(label), sessions)
    between = ranks.T @ ranks / len(ranks)
    likeness = np.abs(between).round(DIGITS)
    ics = session_ics(columns, label, sessions, horizon, params.periods)
    stable = [i for i, ic in enumerate(ics) if ic.stable(params.min_t)]
    chosen_by = "correlation" if params.method == "stable" and not stable else params.method
    if chosen_by == "fixed":
        chosen = sorted(NAMES.index(name) for name in params.features)
    elif chosen_by == "stable":
        session_t = np.array([ic.t or 0.0 for ic in ics])
        chosen = choose(session_t, likeness, params.n, params.max_correlation, stable)
    else:
        chosen = choose(t, likeness, params.n, params.max_correlation)

    ranking = []
    for i in by_strength(t):
        others = [j for j in chosen if j != i]
        j = max(others, key=lambda j: likeness[i, j], default=i)
        alike = j != i and likeness[i, j] > 0
        ranking.append(
            {
                "feature": NAMES[i],
                "group": GROUP_OF[NAMES[i]],
                "strength": float(strengths[i]),
                "t": float(t[i]),
                "rank_ic_mean": ics[i].mean,
                "rank_ic_t": ics[i].t,
                "rank_ic_by_period": ics[i].by_period,
                "stable": bool(i in stable),
                "chosen": bool(i in chosen),
                "nearest": NAMES[j] if alike else None,
                "nearest_correlation": float(between[i, j]) if alike else None,
            }
        )
    return {
        "method": params.method,
        "chosen_by": chosen_by,
        "features": [NAMES[i] for i in chosen],
        "stable": [NAMES[i] for i in stable],
        "train": {
            "windows": len(train),
            "symbols": int(train["symbol"].nunique()),
            "sessions": int(train["event_timestamp"].nunique()),
            "first_session": f"{train['event_timestamp'].min():%Y-%m-%d}",
            "last_session": f"{train['event_timestamp'].max():%Y-%m-%d}",
        },
        "groups": by_group(ranking),
        "ranking": ranking,
    }


def by_group(ranking: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the candidates of each of `GROUPS` say together.

    Returns:
        group, candidates, stable and chosen (how many), strength and rank_ic (means of the absolute
        values; rank_ic None where no session has symbols to rank), surest (the one with the largest
        |rank_ic_t|, or |t| where there is none) and its rank_ic_t.
    """
    table = []
    for group in GROUPS:
        of_group = [row for row in ranking if row["group"] == group]
        ics = [abs(row["rank_ic_mean"]) for row in of_group if row["rank_ic_mean"] is not None]
        surest = max(of_group, key=lambda row: (abs(row["rank_ic_t"] or 0), abs(row["t"])))
        table.append(
            {
                "group": group,
                "candidates": len(of_group),
                "stable": sum(row["stable"] for row in of_group),
                "chosen": sum(row["chosen"] for row in of_group),
                "strength": float(np.mean([abs(row["strength"]) for row in of_group])),
                "rank_ic": float(np.mean(ics)) if ics else None,
                "surest": surest["feature"],
                "rank_ic_t": surest["rank_ic_t"],
            }
        )
    return table


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "select", SelectParams)
    dataset = read_json(workspace.dataset_report)
    names = [*KEYS, *NAMES, *FACTORS, ENDS, "split", "label"]
    groups = (
        tuple(
            read_parquet(path, columns=columns, filters=symbols)
            for path, columns in ((workspace.dataset_rows, names), (workspace.served_rows, None))
        )
        for symbols in symbol_filters(workspace.dataset_rows, GROUP_ROWS)
    )
    report = select(*seen_in_training(groups, dataset["window"]), params, dataset["horizon"])
    write_json(report, workspace.selection_report)

    from training import plots

    figure = plots.selection(report["ranking"], report["groups"], params.max_correlation)
    with replacing(workspace.selection_plot) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    left_out = [name for name in NAMES if name not in report["features"]]
    if params.method == "stable" and not report["stable"]:
        print(
            f"no candidate is stable (rank IC |t| {params.min_t:g}, one sign in {params.periods} parts "
            "of the training sessions); inputs are those of the surest correlation, and may say nothing"
        )
    print(
        f"{len(report['features'])} of {len(NAMES)} candidates, {report['chosen_by']}, on "
        f"{report['train']['windows']:,} training windows; left out: {', '.join(left_out) or 'none'}"
    )


if __name__ == "__main__":
    run_stage(main)
