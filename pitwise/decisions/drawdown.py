"""How far a portfolio fell from its peak, and how long it stayed below it."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Drawdown:
    """The deepest fall, and the times under water; sessions are counted, not days."""

    depth: float
    """The value at the trough over the peak's, minus 1: 0 or below."""
    peak: str | None
    """Session of the peak before the trough, None where it is the start of the history."""
    trough: str | None
    recovered: str | None
    """First session at or above the peak again; None where there is none yet."""
    longest_under_water: int
    """The most sessions in a row below an earlier peak."""
    under_water_now: int
    """Sessions in a row below the peak at the end; 0 at a peak."""
    now: float
    """The last value over the highest one, minus 1."""


def drawdowns(returns: pd.Series) -> pd.Series:
    """Value over the highest value so far, minus 1; the start of the history counts as a value of 1."""
    value = np.cumprod(1 + returns.to_numpy(float))
    return pd.Series(value / np.maximum(np.maximum.accumulate(value), 1) - 1, index=returns.index)


def maximum_drawdown(returns: pd.Series) -> Drawdown:
    """The deepest drawdown of simple returns, oldest first; their index is the sessions."""
    below = drawdowns(returns)
    values = below.to_numpy()
    under = values < 0
    # Sessions in a row under water: the distance to the last session that was not.
    at = np.arange(len(under))
    runs = at - np.maximum.accumulate(np.where(under, -1, at))
    deepest = int(values.argmin())
    fell = bool(under[deepest])
    peak = deepest - int(runs[deepest])
    after = np.flatnonzero(~under[deepest:])
    return Drawdown(
        depth=float(values[deepest]),
        peak=_day(below.index[peak]) if fell and peak >= 0 else None,
        trough=_day(below.index[deepest]) if fell else None,
        recovered=_day(below.index[deepest + after[0]]) if fell and len(after) else None,
        longest_under_water=int(runs.max()),
        under_water_now=int(runs[-1]),
        now=float(values[-1]),
    )


def deepest(returns: pd.Series, n: int) -> pd.DataFrame:
    """The deepest falls from one high to the next, the deepest first, at most n of them.

    Args:
        returns: simple ones, oldest first, by session.

    Returns:
        `depth` (below 0), `peak` (the session of the high; NaT where it is the start), `trough`,
        `recovered` (NaT where it is not yet), `sessions` below the high, up to the recovery.
    """
    below = drawdowns(returns)
    under = below.to_numpy() < 0
    fall = np.cumsum(np.diff(under, prepend=False) & under)  # the number of the fall a session is in
    days = below.index
    rows = []
    for _, at in pd.Series(np.arange(len(under)))[under].groupby(fall[under]):
        first, last = at.iloc[0], at.iloc[-1]
        rows.append(
            {
                "depth": below.iloc[first : last + 1].min(),
                "peak": days[first - 1] if first else pd.NaT,
                "trough": below.iloc[first : last + 1].idxmin(),
                "recovered": days[last + 1] if last + 1 < len(days) else pd.NaT,
                "sessions": len(at),
            }
        )
    columns = ["depth", "peak", "trough", "recovered", "sessions"]
    return pd.DataFrame(rows, columns=columns).sort_values("depth", ignore_index=True).head(n)


def as_dict(found: Drawdown) -> dict[str, float | int | str | None]:
    """The same, for a document."""
    return asdict(found)


def _day(session: object) -> str:
    return str(pd.Timestamp(session).date()) if isinstance(session, pd.Timestamp) else str(session)
