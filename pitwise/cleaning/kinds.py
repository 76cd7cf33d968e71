"""What an odd move is by its own bar: a split, a spin-off, or news.

- A split changes the price by a plain ratio, and no more dollars than usual are traded.
- A spin-off or a special dividend takes a part of the price away before the open, by no plain ratio. No
  one has to find the new price: the session's range is narrow beside the fall, and its trading a little
  livelier than the market's. It stays so in the next session, as holders change for a while.
- News, a jump, moves the price on many times the usual volume, and within a wide range. Then that dies
  down.
"""

from typing import NamedTuple

import numpy as np

from pitwise.cleaning.neighbours import Market

RATIOS = {
    **{(m, 1): w for m, w in {2: 40, 3: 12, 4: 8, 5: 5, 6: 1, 7: 2, 8: 1, 10: 5, 15: 1, 20: 3}.items()},
    **{(25, 1): 1, (30, 1): 1, (50, 1): 1, (3, 2): 12, (4, 3): 0.3, (5, 2): 1, (5, 4): 0.3},
    **{(1, n): 2 for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 50, 100)},
    **{(2, n): 0.5 for n in (3, 5)},
}
"""New shares for old, and how common that split is beside the others."""

SPIN_OFF = {"intercept": -4.87, "turnover": -4.17, "size": 2.40, "range": -3.38, "lasting": 3.70}
"""Log odds of a spin-off against news by the measures of a fall, see `_spin_off_odds`. A logistic
regression (ridge, of weight 1 on standardized measures) on the 684 falls that it can be asked of, among
half of the symbols of the S&P 500's file of 2014 to 2017."""
QUIET, HUGE, NARROW = 0.3, np.log(25), -2.5
"""Log turnover below which less is no further sign, log size above which more is none, and log of range
over fall below which less is none: beyond, there was nothing to learn from."""
LASTING, NOT_KNOWN_YET = (-1.5, 0.0), -0.4
"""Log of the next session's shares over this one's turnover: the least and the most that count, and the
value that stands for it before it is known: in the half that was fitted to, the likeliest."""
SMALLEST_FALL = 0.035
"""Log of the close before over the open, beyond the market's, from which a distribution is told: 4% of
the price, less what a night adds by itself."""
AT_THE_OPEN = (0.5, 2.0)
"""A distribution is taken out before the open: the least and the most of the move that is overnight."""
LARGEST_PART = 1.4
"""Log of the price before over what is left of it: three quarters leave at most."""
SMALLEST_PART = 0.05
PANIC = 3.0
"""`Market.reach` from which no fall is told to be a distribution: the S&P 500 had 2015-08-24 and
2016-06-24 beyond 4, and a crash has little else."""
LIKELY = 0.4
"""Probability from which a fall is called a spin-off: to join a history across one costs more. In the
half that was fitted to, it lies between the likeliest news, 0.32, and the next distribution, 0.45."""

COMMON = {"split": 0.05, "spin_off": 0.1, "jump": 0.85}
"""How often an odd move is of a kind, before it is looked at."""
KNOWN = np.log(0.01)
"""Added to the log odds of what a vendor's adjusted close would show, where it does not."""
TAIL = 3
"""Exponent of the tail of true daily returns (Gopikrishnan et al. 1999, the inverse cubic law)."""
ROUNDING = 0.01
"""Log deviation from a plain ratio of a stock that hardly moves."""
MISFIT = 6
"""Deviations from a plain ratio at which neither the open nor the close may be."""
PAID = 1.6
"""What a unit of log turnover takes from the log odds of a split. The dollars traded are the usual ones
for a split, twice that for a spin-off, and six times for news, each within a factor of 1.6."""
SPLIT_TURNOVER = (-1.0, 0.5, 1.5)
"""Log turnover: the least that counts, that which speaks neither way, and the most that counts."""


class Measures(NamedTuple):
    """Of m bars, each by those before it; (m,) each."""

    row: np.ndarray
    before: np.ndarray
    """The bar before it that stands."""
    step: np.ndarray
    """Sessions since that bar."""
    move: np.ndarray
    """Log return of the close beyond the market's."""
    gap: np.ndarray
    """Log of the open over the close before."""
    range: np.ndarray
    """Log of the high over the low."""
    day: np.ndarray
    """What the stock moves on an ordinary day, the market being as in this session: one deviation."""
    market: Market
    """In each one's session."""
    turnover: np.ndarray
    """Log of the dollar volume over its usual, beyond the market's; NaN where not known."""
    shares: np.ndarray
    """As `turnover`, of the volume."""

    @property
    def size(self) -> np.ndarray:
        """Of the move; never 0, as where the price is back where it was before a bad print."""
        return np.maximum(np.abs(self.move), 1e-9)

    @property
    def overnight(self) -> np.ndarray:
        """The part of the move that came before the open; NaN where there is no move."""
        return self.gap / np.where(self.move == 0, np.nan, self.move)

    @property
    def fall(self) -> np.ndarray:
        """Log of the close before over the open, beyond the market's; never 0."""
        return np.maximum(self.market.gap - self.gap, 1e-9)


class Told(NamedTuple):
    """What m moves are; (m,) each."""

    kind: np.ndarray
    """split | spin_off | jump."""
    confidence: np.ndarray
    """Probability of the kind, as far as the bar itself tells."""
    ratio: np.ndarray
    """The plain ratio of prices that fits best."""


def told(
    m: Measures, least: np.ndarray, adjusted: np.ndarray, shares_after: np.ndarray | float = np.nan
) -> Told:
    """The kind of each move by its own bar, and by how much is traded in the next session.

    Args:
        least: (m,) the smallest move that is odd.
        adjusted: (m,) bool, a vendor who knows most splits and distributions has taken them out of the
            prices.
        shares_after: (m,) `Measures.shares` of each one's next bar, NaN where it is not known.
    """
    known = np.where(adjusted, KNOWN, 0.0)
    odds, ratio = _split_odds(m, least, known)
    split = _probability(odds)
    lasting = shares_after - np.fmax(m.turnover, QUIET)
    lasting = np.clip(np.where(np.isnan(lasting), NOT_KNOWN_YET, lasting), *LASTING)
    spin_off = (1 - split) * _probability(_spin_off_odds(m, lasting) + known)
    kinds = [split > 0.5, spin_off > LIKELY]
    return Told(
        np.select(kinds, ["split", "spin_off"], "jump").astype(object),
        np.select(kinds, [split, spin_off], 1 - split - spin_off),
        ratio,
    )


def may_be_spin_off(m: Measures, adjusted: np.ndarray) -> np.ndarray:
    """Whether the next session may be such that it is told to be one, by `told`; (m,) bool."""
    odds = _spin_off_odds(m, np.full(len(m.row), LASTING[1])) + np.where(adjusted, KNOWN, 0.0)
    return _probability(odds) > LIKELY


def _spin_off_odds(m: Measures, lasting: np.ndarray) -> np.ndarray:
    """Log odds of a spin-off against news; (m,)."""
    c = SPIN_OFF
    odds = c["intercept"] + c["turnover"] * np.fmax(m.turnover, QUIET) + c["lasting"] * lasting
    odds += c["size"] * np.minimum(np.log(m.fall / m.day), HUGE)
    with np.errstate(divide="ignore"):
        odds += c["range"] * np.maximum(np.log(m.range / m.fall), NARROW)
    least, most = AT_THE_OPEN
    # Of a fall over several sessions, the one of its news may be missing.
    possible = (
        _part(m)
        & (m.step == 1)
        & (m.fall > SMALLEST_FALL)
        & (m.overnight > least)
        & (m.overnight < most)
        & ~(m.market.reach >= PANIC)
    )
    return np.where(possible, odds, -np.inf)


def _part(m: Measures) -> np.ndarray:
    return (m.move < 0) & (m.move > -LARGEST_PART)


def _split_odds(m: Measures, least: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log odds of a split against anything else, and the ratio of prices that fits best; (m,) each.

    Args:
        known: (m,) added to the log odds of what a vendor would have taken out.
    """
    ratios = np.array([old / new for new, old in RATIOS])
    common = np.array(list(RATIOS.values())) / sum(RATIOS.values())
    # An ordinary day lies between the close before and this one, less than one to the open.
    deviation = np.maximum(m.day, ROUNDING)[:, None]
    off = np.abs([(x[:, None] - np.log(ratios)) / deviation for x in (m.gap, m.move)])
    fit = np.log(common) - 0.5 * off.min(axis=0) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
    fit = np.where(off.max(axis=0) > MISFIT, -np.inf, fit)
    best = fit.argmax(axis=1)
    split = np.log(COMMON["split"]) + fit[np.arange(len(best)), best]

    size = m.size
    jump = COMMON["jump"] * TAIL / (2 * least) * np.maximum(size / least, 1) ** -(TAIL + 1)
    # A part that leaves is more often small than large.
    part = COMMON["spin_off"] * _part(m) / (np.log(LARGEST_PART / SMALLEST_PART) * size)
    low, neither, high = SPLIT_TURNOVER
    paid = PAID * (np.clip(np.where(np.isnan(m.turnover), neither, m.turnover), low, high) - neither)
    return split + known - np.log(jump + part * np.exp(known)) - paid, ratios[best]


def _probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
