"""All indicators against the usual notebook's way of adding the first 17, on the whole market.

The peer is one pandas `groupby.apply`, stock by stock. A second line times its four rolling means alone,
a third `ta` on ten others for 20 stocks.
"""

import pandas as pd
from market import clean_bars, compare
from ta.momentum import StochasticOscillator
from ta.trend import MACD, ADXIndicator
from ta.volatility import AverageTrueRange, BollingerBands
from ta.volume import MFIIndicator, OnBalanceVolumeIndicator

from pitwise.features.indicators import BARS, FEATURES, compute


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


def signals(stock: pd.DataFrame) -> pd.DataFrame:
    high, low, close, volume = (stock[name] for name in ("high", "low", "close", "volume"))
    macd, bands = MACD(close), BollingerBands(close)
    stochastic = StochasticOscillator(high, low, close)
    obv = OnBalanceVolumeIndicator(close, volume).on_balance_volume()
    return stock.assign(
        macd=macd.macd(),
        macd_signal=macd.macd_signal(),
        bollinger_pct_b=bands.bollinger_pband(),
        bollinger_width=bands.bollinger_wband(),
        atr_14=AverageTrueRange(high, low, close).average_true_range(),
        obv_20=obv.diff(20) / volume.rolling(20).sum(),
        mfi_14=MFIIndicator(high, low, close, volume).money_flow_index(),
        stochastic_k=stochastic.stoch(),
        stochastic_d=stochastic.stoch_signal(),
        adx_14=ADXIndicator(high, low, close).adx(),
    )


if __name__ == "__main__":
    market = clean_bars().drop(columns=["date", "price_factor"])
    few = market[market["symbol"].isin(market["symbol"].unique()[:20])]
    for bars, peer, work in (
        (market, "17 of them", notebook),
        (market, "four rolling means", rolling_means),
        (few, "ten others with ta", signals),
    ):
        groups = bars.groupby("symbol", group_keys=False)
        compare(
            f"{len(FEATURES) - len(BARS)} indicators of {len(bars):,} rows",
            lambda bars=bars: compute(bars),
            f"pandas groupby.apply of {peer}",
            lambda groups=groups, work=work: groups.apply(work, include_groups=False),
            runs=5,
        )
