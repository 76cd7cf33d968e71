"""Raw bars by symbol, some at a time."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pitwise.bars.schema import in_order

GROUP = 1_000_000
"""Bars judged at a time, more or less: what they need lies in memory."""


def by_symbol(raw: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows by symbol and date, about `GROUP` at a time; the index is the row in `raw`."""
    raw = sorted_by_symbol(raw)
    codes = raw["symbol"].cat.codes.to_numpy()
    begins = np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)
    begins = begins[np.unique(begins // GROUP, return_index=True)[1]]
    for start, end in zip(begins, np.append(begins[1:], len(raw)), strict=True):
        yield raw.iloc[start:end]


def sorted_by_symbol(raw: pd.DataFrame) -> pd.DataFrame:
    """The rows by symbol and date, the symbol a category; the index is the row in `raw`."""
    symbol = raw["symbol"].astype("category")
    symbol = symbol.cat.reorder_categories(symbol.cat.categories.sort_values())
    raw = raw.reset_index(drop=True)
    raw["symbol"] = symbol.array
    codes, dates = raw["symbol"].cat.codes.to_numpy(), raw["date"].to_numpy()
    ahead = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (dates[1:] >= dates[:-1]))
    if not ahead.all() or (codes < 0).any():
        raw = in_order(raw)
    return raw


def first_of_session(bars: pd.DataFrame) -> np.ndarray:
    """True where a row is the first of its symbol's session; (n,) bool. Rows as of `by_symbol`."""
    codes, dates = bars["symbol"].cat.codes.to_numpy(), bars["date"].to_numpy()
    return np.append(True, (codes[1:] != codes[:-1]) | (dates[1:] != dates[:-1]))[: len(bars)]


def those(bars: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """The rows where `wanted` ((n,) bool) is true: millions are not copied where it is all of them."""
    return bars if wanted.all() else bars[wanted]
