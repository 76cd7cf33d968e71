"""Source `sample`: five real stocks that ship in a package; needs no network."""

import pandas as pd

from pitwise.bars.sources.csv_files import typed_bars

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


def sample_bars() -> pd.DataFrame:
    """Five stocks, 2000-2013: prices as traded, with an adjusted close.

    Source: the PyPI package `bokeh-sampledata`.
    """
    from bokeh_sampledata import stocks

    bars = pd.concat(
        [pd.DataFrame(getattr(stocks, s)).assign(symbol=s) for s in SYMBOLS], ignore_index=True
    )
    return typed_bars(bars, "bokeh-sampledata")
