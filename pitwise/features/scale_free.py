"""Feature values free of a stock's price level and share count, as every model takes them."""

from types import ModuleType
from typing import Any

import numpy as np

from pitwise.features.indicators import Unit


def scale_free(values: Any, unit: Unit, close: Any, library: ModuleType = np) -> Any:
    """Values of one unit, free of the price level.

    A price becomes its log relative to the close, a price change a fraction of it, a share count its
    log. A share count still has the level of its stock: the caller takes the mean over its window away.

    Args:
        values: numpy arrays or torch tensors, raw.
        close: the last close of each window, which broadcasts to the values; US dollars.
        library: `numpy` or `torch`, whose arrays these are.
    """
    if unit == "price":
        return library.log(values / close)
    if unit == "price_change":
        return values / close
    if unit == "shares":
        return library.log1p(values)
    return values
