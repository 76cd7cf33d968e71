"""Sessions for which a symbol has no bar: halts, gaps of the source, tickers that change hands.

They are judged when the symbol is back, by the bar of that session and those before it.
"""

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.cleaning.neighbours import Neighbours
from pitwise.stage import Params

BEFORE = 5
"""Sessions before one whose symbols it is compared with."""
TOO_FAR = 4
"""Deviations of its own drift that a price does not move while it is away."""
OTHER_TURNOVER = 2.3
"""Log ratio of dollar volumes beyond which they are two companies': tenfold."""
HEAVY = 2.0
"""Shares over their usual on the day after a halt."""


class AbsenceParams(Params):
    reuse_sessions: int = Field(ge=2)
    outage_share: float = Field(gt=0, lt=1)


def lost_sessions(symbols: np.ndarray, params: AbsenceParams) -> np.ndarray:
    """By number of a session, how many up to it the source lost: many symbols miss them at once.

    Args:
        symbols: (m,) how many symbols have a bar, by number of the session.

    Returns:
        (m + 1,) counts of the sessions before each number.
    """
    padded = np.concatenate([np.zeros(BEFORE, symbols.dtype), symbols])
    most = np.lib.stride_tricks.sliding_window_view(padded, BEFORE).max(axis=1)[: len(symbols)]
    lost = most - symbols > np.maximum(params.outage_share * most, 1)
    return np.cumsum(np.append(0, lost))


def absences(n: Neighbours, params: AbsenceParams, lost: np.ndarray) -> pd.DataFrame:
    """Runs of sessions that lie between two bars of a symbol and have none.

    A source that lost sessions lost them for many symbols at once, or the price goes on as before; a
    halt ends in a move or in heavy trading. After `reuse_sessions` at an unlike price or turnover the
    ticker is another company's.

    Args:
        n: every bar that came, quarantined ones too: what is there is not absent.
        lost: see `lost_sessions`.

    Returns:
        (m,) `row` of the bar after it, `kind` (gap | halt | symbol_reused), `price_ratio`, `sessions`
        missing, `first` (the number of the first missing session; a reused symbol's first bar), and the
        evidence.
    """
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(n.step > 1)
    missing = (n.step[rows] - 1).astype(int)
    move = n.log_return[rows]
    drift = n.usual_noise(rows) * np.sqrt(missing + 1)
    past = range(-20, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = n.volume[rows] / n.median(n.volume, rows, past)
        turnover = n.close * n.volume
        dollars = turnover[rows] / n.median(turnover, rows, past)
        moved = np.abs(move) > TOO_FAR * drift
        other = moved | (np.abs(np.log(dollars)) > OTHER_TURNOVER)
    at = np.minimum(n.session[rows].astype(int), len(lost) - 1)
    outage = (lost[at] - lost[at - missing]) >= np.maximum(missing / 2, 1)
    kind = np.select(
        [(missing >= params.reuse_sessions) & other, outage, moved | (shares > HEAVY)],
        ["symbol_reused", "gap", "halt"],
        "gap",
    )
    return pd.DataFrame(
        {
            "row": rows,
            "kind": kind,
            "price_ratio": np.exp(move),
            "sessions": missing,
            "first": n.session[rows].astype(int) - np.where(kind == "symbol_reused", 0, missing),
            "move": move,
            "move_noise": np.abs(move) / (drift / np.sqrt(missing + 1)),
            "dollar_volume": _known(dollars),
            "shares": _known(shares),
            "close_before": n.before(n.close)[rows],
            "close": n.close[rows],
        }
    )


def _known(ratio: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(ratio), ratio, np.nan)


def new_companies(n: Neighbours, params: AbsenceParams) -> np.ndarray:
    """True at a bar after so long an absence that what was before is not joined to it; (n,) bool."""
    with np.errstate(invalid="ignore"):
        return n.step >= params.reuse_sessions


def segments(breaks: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(n,) int32: counts up within a symbol where history must not be joined to what follows.

    Args:
        breaks: (n,) bool, true at the first bar that stands apart.
        first: (n,) bool, true at a symbol's first bar.
    """
    total = np.cumsum(breaks)
    return (total - np.maximum.accumulate(np.where(first, total, 0))).astype("int32")
