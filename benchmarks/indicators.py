"""The 17 indicators against the usual notebook's way, on the whole market.

The peer adds the same 17 columns with one pandas `groupby.apply`, stock by stock. A second line times
its four rolling means alone.
"""

import pandas as pd
from market import clean_bars, compare

from feature_repo.indicators import compute


def rolling_means(stock: pd.DataFrame) -> pd.DataFrame:
    stock = stock.copy()
    for window in (5, 10, 20):
        stock[f"sma_{window}"] = stock["close"].rolling(window).mean()
    stock["volume_sma_20"] = stock["volume"].rolling(20).mean()
    return stock


def notebook(stock: pd.DataFrame) -> pd.DataFrame:
    stock = rolling_means(stock)
    stock["price_change"] = stock["close"] - stock["open"]
    stock["price_change_pct"] = stock["price_change"] / stock["open"] * 100
    stock["daily_return"] = stock["close"].pct_change() * 100
    stock["high_low_range"] = stock["high"] - stock["low"]
    stock["high_low_pct"] = stock["high_low_range"] / stock["low"] * 100
    stock["price_to_sma_5"] = stock["close"] / stock["sma_5"]
    stock["price_to_sma_20"] = stock["close"] / stock["sma_20"]
    stock["volatility_5"] = stock["daily_return"].rolling(5).std()
    stock["volatility_20"] = stock["daily_return"].rolling(20).std()
    stock["volume_ratio"] = stock["volume"] / stock["volume_sma_20"]
    stock["momentum_5"] = stock["close"].pct_change(5) * 100
    stock["momentum_10"] = stock["close"].pct_change(10) * 100
    change = stock["close"].diff()
    gain = change.clip(lower=0).ewm(alpha=1 / 14, min_periods=14, adjust=False).mean()
    loss = (-change.clip(upper=0)).ewm(alpha=1 / 14, min_periods=14, adjust=False).mean()
    stock["rsi_14"] = 100 - 100 / (1 + gain / loss)
    return stock


if __name__ == "__main__":
    bars = clean_bars()
    groups = bars.drop(columns=["date", "price_factor"]).groupby("symbol", group_keys=False)
    for peer, work in (("the same 17", notebook), ("four rolling means", rolling_means)):
        compare(
            f"17 indicators of {len(bars):,} rows",
            lambda: compute(bars),
            f"pandas groupby.apply of {peer}",
            lambda work=work: groups.apply(work, include_groups=False),
            runs=7,
        )
