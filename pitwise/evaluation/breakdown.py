"""Where a forecast's figures come from: by year, volatility of the market, size of the stock, sector."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pitwise.evaluation.figures import Figures, by
from pitwise.evaluation.sessions import SESSION
from pitwise.features.history import KEYS
from pitwise.universe import read_sectors, values
from pitwise.workspace import Workspace, read_parquet, write_json

REPORT = Path("metrics/walk_forward_breakdown.json")
THIRDS = ("low", "middle", "high")
SESSIONS = 20
"""Sessions that volatility and dollar volume look back on, their own included: a month."""
SESSIONS_BEFORE = 60
"""Sessions with a volatility that a session needs before it to be told high or low: a quarter."""
SHOWN = (
    "rank_ic_mean",
    "rank_ic_t",
    "rank_ic_mean_open",
    "rank_ic_t_open",
    "decile_spread_bp",
    "decile_spread_t",
    "n_sessions",
    "n_predictions",
)
"""Of all figures, those that are told of a part."""


def year(table: pd.DataFrame) -> pd.Series:
    """The year of each row's session."""
    return table[SESSION].dt.year


def volatility_regime(
    market: pd.Series, sessions: int = SESSIONS, before: int = SESSIONS_BEFORE
) -> pd.Series:
    """Whether the market's volatility is low, middle or high for what it was until then.

    It is the standard deviation of the last `sessions` returns, the session's own included. The thirds
    are those of the volatilities of all sessions before; what comes later has no say.

    Args:
        market: the market's return in each session, by session and in order.
        before: sessions with a volatility that there must be before.

    Returns:
        by session, low, middle or high; NaN where there are too few before.
    """
    volatility = market.rolling(sessions).std()
    low, high = (volatility.expanding(before).quantile(q).shift() for q in (1 / 3, 2 / 3))
    third = (volatility > low).astype(int) + (volatility > high)
    return third.map(dict(enumerate(THIRDS))).where(volatility.notna() & low.notna())


def size_third(table: pd.DataFrame, size: pd.Series) -> pd.Series:
    """Which third of its session's symbols each row is in.

    Args:
        size: (n,) row for row, such as the dollar volume of the last 20 sessions; without counts of
            shares there is no market value.

    Returns:
        (n,) low, middle or high; NaN where the size is not known.
    """
    of_session = size.set_axis(table.index).groupby(table[SESSION])
    share = (of_session.rank() - 0.5) / of_session.transform("count")
    return (share * 3).floordiv(1).map(dict(enumerate(THIRDS)))


def dollar_volume(rows: pd.DataFrame, sessions: int = SESSIONS) -> pd.Series:
    """Mean of close times volume over each symbol's last sessions, the row's own included; (n,).

    Both stand on the share basis of their own session, which their product does not know.

    Args:
        rows: `symbol`, `close`, `volume`, in order of time within each symbol.
    """
    traded = (rows["close"] * rows["volume"]).groupby(rows["symbol"].to_numpy())
    return traded.rolling(sessions).mean().droplevel(0).reindex(rows.index)


def breakdown(
    table: pd.DataFrame, groups: Mapping[str, pd.Series], horizon: int
) -> dict[str, dict[str, Figures]]:
    """The figures of each part of one forecast, by each way to part it.

    Args:
        table: forecasts of one kind, the seeds averaged before, see `figures`.
        groups: by name, (n,) row for row, the part that a row is in; NaN for none.
        horizon: sessions that the labels look ahead.

    Returns:
        name → part → the figures of `SHOWN`. A t statistic takes the sessions of a part as if they
        followed one another.
    """
    return {
        name: {
            part: {key: found[key] for key in SHOWN} for part, found in by(table, key, horizon).items()
        }
        for name, key in groups.items()
    }


def report_breakdown(
    workspace: Workspace, tables: Mapping[str, pd.DataFrame], horizon: int
) -> dict[str, dict[str, dict[str, Figures]]]:
    """Write `metrics/walk_forward_breakdown.json`: by kind, what `breakdown` says of it.

    The ways to part it are `year`, `volatility`, `size` and, where there is a `universe/sectors.csv`,
    `sector`.

    Args:
        tables: by kind, its forecasts, the seeds averaged before.
    """
    rows = read_parquet(workspace.dataset_rows, [*KEYS, "close", "volume", "daily_return"])
    regime = volatility_regime(rows.groupby(SESSION)["daily_return"].mean().dropna())
    known = rows[KEYS].assign(size=dollar_volume(rows), volatility=rows[SESSION].map(regime))
    sectors = read_sectors(workspace)
    if sectors is not None:
        known["sector"] = values(sectors, rows)
    report = {}
    for kind, table in tables.items():
        at = table[KEYS].merge(known, on=KEYS, how="left", validate="one_to_one")
        groups = {
            "year": year(at),
            "volatility": at["volatility"],
            "size": size_third(at, at["size"]),
        }
        if sectors is not None:
            groups["sector"] = at["sector"]
        report[kind] = breakdown(table, groups, horizon)
    write_json(report, workspace.root / REPORT)
    return report
