"""Back-tested portfolios by session, at costs of which one is less sure."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Track:
    """One portfolio by session, as shares of its equity before; (n,) each."""

    day: Array
    """datetime64[D]"""
    ret: Array
    """Simple return, costs out."""
    cost: Array
    impact: Array
    """Of the cost, what its own trades moved the price by."""
    traded: Array
    """Bought and sold."""

    def until(self, day: str) -> "Track":
        kept = self.day <= np.datetime64(day, "D")
        return Track(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))

    def at_costs(self, multiple: float) -> Array:
        """(n,) returns, had all costs been so many times what they were, its trades the same.

        Trades are shares of the equity, and impact grows with the root of the dollars traded: of another
        equity it is another share. The backtest itself, run anew, differs in the second order.
        """
        found = np.empty(len(self.ret))
        equity = usual = 1.0
        fixed_cost = self.cost - self.impact
        for i, (ret, cost, rest, impact) in enumerate(
            zip(self.ret, self.cost, fixed_cost, self.impact, strict=True)
        ):
            paid = rest + impact * np.sqrt(max(equity, 0.0) / usual)
            found[i] = ret + cost - multiple * paid
            equity *= 1 + found[i]
            usual *= 1 + ret
        return found


def tracks(path: Path) -> dict[str, Track]:
    """By portfolio what `data/evaluation/backtest.parquet` has of it."""
    import pyarrow.parquet as pq

    names = ["ret", "cost", "impact", "traded"]
    table = pq.read_table(path, columns=["portfolio", "date", *names])
    portfolio = np.array(table["portfolio"].to_pylist())
    day = table["date"].to_numpy().astype("datetime64[D]")
    columns = [day, *(table[name].to_numpy() for name in names)]
    found = {}
    for name in dict.fromkeys(portfolio.tolist()):
        rows = np.flatnonzero(portfolio == name)
        rows = rows[np.argsort(day[rows], kind="stable")]
        found[name] = Track(*(column[rows] for column in columns))
    return found
