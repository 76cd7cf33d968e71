"""Is what came in, and what went out, what it says it is? One figure a session, each with its limit.

Bars are taken as they were delivered, before cleaning sets them aside: a broken feed must show here even
where no bad bar gets through.
"""

import numpy as np
import pandas as pd

from pitwise.evaluation import metrics
from pitwise.evaluation.sessions import SESSION

USUAL_SESSIONS = 20
"""Sessions before, whose median number of symbols is the usual one."""
JUMP = np.log(2.5)
"""Move of a close over night that the market itself hardly ever makes; a factor of ten is far beyond."""
FEWEST = 3
"""Symbols that must be touched: one alone is its own news, a split or a takeover."""
FEWEST_RANKED = 20
"""Symbols whose order tells anything: of five, two that change places are no news."""
LIMITS: dict[str, tuple[float, bool]] = {
    "symbols": (0.9, False),
    "jumped": (0.02, True),
    "same_volume": (0.05, True),
    "same_close": (0.10, True),
    "price_order": (0.97, False),
    "served": (0.9, False),
    "repeated": (0.5, True),
}
"""By figure of a session, its limit and whether more is worse. Of the 1,007 sessions in the S&P 500's
file three pass one: two that hold another session's bars, and one with stale closes."""
MEANING = {
    "symbols": "symbols with a bar, of the usual number",
    "jumped": "symbols whose price jumped by a factor of 2.5 or more over night",
    "same_volume": "symbols with the very volume of the session before",
    "same_close": "symbols with the very close of the session before",
    "price_order": "rank correlation of the symbols' closes with those of the session before",
    "served": "symbols with a forecast, of those that could have one",
    "repeated": "symbols with the very forecast of the session before",
}


def bar_health(bars: pd.DataFrame) -> pd.DataFrame:
    """Figures of each session of bars.

    Args:
        bars: as delivered: `symbol`, `date`, `close`, `volume`; one row a symbol and session.

    Returns:
        by session (naive date): `symbols`, `jumped`, `same_volume`, `same_close`, each a share, and
        `price_order`; NaN where there is nothing, or too little, to hold it against.
    """
    bars = bars.dropna(subset=["symbol", "date"]).sort_values(["symbol", "date"], ignore_index=True)
    days = pd.Index(np.sort(bars["date"].unique()), name="date")
    number = days.get_indexer(bars["date"])
    follows = (bars["symbol"] == bars["symbol"].shift()).to_numpy() & (np.diff(number, prepend=-9) == 1)
    after, before = bars[follows], bars.shift()[follows]
    moved = np.log(after["close"] / before["close"]).abs()
    touched = pd.DataFrame(
        {
            "jumped": moved > JUMP,
            "same_volume": (after["volume"] == before["volume"]) & (after["volume"] > 0),
            "same_close": after["close"] == before["close"],
        }
    )
    result = _shares(touched, after["date"]).reindex(days)
    counted = bars.groupby("date")["symbol"].nunique()
    usual = counted.rolling(USUAL_SESSIONS, min_periods=1).median().shift()
    result.insert(0, "symbols", (counted / usual).clip(upper=1))
    closes = [rows["close"].to_numpy(float) for rows in (before, after)]
    sessions, ranked = np.unique(after["date"], return_counts=True)
    order = metrics.rank_ic(closes[0], closes[1], after["date"].to_numpy())
    order = np.where(ranked >= FEWEST_RANKED, order, np.nan)
    result["price_order"] = pd.Series(order, pd.Index(sessions, name="date"))
    return result


def _shares(touched: pd.DataFrame, of: pd.Series) -> pd.DataFrame:
    """Share of each session's rows that are touched; 0 where they are fewer than `FEWEST`."""
    by = touched.groupby(of)
    return by.mean().where(by.sum() >= FEWEST, 0.0)


def forecast_health(forecasts: pd.DataFrame, could: pd.Series) -> pd.DataFrame:
    """Figures of each session that forecasts were made at.

    Args:
        forecasts: of one version: `symbol`, `event_timestamp`, `log_return`.
        could: by session (close, UTC), how many symbols had a bar.

    Returns:
        by session of `could`: `served` and `repeated`, shares.
    """
    counted = forecasts.groupby(SESSION)["symbol"].nunique()
    served = (counted.reindex(could.index).fillna(0) / could).clip(upper=1)
    rows = forecasts.sort_values(["symbol", SESSION], ignore_index=True)
    number = could.index.get_indexer(rows[SESSION])
    follows = (rows["symbol"] == rows["symbol"].shift()).to_numpy() & (np.diff(number, prepend=-9) == 1)
    same = rows["log_return"].eq(rows["log_return"].shift())[follows]
    repeated = _shares(same.to_frame("repeated"), rows[SESSION][follows])["repeated"]
    return pd.DataFrame({"served": served, "repeated": repeated.reindex(could.index)})


def broken(figures: pd.DataFrame) -> list[dict]:
    """Sessions beyond a limit.

    Returns:
        by figure, the worst session first: `figure`, `session` (ISO), `value`, `limit`, `sessions` (how
        many are beyond it).
    """
    found = []
    for name in figures.columns.intersection(list(LIMITS)):
        limit, more_is_worse = LIMITS[name]
        values = figures[name].dropna()
        beyond = values[values > limit] if more_is_worse else values[values < limit]
        if len(beyond):
            worst = beyond.idxmax() if more_is_worse else beyond.idxmin()
            found.append(
                {
                    "figure": name,
                    "session": f"{worst:%Y-%m-%d}",
                    "value": float(beyond[worst]),
                    "limit": limit,
                    "sessions": len(beyond),
                }
            )
    return found
