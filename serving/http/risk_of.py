"""The risk of a portfolio, told in a process of its own: a reader has no second to spare, and no arch.

Only what the request needs to name it is imported here; a worker process of the reader does the rest.
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pitwise.decisions.holdings import Market

NICENESS = 5
"""Of the worker: readers go first."""
FIELD = {"weight": "weights", "shares": "holdings"}
"""Of the request."""


def risk_in_worker(
    root: str, held: dict[str, float], kind: Literal["weight", "shares"], value: float
) -> bytes:
    """`risk_of`, in a process that does nothing else."""
    os.nice(max(0, NICENESS - os.nice(0)))
    return risk_of(root, held, kind, value)


def risk_of(root: str, held: dict[str, float], kind: Literal["weight", "shares"], value: float) -> bytes:
    """`pitwise.decisions.risk.risk_report` of a portfolio, JSON.

    Args:
        root: of the workspace, whose clean bars it is of.
        held: by symbol; below 0 is short.
        value: in US dollars, of weights; shares are worth their last close.

    Raises:
        DataError: the portfolio is none whose risk can be told; the message says why.
        StoreError: the workspace has no bars, or arch is not installed.
    """
    import pandas as pd

    from pitwise.decisions.holdings import weights_of
    from pitwise.decisions.risk import risk_report
    from pitwise.errors import DataError, StoreError
    from pitwise.workspace import Workspace

    try:
        changed = Workspace(root).clean_bars.stat().st_mtime_ns
        market = _market(root, changed)
    except (DataError, OSError) as error:
        raise StoreError(str(error)) from error
    amounts = pd.Series(held, dtype=float).rename_axis("symbol")
    weights, worth = weights_of(amounts, kind, market.close, FIELD[kind])
    report = risk_report(market.returns, weights, worth or value)
    return json.dumps(report, allow_nan=False).encode()


@lru_cache(maxsize=1)
def _market(root: str, changed: int) -> "Market":
    """The market of a workspace's clean bars, read once for each time that they change."""
    from pitwise.decisions.holdings import market
    from pitwise.workspace import Workspace

    return market(Workspace(Path(root)))
