"""Back-adjustment of prices and volumes with a vendor's adjusted close, which is checked on the way."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.schema import ADJUSTED_CLOSE, PRICES


class Steps(NamedTuple):
    """From each bar to its symbol's next; (n,) each."""

    factor: pd.Series
    """What the vendor's factor is multiplied by; 1 where it stays, and at a symbol's last bar."""
    is_split: pd.Series
    mistaken: pd.Series
    """A split by the factor that the traded price does not show."""


def product_to_come(steps: pd.Series, symbol: pd.Series | np.ndarray) -> pd.Series:
    """The product of each bar's step to the next and of all later steps of its symbol."""
    return steps[::-1].groupby(symbol[::-1]).cumprod()[::-1]


def vendor_steps(bars: pd.DataFrame, split_step: float) -> Steps:
    symbol = bars["symbol"]
    ratio = bars[ADJUSTED_CLOSE] / bars["close"]
    factor = (ratio.groupby(symbol).shift(-1) / ratio).fillna(1.0)
    is_split = (factor > split_step) | (factor < 1 / split_step)
    traded = (bars["close"].groupby(symbol).shift(-1) / bars["close"]).fillna(1.0)
    mistaken = is_split & (np.log(traded * factor).abs() > 0.5 * np.log(factor).abs())
    return Steps(factor, is_split & ~mistaken, mistaken)


def on_share_basis(bars: pd.DataFrame, factor: np.ndarray | pd.Series) -> pd.DataFrame:
    """Adjusted bars, adjusted further: (n,) what each one's prices are multiplied by."""
    result = bars.assign(volume=bars["volume"] / factor, price_factor=bars["price_factor"] * factor)
    result[PRICES] = bars[PRICES].mul(factor, axis=0)
    return result


def adjusted(bars: pd.DataFrame, split_step: float) -> pd.DataFrame:
    """Bars on the share basis of each symbol's last bar.

    The factor of a bar is adjusted close over close, scaled so that a symbol's last bar keeps the
    price it traded at. Prices are multiplied by it, which takes splits and dividends out of the
    returns. Volume counts shares, so only splits move it: a step of the factor from one bar to the
    next beyond `split_step` (or its inverse) is a split, a smaller one a dividend. A split that
    the traded price does not show is the vendor's mistake and is left out.

    Args:
        bars: sorted by symbol and date; `adj_close` is optional, without it nothing is adjusted.
        split_step: ratio above 1 that tells a split from a dividend.

    Returns:
        the bars, with `price_factor` beside them: traded price = price / price_factor.
    """
    if ADJUSTED_CLOSE not in bars:
        return bars.assign(price_factor=1.0)
    symbol = bars["symbol"]
    steps = vendor_steps(bars, split_step)
    factors = steps.factor.mask(steps.mistaken, 1.0)

    # A bar's own factor is one over the steps still to come.
    factor = 1 / product_to_come(factors, symbol)
    shares = product_to_come(factors.where(steps.is_split, 1.0), symbol)
    result = bars.assign(price_factor=factor, volume=bars["volume"] * shares)
    result[PRICES] = bars[PRICES].mul(factor, axis=0)
    return result


def vendor_events(bars: pd.DataFrame, split_step: float) -> pd.DataFrame:
    """The splits in the adjusted close, and those it is wrong about.

    Returns:
        (m,) `row` of the first bar after it, `kind` (split | bad_adjustment), `price_ratio`, `evidence`.
    """
    if ADJUSTED_CLOSE not in bars:
        return pd.DataFrame({"row": [], "kind": [], "price_ratio": [], "evidence": []})
    steps = vendor_steps(bars, split_step)
    at = np.flatnonzero(steps.is_split | steps.mistaken)
    factor = steps.factor.to_numpy()[at]
    mistaken = steps.mistaken.to_numpy()[at]
    verdict = np.where(
        mistaken, "but the traded price does not: left out", "and the traded price moves with it"
    )
    return pd.DataFrame(
        {
            "row": at + 1,
            "kind": np.where(mistaken, "bad_adjustment", "split"),
            "price_ratio": 1 / factor,
            "evidence": [
                f"the adjusted close counts {f:.4g} shares for one here, {t}"
                for f, t in zip(factor, verdict, strict=True)
            ],
        }
    )
