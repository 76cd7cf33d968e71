"""Moves too large for their session: what each is, and from which bar on that stands.

A move is held against the stock's ordinary day and against how far and how wide the market moved in that
session (`Market.scale`), so that a crash is no event of its stocks. Its own bar tells what it may be, as
`pitwise.cleaning.kinds` has it. The bars after it settle it:

- A price that the next session takes back, with ordinary volume in both, was never traded: a bad print.
- A whole bar off by a power of ten is an error of scale if it goes back within a few bars, else a split.
- What fell before the open is a distribution or news also by how much the next session trades.
- Anything else is what it seemed to be once the next session has not taken it back; at once if so many
  shares were traded that it cannot be a bad print.

Two more bad prints have no move of their own: a high or low far beyond what was ever traded, and a
history that begins on next to no volume, before the shares are out, until regular trading moves it.

All is told from a fixed number of bars before the row and a few after it. In a market of fewer than
`MARKET_SYMBOLS` symbols the market's move stays in each stock's, and volume is held against the stock's
own alone; from `FEW_SYMBOLS` on a crash is still known as one.
"""

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.cleaning.events import EVIDENCE
from pitwise.cleaning.kinds import PANIC, SMALLEST_FALL, Measures, may_be_spin_off, told
from pitwise.cleaning.neighbours import (
    FEW_BARS,
    LONG_WICK,
    LONGEST_ABSENCE,
    NOISE_BARS,
    SMALLEST_NOISE,
    USUAL_BARS,
    Market,
    Neighbours,
)
from pitwise.stage import Params

SCALES = np.log([10, 100, 1000])
"""A currency or decimal point mistaken: pence for pounds, cents for dollars."""
NEAR_SCALE = 0.3
"""Log distance from a power of ten that the stock's own moves of those days explain."""
NOT_PAID = np.log(10) / 2
"""Log turnover off its usual from which a price wrong by a power of ten shows in the dollars traded."""
LEFT, LEFT_DAYS = 0.3, 2
"""What the next session may leave of a bad print: that share of it, or so many ordinary days' moves."""
CALM_SHARES = 0.2
"""Log of shares over usual below which news is so odd that a bad print is suspected first."""
WICK_DAYS, RANGE = 20, 1.6
"""A high or low beyond `LONG_WICK` that cannot be, in ordinary days, which a session's range is 1.6
times of (Parkinson 1980). Shorter ones that look odd mostly stand on another vendor's tape."""
PANIC_WICKS = 0.02
"""Share of the symbols with a long wick from which they were traded, though the close knows nothing."""
THIN, REGULAR = 8, 3
"""Shares of each of the first regular sessions over the most before, and how many show it."""
YOUNG = 10
"""Bars with fewer of which a stock has not shown what an ordinary night of it is."""
WIDE = 2.0
"""`Market.scale` from which a fall that is not odd is no distribution: many stocks have one then."""
SURE = {"bad_print": 0.95, "scale_error": 0.99}
"""The kinds that are set aside, and the share of these verdicts that is right."""
SUSPECTED = 0.5
"""Confidence in them before they are settled."""

STATE = ["row", "kind", "suspected", "settled", "sessions", "price_ratio", "confidence"]


class MoveParams(Params):
    min_move: float = Field(gt=0)
    min_noise: float = Field(gt=0)
    max_volume_ratio: float = Field(gt=1)
    longest_scale_error: int = Field(ge=1)


def moves(
    n: Neighbours, market: Market, params: MoveParams, adjusted: np.ndarray | bool = False
) -> pd.DataFrame:
    """Every move too large for its session.

    Args:
        n: bars on one basis as far as splits are known, without those known not to have been traded.
        adjusted: (n,) bool, or of all bars: a vendor who knows most splits and distributions has taken
            them out of the prices.

    Returns:
        (m,) by row:
        `row` in the bars;
        `kind`: bad_print | scale_error | split | spin_off | jump;
        `suspected`: the kind as told at the bar's own close, empty where nothing was odd then;
        `settled`: how many bars of the symbol later the kind stands; -1 where they have not come, and
        the kind is the suspected one;
        `sessions`: bars to set aside, from `row` on, of bad prints and errors of scale, else 1;
        `price_ratio`: of a split its plain ratio, else close over close before, the market's move out;
        `confidence`: 0 to 1, of the kind;
        and the evidence (float64, NaN where not known): `move`, log, beyond the market's; `move_noise`
        in the stock's ordinary days and `move_peers` in the session's spread; `overnight`, the part of
        the move; `dollar_volume` and `shares` over their usual, as the market's were over theirs;
        `range` over its usual; `close_before`, `close`, `close_after`, `high`, `low` in dollars.
    """
    adjusted = np.broadcast_to(adjusted, len(n.close))
    move = n.beyond(market)
    with np.errstate(invalid="ignore"):
        fell = (n.gap - market.one("gap", n.session) < -SMALLEST_FALL) & (move < 0)
        rows = np.flatnonzero(((np.abs(move) > params.min_move) | fell) & (n.step < LONGEST_ABSENCE))
    before = rows - 1
    while True:
        m = _measures(n, market, move, rows, before)
        found = _settled(n, market, move, m, params, adjusted)
        # The bar after a run that is set aside is held against the bar before the run.
        bad = found["odd"] & found["kind"].isin(list(SURE)) & (found["settled"] > 0)
        after = dict(zip((m.row + found["sessions"])[bad], before[bad], strict=True))
        again = np.array([after.get(row, row - 1) for row in rows.tolist()], dtype=int)
        if (again == before).all():
            break
        before = again  # each time it is right of one more row at least: a verdict needs those before it
    found = found[found["odd"]]
    more = [_wicks(n, market, move, params), _thin_starts(n, move, rows)]
    found = pd.concat([found, *(part for part in more if len(part))])
    found = found.drop_duplicates("row").sort_values("row", ignore_index=True)
    return found[[*STATE, *EVIDENCE]]


def _measures(
    n: Neighbours, market: Market, move: np.ndarray, rows: np.ndarray, before: np.ndarray
) -> Measures:
    """Of the bars in `rows`, each held against the bar in `before`."""
    there = market.at(n.session[rows])
    moved = move[rows]
    for i in np.flatnonzero(before < rows - 1):
        sessions = np.arange(n.session[before[i]] + 1, n.session[rows[i]] + 1)
        moved[i] = np.log(n.close[rows[i]] / n.close[before[i]]) - market.at(sessions).move.sum()
    return Measures(
        row=rows,
        before=before,
        step=n.session[rows] - n.session[before],
        move=moved,
        gap=np.log(n.open[rows] / n.close[before]),
        range=n.range[rows],
        day=n.usual_noise(rows, move) * there.scale,
        market=there,
        turnover=n.turnover[rows] - there.turnover,
        shares=n.shares[rows] - there.turnover,
    )


def _settled(
    n: Neighbours,
    market: Market,
    move: np.ndarray,
    m: Measures,
    params: MoveParams,
    adjusted: np.ndarray,
) -> pd.DataFrame:
    """The verdict on each move, as `moves` returns it, and whether it is `odd` at all."""
    least = np.maximum(params.min_move, params.min_noise * m.day)
    odd = np.abs(m.move) > least
    followed, taken_back, opens_back, shares_after = _next_bar(n, market, move, m, least, params)
    seemed = told(m, least, adjusted[m.row])
    since = told(m, least, adjusted[m.row], shares_after)
    ordinary = ~(m.shares > np.log(params.max_volume_ratio))
    off = _off_by_scale(m)
    back_after, all_came = _back_after(n, m, params.longest_scale_error)
    # What people did trade at stands at once, unless the next session may tell another kind of it.
    at_once = ~ordinary & (seemed.kind != "split") & ~may_be_spin_off(m, adjusted[m.row])

    mistaken = off & (back_after > 0)
    settled = np.select(
        [mistaken, off & all_came, off, at_once, followed],
        [back_after, params.longest_scale_error, -1, 0, 1],
        -1,
    )
    never_traded = taken_back & ordinary & ~off
    there_again = taken_back | (opens_back & (since.kind == "spin_off"))
    kind = np.select(
        [mistaken, never_traded, there_again], ["scale_error", "bad_print", "jump"], since.kind
    )
    suspected = np.select(
        [off & (np.abs(m.turnover) > NOT_PAID), (seemed.kind == "jump") & (m.shares < CALM_SHARES)],
        ["scale_error", "bad_print"],
        seemed.kind,
    )
    suspected = np.where(settled == 0, kind, suspected)
    small = ~odd & _falls_overnight(n, market, m, params)
    suspected = np.where(odd | (small & (seemed.kind == "spin_off")), suspected, "")
    kind = np.where(settled < 0, suspected, kind)
    sure = pd.Series(kind).map(SURE).to_numpy("float64")
    confidence = np.where(settled < 1, seemed.confidence, since.confidence)
    confidence = np.where(np.isnan(sure), confidence, np.where(settled < 0, SUSPECTED, sure))
    return pd.DataFrame(
        {
            "row": m.row,
            "kind": kind,
            "suspected": suspected,
            "settled": settled,
            "sessions": np.where(kind == "scale_error", np.maximum(back_after, 1), 1),
            "price_ratio": np.where(kind == "split", seemed.ratio, np.exp(m.move)),
            "confidence": confidence,
            "odd": odd | (small & ((suspected == "spin_off") | (kind == "spin_off"))),
            **evidence_of(n, m),
        }
    )


def _falls_overnight(n: Neighbours, market: Market, m: Measures, params: MoveParams) -> np.ndarray:
    """Whether a bar opens so low, for an ordinary night, that it may be a distribution though the day's
    move is not odd; (m,) bool."""
    night = np.abs(n.gap - market.one("gap", n.session))
    usual = 1.4826 * n.median(night, m.row, range(-NOISE_BARS, 0)) * m.market.scale
    shown = (n.age[m.row] >= YOUNG) & (m.market.scale < WIDE)
    return np.asarray(shown & (m.fall > params.min_noise * usual))


def _next_bar(
    n: Neighbours,
    market: Market,
    move: np.ndarray,
    m: Measures,
    least: np.ndarray,
    params: MoveParams,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the next bar says of each move; (m,) each.

    Returns:
        whether there is one; whether it takes the move back, on ordinary volume; whether it opens nearer
        to the price before a fall than to the one after; and its shares, as `Measures.shares`.
    """
    after = np.minimum(m.row + 1, len(n.close) - 1)
    followed = (after > m.row) & (n.run[after] == n.run[m.row])
    back = np.where(followed, move[after], 0.0)
    depth = np.minimum(np.abs(m.move), np.abs(back))
    # By the next close or, if that is nearer, by the next open.
    left = np.minimum(np.abs(m.move + back), np.abs(np.log(n.open[after] / n.close[m.before])))
    shares = np.where(followed, n.shares[after] - market.at(n.session[after]).turnover, np.nan)
    ordinary = ~(shares > np.log(params.max_volume_ratio))
    enough = left < np.maximum(LEFT * depth, LEFT_DAYS * m.day)
    taken_back = followed & ordinary & (m.move * back < 0) & (depth > least) & enough
    opens_back = followed & (np.log(n.open[after] / n.close[m.before]) > -m.fall / 2)
    return followed, np.asarray(taken_back), opens_back, shares


def _off_by_scale(m: Measures) -> np.ndarray:
    """Whether the whole bar is off by a power of ten; (m,) bool."""
    off = np.abs([np.abs(x)[:, None] - SCALES for x in (m.gap, m.move)])
    return np.asarray((off < NEAR_SCALE).any(axis=2).all(axis=0))


def _back_after(n: Neighbours, m: Measures, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Bars until the price is where it was, 0 if it is not by `longest`; and whether those have come."""
    later = n.around(n.close, m.row, range(1, longest + 1))
    same = np.abs(np.log(later / n.close[m.before][:, None])) < NEAR_SCALE
    return np.where(same.any(axis=1), same.argmax(axis=1) + 1, 0), ~np.isnan(later[:, -1])


def _wicks(n: Neighbours, market: Market, move: np.ndarray, params: MoveParams) -> pd.DataFrame:
    """Bars whose high or low alone cannot have been traded: told at their own close."""
    wick = n.wick
    rows = np.flatnonzero((wick > LONG_WICK) & (n.step < LONGEST_ABSENCE))
    m = _measures(n, market, move, rows, rows - 1)
    day = np.fmax(n.median(n.range, rows, range(-USUAL_BARS, 0)) / RANGE, SMALLEST_NOISE)
    odd = (wick[rows] > WICK_DAYS * day * m.market.scale) & ~(m.market.reach >= PANIC)
    odd &= m.market.wicks < PANIC_WICKS
    odd &= ~(m.shares > np.log(params.max_volume_ratio))
    return _bad_prints(m.row, 1, 0, "bad_print", np.exp(m.move), evidence_of(n, m))[odd]


def _thin_starts(n: Neighbours, move: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """Histories that begin with sessions before the regular trading, told by the move that ends them."""
    rows = rows[n.age[rows] < FEW_BARS]
    before = n.around(n.volume, rows, range(-FEW_BARS, 0))
    most = np.where(np.isnan(before), 0.0, before).max(axis=1, initial=0)
    regular = n.around(n.volume, rows, range(REGULAR)).min(axis=1)
    with np.errstate(invalid="ignore"):
        rows, most, regular = (x[regular > THIN * most] for x in (rows, most, regular))
    evidence = dict.fromkeys(EVIDENCE, np.full(len(rows), np.nan)) | {
        "move": move[rows],
        "shares": most / regular,
        "close": n.close[rows - 1],
        "close_after": n.close[rows],
    }
    age = n.age[rows]
    return _bad_prints(rows - age, age, age + REGULAR - 1, "", np.nan, evidence)


def _bad_prints(
    row: np.ndarray,
    sessions: np.ndarray | int,
    settled: np.ndarray | int,
    suspected: str,
    price_ratio: np.ndarray | float,
    evidence: dict[str, np.ndarray],
) -> pd.DataFrame:
    verdict = {
        "row": row,
        "kind": "bad_print",
        "suspected": suspected,
        "settled": settled,
        "sessions": sessions,
        "price_ratio": price_ratio,
        "confidence": SURE["bad_print"],
    }
    return pd.DataFrame({**verdict, **evidence})


def evidence_of(n: Neighbours, m: Measures) -> dict[str, np.ndarray]:
    usual = n.median(n.range, m.row, range(-USUAL_BARS, 0))
    return {
        "move": m.move,
        "move_noise": np.abs(m.move) / m.day,
        "move_peers": np.abs(m.move) / np.where(m.market.spread > 0, m.market.spread, np.nan),
        "overnight": m.overnight,
        "dollar_volume": np.exp(m.turnover),
        "range": n.range[m.row] / np.where(usual > 0, usual, np.nan),
        "shares": np.exp(m.shares),
        "close_before": n.close[m.before],
        "close": n.close[m.row],
        "close_after": n.around(n.close, m.row, [1])[:, 0],
        "high": n.high[m.row],
        "low": n.low[m.row],
    }
