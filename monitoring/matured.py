"""The prediction log joined with what then happened.

It is made anew each time, from the log and from the bars as they are known: an outcome that comes late
is there the next time, a corrected one has changed, a withdrawn one is gone, and none counts twice.
"""

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from monitoring.settings import LogParams, MonitorParams
from pitwise.bars.calendar import session_close, session_days
from pitwise.evaluation.figures import block_length, block_means, figures
from pitwise.evaluation.labels import labels
from pitwise.evaluation.sessions import SESSION, by_session
from pitwise.registry.prediction_log import CHAMPION, PREDICTIONS, open_log
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Artifact, Workspace, read_parquet, write_json

OUTCOMES = ["matured", "due", "none", "open"]
"""What became of a forecast: it has an outcome; its session is over and the bar has not come; there is
no return, because the symbol was halted, the bar set aside or withdrawn; its session is not over."""
FORECAST = ["symbol", SESSION, "for_session", "model_version", "role", "score", "log_return", "p_up"]
LOGGED = ["symbol", "as_of", *FORECAST[2:], "scale", "horizon"]
GAUGES = Artifact("data/monitoring/accuracy.json")
"""What the service tells Prometheus."""
BAR = ["symbol", "date", "open", "close", "price_factor", "segment"]


def logged(engine: sa.Engine, first: date, last: date) -> pd.DataFrame:
    """The forecasts for the sessions from `first` to `last`, one of each version, symbol and session.

    Of several of them, made of a window that a correction changed, the first is taken: it is the one
    that a person could act on, and the one the promotion gate counts.

    Returns:
        `FORECAST`; `scale` (NaN where a model has none) and `horizon`, in sessions.
    """
    columns = [PREDICTIONS.c[name] for name in LOGGED if name in PREDICTIONS.c]
    wanted = sa.select(*columns).where(PREDICTIONS.c.for_session.between(first, last))
    order = (PREDICTIONS.c.served_at, PREDICTIONS.c.window_hash)
    with engine.connect() as connection:
        rows = connection.execute(wanted.order_by(*order)).all()
    table = pd.DataFrame(rows, columns=[column.name for column in columns])
    table = table.rename(columns={"as_of": SESSION})
    table[SESSION] = pd.to_datetime(table[SESSION], utc=True).astype("datetime64[us, UTC]")
    table["for_session"] = pd.to_datetime(table["for_session"]).astype("datetime64[us]")
    table["role"] = table["role"].fillna(CHAMPION)
    numbers = table.reindex(columns=["score", "scale", "horizon"]).astype(float)
    table["score"] = numbers["score"].fillna(table["log_return"].astype(float))
    table["scale"], table["horizon"] = numbers["scale"], numbers["horizon"].fillna(1).astype(int)
    first_served = table.drop_duplicates(["symbol", SESSION, "model_version"], ignore_index=True)
    return first_served[[*FORECAST, "scale", "horizon"]]


def matured(forecasts: pd.DataFrame, bars: pd.DataFrame, known_at: pd.Timestamp) -> pd.DataFrame:
    """The forecasts with what came of them, as far as it had happened at an instant (UTC).

    Args:
        forecasts: as `logged` returns them.
        bars: clean ones, `BAR`, by symbol and date; those of sessions that end later have no part.

    Returns:
        the rows with `label` and `label_open` (log returns over the row's horizon, see
        `pitwise.evaluation.labels`), `last_return` (of the session that the forecast was made at) and
        `outcome`, one of `OUTCOMES`.
    """
    bars = bars.assign(**{SESSION: session_close(bars["date"])})
    bars = bars[bars[SESSION] <= known_at].reset_index(drop=True)
    parts = []
    keys = ["symbol", SESSION]
    for horizon, rows in forecasts.groupby("horizon"):
        came = pd.concat([bars[keys], labels(bars, int(horizon))[["label", "label_open"]]], axis=1)
        parts.append(rows.merge(came, on=keys, how="left", validate="many_to_one"))
    if not parts:
        empty = dict.fromkeys(["label", "label_open", "last_return"], pd.Series(dtype=float))
        return forecasts.assign(**empty, outcome=pd.Series(dtype=str))
    table = pd.concat(parts, ignore_index=True)
    before = bars[["symbol", SESSION]].assign(last_return=_last_return(bars))
    table = table.merge(before, on=keys, how="left", validate="many_to_one")
    over = session_close(table["for_session"]) <= known_at
    newest = bars["date"].max()
    came = table["for_session"] <= newest
    table["outcome"] = np.select(
        [table["label"].notna() & over, over & ~came, over], ["matured", "due", "none"], "open"
    )
    table.loc[table["outcome"] != "matured", ["label", "label_open"]] = np.nan
    return table


def champion_forecasts(table: pd.DataFrame) -> pd.DataFrame:
    """Those that people saw, one a symbol and session: where the champion changed, the last one's."""
    return table[table["role"] == CHAMPION].drop_duplicates(["symbol", SESSION], keep="last")


def _last_return(bars: pd.DataFrame) -> pd.Series:
    """Log return of each bar's own session: the label of the one before; NaN at a segment's start."""
    return labels(bars, 1)["label"].groupby([bars["symbol"], bars["segment"]]).shift()


def baselines(table: pd.DataFrame, share_up: float) -> dict[str, pd.DataFrame]:
    """What needs no fitting, on the same rows: persistence, always up and reversal.

    Args:
        table: matured rows of one version.
        share_up: of the rises in sessions before, the probability that always-up says.
    """
    none = np.full(len(table), np.nan)
    flat = table.assign(score=0.0)
    return {
        "persistence": flat.assign(log_return=0.0, p_up=none),
        "always_up": flat.assign(log_return=none, p_up=share_up),
        "reversal": table.assign(score=-table["last_return"], log_return=none, p_up=none),
    }


def accuracy(table: pd.DataFrame, horizon: int, samples: int, seed: int) -> dict[str, Any]:
    """The figures of the walk-forward, of matured rows of one forecast, with intervals over sessions.

    Returns:
        as `figures`; `rank_ic_ci95` and `hit_rate_ci95`, [2.5th, 97.5th percentile] of a circular block
        bootstrap of sessions, None with fewer than two; `direction_accuracy`: share of the rows on the
        side of 0.5 that p_up says; `p_up_mean` and `share_up`, for calibration.
    """
    rows = table[table["outcome"] == "matured"]
    found: dict[str, Any] = dict(figures(rows, horizon))
    daily = by_session(rows, horizon)
    for name in ("rank_ic", "hit_rate"):
        found[f"{name}_ci95"] = mean_ci95(daily[name], horizon, samples, seed)
    has_p_up = rows["p_up"].notna()
    p_up, up = rows.loc[has_p_up, "p_up"], rows.loc[has_p_up, "label"] > 0
    found["direction_accuracy"] = float(((p_up > 0.5) == up).mean()) if len(up) else None
    found["p_up_mean"] = float(p_up.mean()) if len(up) else None
    found["share_up"] = float(up.mean()) if len(up) else None
    found["coverage_80"] = coverage(rows)
    return found


def coverage(rows: pd.DataFrame, share: float = 0.8) -> float | None:
    """How much of what came lay in the central interval that the model's distribution states.

    It is logistic: the quantile q is log_return + scale * ln(q / (1 - q)). None where no scale is
    stated.
    """
    rows = rows[rows["scale"].notna()]
    if rows.empty:
        return None
    reach = rows["scale"] * np.log((1 + share) / (1 - share))
    return float(((rows["label"] - rows["log_return"]).abs() <= reach).mean())


def mean_ci95(values: pd.Series, horizon: int, samples: int, seed: int) -> list[float] | None:
    """95% interval of the mean of one value a session, by the circular block bootstrap."""
    known = values.dropna().sort_index().to_numpy(float)
    if len(known) < 2:
        return None
    means = block_means(known, block_length(len(known), horizon), samples, seed)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def last_sessions(table: pd.DataFrame, sessions: int) -> pd.DataFrame:
    """The matured rows of the last so many sessions that have any."""
    rows = table[table["outcome"] == "matured"]
    return rows[rows[SESSION].isin(rows[SESSION].drop_duplicates().nlargest(sessions))]


def gauges(table: pd.DataFrame, sessions: int, samples: int, seed: int) -> dict[str, Any] | None:
    """What the service tells Prometheus of the champion: of its last matured sessions.

    Returns:
        model_version, sessions, first_session and last_session (days), matured_at (ISO, UTC: when the
        newest outcome came about), rank_ic, rank_ic_ci95, direction_accuracy; None without any.
    """
    rows = last_sessions(table[table["role"] == CHAMPION], sessions)
    if rows.empty:
        return None
    newest = rows.loc[rows[SESSION].idxmax(), "model_version"]
    rows = rows[rows["model_version"] == newest]
    found = accuracy(rows, int(rows["horizon"].iloc[-1]), samples, seed)
    days = session_days(rows[SESSION])
    return {
        "model_version": newest,
        "sessions": found["n_sessions"],
        "first_session": f"{days.min():%Y-%m-%d}",
        "last_session": f"{days.max():%Y-%m-%d}",
        "matured_at": session_close(rows["for_session"]).max().isoformat(),
        "rank_ic": found["rank_ic_mean"],
        "rank_ic_ci95": found["rank_ic_ci95"],
        "direction_accuracy": found["direction_accuracy"],
    }


def main(workspace: Workspace) -> None:
    """Mature what is due, and write the figures that the service tells Prometheus."""
    params = load_params(workspace, "monitor", MonitorParams)
    url = load_params(workspace, "predict", LogParams).log_url
    bars = read_parquet(workspace.clean_bars, BAR)
    newest = session_close(bars["date"].drop_duplicates().nlargest(1)).iloc[0]
    engine = open_log(workspace.database_url(url))
    try:
        first = newest - pd.Timedelta(days=2 * params.accuracy_sessions + 30)
        table = matured(logged(engine, first.date(), newest.date()), bars, newest)
    finally:
        engine.dispose()
    found = gauges(table, params.accuracy_sessions, params.samples, params.seed)
    if found:
        write_json(found, workspace.root / GAUGES.path)
    counted = table["outcome"].value_counts()
    print(f"{counted.get('matured', 0):,} forecasts have an outcome, {counted.get('due', 0):,} are due")


if __name__ == "__main__":
    run_stage(main)
