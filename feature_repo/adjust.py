"""Back-adjustment of prices and volumes with a vendor's adjusted close."""

import pandas as pd

from feature_repo.bars import ADJUSTED_CLOSE, PRICES


def adjusted(bars: pd.DataFrame, split_step: float) -> pd.DataFrame:
    """Bars on the share basis of each symbol's last bar.

    The factor of a bar is adjusted close over close, scaled so that a symbol's last bar keeps the
    price it traded at. Prices are multiplied by it, which takes splits and dividends out of the
    returns. Volume counts shares, so only splits move it: a step of the factor from one bar to the
    next beyond `split_step` (or its inverse) is a split, a smaller one a dividend.

    Args:
        bars: sorted by symbol and date; `adj_close` is optional, without it nothing is adjusted.
        split_step: ratio above 1 that tells a split from a dividend.

    Returns:
        the bars, with `price_factor` beside them: traded price = price / price_factor.
    """
    if ADJUSTED_CLOSE not in bars:
        return bars.assign(price_factor=1.0)
    symbol = bars["symbol"]
    ratio = bars[ADJUSTED_CLOSE] / bars["close"]
    factor = ratio / ratio.groupby(symbol).transform("last")

    # Shares after each bar's next step; the steps that come later multiply up from the right.
    step = (ratio.groupby(symbol).shift(-1) / ratio).fillna(1.0)
    split = step.where((step > split_step) | (step < 1 / split_step), 1.0)
    shares = split[::-1].groupby(symbol[::-1]).cumprod()[::-1]

    result = bars.assign(price_factor=factor, volume=bars["volume"] * shares)
    result[PRICES] = bars[PRICES].mul(factor, axis=0)
    return result
