"""The market's mood as one number from 0 (fear) to 100 (greed), for every session, from what was known.

The gauge is the mean of four parts, each 0 to 100:

breadth: share of the symbols whose close is above the mean of their 20 last.
momentum: where the market's return over 20 sessions stands among those of the last 252 (percentile).
volatility: 100 less where the standard deviation of the market's 20 last returns stands among those of
    the last 252: calm is high.
highs_lows: of the symbols at their highest or lowest close of 252 sessions, over the last 5 sessions,
    the share at the highest; 50 where there is none.

The market is the mean of all symbols' returns.
"""

import numpy as np
import pandas as pd

PARTS = ("breadth", "momentum", "volatility", "highs_lows")
YEAR = 252
"""Sessions that a percentile, a high and a low look back on, the own one included."""
MONTH = 20
WEEK = 5


def sentiment(rows: pd.DataFrame) -> pd.DataFrame:
    """The gauge and its parts by session.

    Args:
        rows: sorted by symbol and session: `date`, `run` (number of a symbol's sessions without a
            break), `adjusted` (close with splits and dividends taken out), `price_to_sma_20`.

    Returns:
        date, sentiment, and `PARTS`; NaN until a part has its history, which all have in session 272.
    """
    of_run = rows.groupby("run", sort=False)["adjusted"]
    above = np.where(rows["price_to_sma_20"].isna(), np.nan, rows["price_to_sma_20"] > 1)
    highest = of_run.rolling(YEAR).max().to_numpy()
    lowest = of_run.rolling(YEAR).min().to_numpy()
    adjusted = rows["adjusted"].to_numpy(float)
    by_row = pd.DataFrame(
        {
            "date": rows["date"].to_numpy(),
            "change": of_run.pct_change(fill_method=None).to_numpy(),
            "above": above,
            "high": adjusted >= highest,
            "low": adjusted <= lowest,
            "year": np.isfinite(highest),
        }
    )
    by_date = by_row.groupby("date")
    market, share = by_date["change"].mean(), by_date["above"].mean()
    counts = by_date[["high", "low", "year"]].sum().rolling(WEEK).sum()
    index = (1 + market.fillna(0.0)).cumprod()
    extremes = counts["high"] + counts["low"]
    ratio = (100 * counts["high"] / extremes.where(extremes > 0)).fillna(50.0)
    parts = {
        "breadth": 100 * share,
        "momentum": _percentile(index / index.shift(MONTH) - 1),
        "volatility": 100 - _percentile(market.rolling(MONTH).std()),
        "highs_lows": ratio.where(counts["year"] > 0),
    }
    table = pd.DataFrame(parts)
    table.insert(0, "sentiment", table.mean(axis=1, skipna=False))
    return table.reset_index()


def _percentile(values: pd.Series) -> pd.Series:
    """Share of the other values of the last `YEAR` that are below, in percent; ties count half."""
    return 100 * (values.rolling(YEAR).rank() - 1) / (YEAR - 1)
