"""What a vendor's adjusted close says happened between two bars, checked against the traded prices.

Adjusted close over close is a level. Where it steps from one bar to the next, the vendor took a dividend
or a split out of the past, or one of the two closes is wrong. A step is judged by bars up to its own:

- the close does not show it: the vendor is wrong (`bad_adjustment`), and the step is left out;
- the close shows it, the open does not: the close is wrong (`bad_close`), as the adjusted close is not;
- it counts shares by a plain ratio, 2:1 or 3:2: a split;
- it takes a part of the price away by no plain ratio: a distribution, which moves no share count;
- it adds to the price by no plain ratio: again a wrong close, for nothing is paid in.

A ratio that is rare among splits, such as 5:4, may be a distribution of 20% as well. Then the day's
dollar volume decides: a split is an ordinary day, and on a large distribution people trade.

What bars up to then cannot tell: a whole bar wrong by a plain ratio is a split until the next bar takes
it back, and so is a distribution of just a half of the price.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.basis import on_last_basis
from pitwise.bars.schema import ADJUSTED_CLOSE
from pitwise.cleaning.corporate_actions import RATIOS
from pitwise.cleaning.neighbours import Neighbours

PLAIN = 0.01
"""Log distance from a plain ratio that a dividend of the same day explains."""
HALF_CENT, COARSEST = 0.005, 0.05
"""What an adjusted close may be rounded by, in dollars, and the largest log error granted for it."""
SAME = 0.05
"""Log difference up to which one step takes another back."""
BACK = 5
"""Bars within which a wrong close is right again."""
RARE = 1
"""Splits less common than this beside the others (`RATIOS`) have to show it in the day's trading."""
BUSY = 2.0
"""Dollar volume over its usual from which a step by a rare ratio is a distribution."""
EXACT = 1e-12
"""A step nearer to 1 than this is what dividing two numbers leaves."""


class Steps(NamedTuple):
    """From the bar before to each bar; (n,) float64 each, 1 at a symbol's first bar."""

    price: np.ndarray
    """What the price factor is multiplied by."""
    shares: np.ndarray
    """What the share factor is multiplied by: new shares for old."""


def cumulative(steps: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(n,) the product of each symbol's steps up to each bar; `run` numbers the symbols."""
    if (steps == 1).all():
        return np.ones(len(steps))
    return pd.Series(steps).groupby(run).cumprod().to_numpy()


def vendor_steps(
    bars: pd.DataFrame, split_step: float, hindsight: bool = False
) -> tuple[Steps, pd.DataFrame]:
    """The steps that are believed, and an event for each one too large for a dividend.

    Args:
        bars: traded, sorted by symbol and date; without `adj_close` no step is known.
        split_step: ratio above 1 from which, or from its inverse, a step is judged at all; a smaller
            one is a dividend.
        hindsight: a step that is taken back within `BACK` bars was a wrong close.

    Returns:
        the steps, and (m,) `row` of the first bar after it, `kind` (split | distribution |
        bad_adjustment | bad_close), `price_ratio`, `evidence`.
    """
    price, shares = np.ones(len(bars)), np.ones(len(bars))
    if ADJUSTED_CLOSE not in bars:
        return Steps(price, shares), _events([])
    n = Neighbours(bars)
    adjusted = bars[ADJUSTED_CLOSE].to_numpy("float64")
    level = adjusted / n.close
    price = np.where(n.first, 1.0, level / n.before(level))
    price[np.abs(price - 1) < EXACT] = 1.0
    rows = np.flatnonzero(np.abs(np.log(price)) > np.log(split_step) - PLAIN)
    step = np.log(price[rows])
    shown = {
        "close": np.abs(n.log_return[rows] + step) <= 0.5 * np.abs(step),
        "open": np.abs(n.gap[rows] + step) <= 0.5 * np.abs(step),
    }
    plain, rare = _plain(step, 1 / adjusted[rows] + 1 / adjusted[rows - 1])
    plain &= ~rare | ~_busy(n, rows)
    # The next judged step, or the one before, takes this one back.
    returns = np.zeros(len(rows), bool)
    if len(rows):
        near = (np.diff(rows) <= BACK) & (n.run[rows][1:] == n.run[rows][:-1])
        returns[1:] = near & (np.abs(step[1:] + step[:-1]) < SAME) & shown["close"][1:]

    found: list[tuple[int, str, float]] = []
    kind = ""
    for i, row in enumerate(rows.tolist()):
        if returns[i] and kind in ("split", "distribution", "bad_close"):
            if kind == "bad_close":
                price[row] = np.exp(step[i] + step[i - 1])
            else:
                found.append((row, kind, step[i]))
                shares[row] = np.exp(step[i]) if kind == "split" else 1.0
            kind = ""
            continue
        kind = _kind(
            step[i],
            shown["close"][i],
            shown["open"][i] and not (hindsight and returns[i + 1 : i + 2].any()),
            plain[i],
        )
        found.append((row, kind, step[i]))
        if kind == "split":
            shares[row] = price[row]
        elif kind != "distribution":
            price[row] = 1.0
    return Steps(price, shares), _events(found)


def _kind(step: float, close_shows: bool, open_shows: bool, plain: bool) -> str:
    if not close_shows:
        return "bad_adjustment"
    if not open_shows:
        return "bad_close"
    if plain:
        return "split"
    return "distribution" if step > 0 else "bad_close"


def _plain(step: np.ndarray, cents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each log step is a plain ratio of shares, and whether only a rare one; (m,) bool each."""
    rounding = np.minimum(PLAIN + HALF_CENT * cents, COARSEST)
    named = np.log([new / old for new, old in RATIOS])
    near = np.abs(step[:, None] - named) <= rounding[:, None]
    common = near[:, np.array(list(RATIOS.values())) >= RARE].any(axis=1)
    # Any whole number of shares for one, or of one for so many.
    whole = np.exp(np.abs(step))
    common |= (whole > 1.5) & (np.abs(np.log(whole / np.maximum(np.round(whole), 2))) <= rounding)
    return near.any(axis=1) | common, ~common


def _busy(n: Neighbours, rows: np.ndarray) -> np.ndarray:
    """Whether far more dollars than usual were traded in a session, by the 20 before it; (m,) bool."""
    turnover = n.close * n.volume
    with np.errstate(invalid="ignore"):
        return turnover[rows] > BUSY * n.median(turnover, rows, range(-20, 0))


def _events(found: list[tuple[int, str, float]]) -> pd.DataFrame:
    counts = "the adjusted close counts {:.4g} shares for one here, "
    texts = {
        "split": counts + "and the traded price moves with it",
        "bad_adjustment": counts + "but the traded price does not: left out",
        "distribution": "the adjusted close takes {1:.1%} out of the price here, and it shows",
        "bad_close": "the close moves to {2:.4g} times the one before, and the adjusted close does not",
    }
    kinds = [kind for _, kind, _ in found]
    factors = np.exp([step for *_, step in found])
    return pd.DataFrame(
        {
            "row": np.array([row for row, *_ in found], dtype=int),
            "kind": np.array(kinds, dtype=object),
            "price_ratio": 1 / factors,
            "evidence": np.array(
                [texts[k].format(f, 1 - 1 / f, 1 / f) for k, f in zip(kinds, factors, strict=True)],
                dtype=object,
            ),
        }
    )


def with_factors(bars: pd.DataFrame, steps: Steps, run: np.ndarray) -> pd.DataFrame:
    """The bars with `price_factor` and `share_factor`, each symbol's product of its steps so far."""
    return bars.assign(
        price_factor=cumulative(steps.price, run), share_factor=cumulative(steps.shares, run)
    )


def adjusted(bars: pd.DataFrame, split_step: float, hindsight: bool = False) -> pd.DataFrame:
    """Bars on the basis of each symbol's last, by what is believed of the adjusted close."""
    steps, _ = vendor_steps(bars, split_step, hindsight)
    return on_last_basis(with_factors(bars, steps, Neighbours(bars).run))
