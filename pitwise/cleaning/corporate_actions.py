"""Corporate actions inferred from prices and volumes alone: splits, spin-offs, true jumps, absences.

Nobody files a split with a CSV. What can be seen is the bar: a split changes the price overnight by
a plain ratio and the share count by its inverse, and nobody trades more for it. A spin-off or a
special dividend takes a part of the price away overnight, by no plain ratio, and trading is a
little livelier. Earnings move the price too, but on several times the dollar volume, in a wide
range, and partly within the session.

Each kind has its expectations of five such measures (`EXPECTED`); the kind under which the measures
are likeliest, weighed by how common it is, names the event. The numbers are rounded from the moves
of more than 15% in the S&P 500's bars of 2014 to 2017, whose causes are public.
"""

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.cleaning.neighbours import Neighbours
from pitwise.stage import Params

RATIOS = {
    **{(m, 1): w for m, w in {2: 40, 3: 12, 4: 8, 5: 5, 6: 1, 7: 2, 8: 1, 10: 5, 15: 1, 20: 3}.items()},
    **{(25, 1): 1, (30, 1): 1, (50, 1): 1, (3, 2): 12, (4, 3): 0.3, (5, 2): 1, (5, 4): 0.3},
    **{(1, n): 2 for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 50, 100)},
}
"""New shares for old, and how common that split is beside the others."""

# day_turnover: log dollar volume of the day over the 20 before. later_shares: log shares of the days 3
# to 12 after over the 20 before. overnight: share of the move. range: log high-low range over the 20
# before.
EXPECTED = {
    "split": {"day_turnover": (0.1, 0.45), "overnight": (1.0, 0.15), "range": (0.1, 0.45)},
    "spin_off": {
        "day_turnover": (0.75, 0.45),
        "later_shares": (0.25, 0.35),
        "overnight": (0.97, 0.14),
        "range": (0.9, 0.5),
    },
    "jump": {
        "day_turnover": (1.8, 0.55),
        "later_shares": (0.27, 0.4),
        "overnight": (0.68, 0.33),
        "range": (1.2, 0.5),
    },
}
"""Mean and deviation of each measure in the S&P 500's moves of known cause; a split's are those of
an ordinary day, and its later shares are expected at its ratio, +- 0.35."""
COMMON = {"split": 0.1, "spin_off": 0.1, "jump": 0.8}
"""How often a move is of a kind. True jumps are commoner still, but to miss a spin-off costs more."""
TAIL = 3
"""Exponent of the tail of true daily returns (Gopikrishnan et al. 1999, the inverse cubic law)."""

EVENT_COLUMNS = ["symbol", "date", "kind", "price_ratio", "sessions", "evidence"]


class ActionParams(Params):
    min_move: float = Field(gt=0)
    min_noise: float = Field(gt=0)
    reuse_sessions: int = Field(ge=2)
    outage_share: float = Field(gt=0, lt=1)


def moves(n: Neighbours, params: ActionParams, adjusted: bool = False) -> pd.DataFrame:
    """Every overnight or daily move too large for noise, and the kind of event it is.

    Args:
        adjusted: the prices are adjusted by a vendor, who will hardly have missed a split.

    Returns:
        (m,) `row` in the bars, `kind` (split | spin_off | jump), `price_ratio` (of a split the
        plain ratio, else the close over the one before, the market's move taken out), `evidence`.
    """
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero((np.abs(n.move) > params.min_move) & (n.step < params.reuse_sessions))
    noise = n.noise(rows)
    large = np.abs(n.move[rows]) > params.min_noise * noise
    rows, noise = rows[large], noise[large]
    move = n.move[rows]

    past = [*range(-20, 0)]
    turnover = n.close * n.volume
    with np.errstate(divide="ignore", invalid="ignore"):
        measures = pd.DataFrame(
            {
                "day_turnover": np.log(turnover[rows] / n.median(turnover, rows, past)),
                "later_shares": np.log(
                    n.median(n.volume, rows, range(3, 13)) / n.median(n.volume, rows, past)
                ),
                "overnight": np.clip(n.gap[rows] / move, -1, 2),
                "range": np.log(n.range[rows] / n.median(n.range, rows, past)),
            }
        ).replace([np.inf, -np.inf], np.nan)

    names = list(RATIOS)
    ratios = np.array([b / a for a, b in names])
    weights = np.log(np.array(list(RATIOS.values())) / sum(RATIOS.values()))
    # How well each plain ratio explains the first price and the shares traded later; the best stands.
    # The night moves a price by about 0.8 of the whole day's noise at most.
    spread = np.maximum(0.8 * noise, 0.008)
    price_fit = _normal(n.gap[rows][:, None], np.log(ratios), spread[:, None], cut=np.inf)
    share_fit = _normal(measures["later_shares"].to_numpy()[:, None] + np.log(ratios), 0, 0.35)
    fit = price_fit + share_fit + weights
    best = fit.argmax(axis=1)

    likelihood = pd.DataFrame(
        {kind: np.log(COMMON[kind]) + _measures_fit(measures, kind) for kind in EXPECTED}
    )
    likelihood["split"] += fit[np.arange(len(rows)), best]
    # A part that leaves takes 5% to 75% of the price, a small one more often than a large one.
    part = (move < -0.05) & (move > -1.4)
    likelihood["spin_off"] += np.where(part, -np.log(np.log(1.4 / 0.05) * np.abs(move)), -np.inf)
    # News moves the price either way; the tail starts where a move of this stock is judged at all.
    least = np.maximum(params.min_move, params.min_noise * noise)
    likelihood["jump"] += np.log(TAIL / (2 * least)) - (TAIL + 1) * np.log(np.abs(move) / least)
    if adjusted:
        likelihood["split"] += np.log(0.01)
    kind = likelihood.idxmax(axis=1).to_numpy(object)
    certainty = 1 / np.exp(likelihood.sub(likelihood.max(axis=1), axis=0)).sum(axis=1)

    plain = [names[i] for i in best]
    evidence = [
        f"{np.expm1(m):+.1%} against the market, {abs(m / s):.0f} times a day's noise; "
        f"{_known_measures(known)}; {_describe_kind(k, p)} ({c:.0%} sure)"
        for m, s, known, k, p, c in zip(
            move, noise, measures.to_numpy(), kind, plain, certainty, strict=True
        )
    ]
    ratio = np.where(kind == "split", ratios[best], np.exp(move))
    return pd.DataFrame({"row": rows, "kind": kind, "price_ratio": ratio, "evidence": evidence})


def lost_sessions(session: np.ndarray, first: np.ndarray, params: ActionParams) -> np.ndarray:
    """By number of a session, how many before it the source lost: many symbols miss them at once.

    Args:
        session: (n,) int, the number of each bar's session, by symbol and date.
        first: (n,) bool, true at a symbol's first bar.
    """
    width = int(session.max(initial=-1)) + 2
    begins, ends = session[first], session[np.roll(first, -1)]
    listed = np.cumsum(np.bincount(begins, minlength=width) - np.bincount(ends + 1, minlength=width))
    missing = listed - np.bincount(session, minlength=width)
    return np.cumsum(np.append(0, missing > np.maximum(params.outage_share * listed, 1)))


def absences(n: Neighbours, params: ActionParams, lost: np.ndarray) -> pd.DataFrame:
    """Runs of sessions that lie between two bars of a symbol and have none.

    A source that lost sessions lost them for many symbols at once, or the price goes on as if
    nothing had been; a halt ends in a move or in heavy trading. After `reuse_sessions` at an unlike
    price or turnover the ticker is another company's.

    Args:
        n: every bar that came, quarantined ones too: what is there is not absent.
        lost: see `lost_sessions`.

    Returns:
        (m,) `row` of the bar after it, `kind` (gap | halt | symbol_reused), `price_ratio`, `sessions`
        missing, `first` (the number of the first missing session; a reused symbol's first bar),
        `evidence`.
    """
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(n.step > 1)
    missing = (n.step[rows] - 1).astype(int)
    # How far a price and its trading drift in that time by themselves, and how far two companies differ.
    drift = n.noise(rows) * np.sqrt(missing + 1)
    move = n.log_return[rows]
    usual = n.median(n.volume, rows, range(-20, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = n.volume[rows] / usual
        level = np.log(n.median(n.volume, rows, range(0, 20)) / usual)
    level = np.where(np.isfinite(level), level, np.nan)
    same = _normal(move, 0, drift) + _normal(level, 0, 0.5)
    other = _normal(move, 0, 1.5) + _normal(level, 0, 1.5)
    at = n.session[rows].astype(int)
    outage = (lost[at] - lost[at - missing]) >= np.maximum(missing / 2, 1)

    kinds, evidence = [], []
    for i, sessions in enumerate(missing):
        text = f"{sessions} session{'s' if sessions > 1 else ''} missing; back"
        if not np.isnan(move[i] + shares[i]):
            text += f" at {np.expm1(move[i]):+.1%} on shares x{shares[i]:.1f}"
        if sessions >= params.reuse_sessions and other[i] > same[i]:
            kinds.append("symbol_reused")
            text += ": price or turnover of another company"
        elif outage[i]:
            kinds.append("gap")
            text += f"; more than {params.outage_share:.0%} of the symbols miss them too"
        elif abs(move[i]) > 4 * drift[i] or shares[i] > 2:
            kinds.append("halt")
            text += ": as after a halt"
        else:
            kinds.append("gap")
            text += ": as if nothing had been"
        evidence.append(text)
    return pd.DataFrame(
        {
            "row": rows,
            "kind": np.array(kinds, dtype=object),
            "price_ratio": np.exp(move),
            "sessions": missing,
            "first": n.session[rows].astype(int)
            - np.where(np.array(kinds) == "symbol_reused", 0, missing),
            "evidence": evidence,
        }
    )


def new_companies(n: Neighbours, params: ActionParams) -> np.ndarray:
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


def _measures_fit(measures: pd.DataFrame, kind: str) -> np.ndarray:
    """Log likelihood of the measures; one that is not known counts for no kind."""
    return sum(
        (_normal(measures[name].to_numpy(), *EXPECTED[kind][name]) for name in EXPECTED[kind]),
        start=np.zeros(len(measures)),
    )


def _normal(
    values: np.ndarray, mean: float | np.ndarray, deviation: float | np.ndarray, cut: float = 4
) -> np.ndarray:
    """Log density; 0 where the value is NaN. Cut at so many deviations: no measure decides alone."""
    score = np.minimum(np.abs((values - mean) / deviation), cut)
    return np.where(np.isnan(score), 0.0, -0.5 * score**2 - np.log(deviation) - 0.919)


def _known_measures(measures: np.ndarray) -> str:
    turnover, shares, overnight, day = measures
    words = {
        f"{overnight:.0%} of it overnight": overnight,
        f"dollar volume x{np.exp(turnover):.1f} that day": turnover,
        f"shares x{np.exp(shares):.1f} later": shares,
        f"range x{np.exp(day):.1f}": day,
    }
    return ", ".join(text for text, value in words.items() if not np.isnan(value))


def _describe_kind(kind: str, ratio: tuple[int, int]) -> str:
    return f"a split {ratio[0]}:{ratio[1]}" if kind == "split" else f"a {kind.replace('_', '-')}"
