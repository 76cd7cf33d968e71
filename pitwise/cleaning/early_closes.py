"""Distributions that a source has put a session early: its close of the eve stands on the new basis.

A source that takes a distribution out of the close before the ex-date, and leaves the other prices of
that bar as they were traded, has a close outside its own range, which a row check refuses. The step then
stands in no bar. But the refused row is a sign of its own: its close lies below all that was traded by
about the distribution, and the next session begins there. After a close that is merely wrong the next
session is on the old level.
"""

import numpy as np
import pandas as pd

from pitwise.bars.basis import on_first_basis
from pitwise.bars.calendar import session_number
from pitwise.bars.schema import BAR_KEY
from pitwise.cleaning.events import EVIDENCE
from pitwise.cleaning.kinds import LARGEST_PART, PANIC, Measures
from pitwise.cleaning.moves import LEFT_DAYS, STATE, MoveParams, evidence_of
from pitwise.cleaning.neighbours import USUAL_BARS, Market, Neighbours

OUTSIDE = "close_outside_range"
"""The row check that such a row fails."""
NEARER = 0.5
"""Share of the part that left within which a price stands on the new level, and beyond it on the old."""
CONFIDENCE = 0.9
"""By reasoning, for such rows are few: it may be news of the last minutes, with a low that is wrong."""


def with_early_closes(
    found: pd.DataFrame,
    n: Neighbours,
    comparable: pd.DataFrame,
    outside: pd.DataFrame,
    market: Market,
    params: MoveParams,
    adjusted: np.ndarray | bool = False,
) -> pd.DataFrame:
    """The moves, and the spin-offs that rows with a close outside their own range tell of.

    Such a spin-off is told by the bar of the ex-date, and stands with the next one if that has not taken
    it back. It goes before a jump, a spin-off or a suspected bad print that was found in its row.

    Args:
        found: what `pitwise.cleaning.moves.moves` returned.
        n: the (n,) bars that it was told from.
        comparable: these as they were traded, with `price_factor` and `share_factor`.
        outside: rows of complete sessions that fail `OUTSIDE`, as they came; `row` is the bar of `n`
            that comes next, all rows being sorted by symbol and date.
        adjusted: as of `moves`.

    Returns:
        as `moves`.
    """
    if outside.empty:
        return found
    adjusted = np.broadcast_to(adjusted, len(n.close))
    early = _early_closes(n, comparable, outside, market, params, adjusted)
    there = found.set_index("row")[["kind", "suspected", "settled"]].reindex(early["row"])
    known = there["kind"].notna().to_numpy()
    weaker = there["suspected"].isin(["jump", "spin_off"])
    weaker |= (there["suspected"] == "bad_print") & (there["settled"] != 0)
    # What takes it back leaves the kind that the move has without it.
    back = known & (early["kind"] != "spin_off").to_numpy()
    early["kind"] = np.where(back, there["kind"], early["kind"])
    early = early[~known | weaker.to_numpy()]
    if early.empty:
        return found
    found = pd.concat([found[~found["row"].isin(early["row"])], early])
    return found.sort_values("row", ignore_index=True)


def _early_closes(
    n: Neighbours,
    comparable: pd.DataFrame,
    outside: pd.DataFrame,
    market: Market,
    params: MoveParams,
    adjusted: np.ndarray,
) -> pd.DataFrame:
    """The spin-offs that the bars after such rows tell, and as jumps those taken back; as `moves`."""
    # Of two rows of one session nothing says which is right.
    outside = outside.drop_duplicates(BAR_KEY, keep=False)
    outside = outside[outside["row"].between(1, len(n.close) - 1)]
    row, eve = outside["row"].to_numpy(int), session_number(outside["date"])
    # Between two bars of a symbol that come one after the other lies a row of the same symbol.
    between = (n.run[row] == n.run[row - 1]) & (n.session[row - 1] < eve) & (n.session[row] == eve + 1)
    outside, row, eve = outside[between], row[between], eve[between]
    factors = comparable[["price_factor", "share_factor"]].iloc[row - 1].set_axis(outside.index)
    refused = Neighbours(on_first_basis(outside.assign(**factors)))

    move, there, before = n.beyond(market), market.at(n.session[row]), market.at(eve)
    day = n.usual_noise(row, move) * there.scale
    traded = np.sqrt(refused.high * refused.low)  # on the old basis, as near as the row tells
    size = np.log(traded / refused.close)
    opened = np.log(n.open[row] / refused.close)
    closed = np.log(n.close[row] / refused.close) - there.move
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.log(refused.volume / n.median(n.volume, row, range(-USUAL_BARS, 0)))
    part = (size > LEFT_DAYS * day) & (size < LARGEST_PART)
    goes_on = np.abs(opened) < np.minimum(LEFT_DAYS * day, NEARER * size)
    goes_on &= np.abs(closed) < NEARER * size
    # What many people traded at was no restatement, and a panic has no distributions.
    quiet = ~(shares - before.turnover > np.log(params.max_volume_ratio))
    quiet &= ~(np.fmax(there.reach, before.reach) >= PANIC)
    is_early = part & goes_on & quiet & ~adjusted[row]

    later = n.around(move, row, [1])[:, 0]
    m = Measures(
        row=row,
        before=row - 1,
        step=n.session[row] - eve,
        move=np.log(n.close[row] / traded) - there.move,
        gap=np.log(n.open[row] / traded),
        range=n.range[row],
        day=day,
        market=there,
        turnover=n.turnover[row] - there.turnover,
        shares=n.shares[row] - there.turnover,
    )
    verdict = {
        "row": row,
        "kind": np.where(closed + later > NEARER * size, "jump", "spin_off"),
        "suspected": "spin_off",
        "settled": np.where(np.isnan(later), -1, 1),
        "sessions": 1,
        "price_ratio": np.exp(m.move),
        "confidence": CONFIDENCE,
    }
    early = pd.DataFrame(verdict | evidence_of(n, m) | {"close_before": traded})
    return early.loc[is_early, [*STATE, *EVIDENCE]]
