"""Clean bars on one basis: prices as they were traded, or adjusted to a symbol's last session.

A clean bar keeps its traded price. Beside it stand two factors that grow with time and are 1 at a
symbol's first clean bar: traded price x `price_factor` is the price on the first session's basis, with
splits and known dividends taken out; traded volume / `share_factor` is the volume in the first session's
shares. What happens later changes neither.
"""

import numpy as np
import pandas as pd

from pitwise.bars.schema import PRICES


def on_last_basis(bars: pd.DataFrame) -> pd.DataFrame:
    """The adjusted history as charts show it: every price on the basis of its symbol's last bar.

    Args:
        bars: clean bars, each symbol's together and oldest first.

    Returns:
        the bars without `share_factor`: prices in dollars for a share of the last session, volume in
        such shares, and `price_factor` the adjusted price over the traded one, 1 at a symbol's last.
    """
    runs, of = _runs(bars["symbol"])
    last = runs[1:][of] - 1
    price, shares = (bars[name].to_numpy("float64") for name in ("price_factor", "share_factor"))
    price, shares = price / price[last], shares[last] / shares
    result = bars.drop(columns="share_factor")
    result["price_factor"] = price
    result["volume"] = bars["volume"] * shares
    result[PRICES] = bars[PRICES].mul(price, axis=0)
    return result


def on_first_basis(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars with prices and volumes on the basis of their symbol's first, which none after it moves."""
    price, shares = (bars[name].to_numpy("float64") for name in ("price_factor", "share_factor"))
    result = bars.assign(volume=bars["volume"] / shares)
    result[PRICES] = bars[PRICES].mul(price, axis=0)
    return result


def _runs(symbol: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Where each symbol's run of rows starts, with the end behind them; and the run of each row."""
    starts = (symbol != symbol.shift()).to_numpy(bool, na_value=True)
    starts[:1] = True
    return np.append(np.flatnonzero(starts), len(starts)), np.cumsum(starts) - 1
