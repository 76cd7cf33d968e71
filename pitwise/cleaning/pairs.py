"""Evidence on two bars with equal prices: is one a copy of the other, and which of them."""

import numpy as np
import pandas as pd

COPY_ODDS = 1e-4
"""That one of two adjacent bars is a copy of the other, before any evidence; less over longer times."""
SYMBOL_ODDS = 0.002
"""What each other symbol with a sure copy between the same two sessions adds to it."""
ROUND_PRICES = 5
"""Times as often as at random that three prices are equal by chance, as people like round ones."""
SURE = 20
"""Odds from which a copy counts for other symbols, which then need less evidence."""
MOST = 4.0
"""Log odds of the direction that a symbol, or all of two sessions, have at most: noise is a guess."""
STEPS = ["earlier_opens", "later_opens", "next_opens", "across"]
"""Of the price about a pair, see `earlier_is_copy`."""


def columns_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in table}


class Pairs:
    """Pairs of bars with three equal prices: the earlier `i` and the later `j`, (p,) a column."""

    def __init__(self, columns: dict[str, np.ndarray], earlier: np.ndarray, later: np.ndarray):
        self.i = {name: values[earlier] for name, values in columns.items()}
        self.j = {name: values[later] for name, values in columns.items()}
        self.lag = self.j["row"] - self.i["row"]

    def odds(self, others: np.ndarray) -> np.ndarray:
        """That one is a copy of the other, over that they are equal by chance.

        Args:
            others: (p,) symbols beside this one with a sure copy between the two sessions.
        """
        j = self.j
        ticks = (j["high"] - j["low"]) / j["tick"] + 1
        levels = j["day_noise"] * j["close"] * np.sqrt(self.lag) / j["tick"] + 1
        # The open is one of 2.5 deviations' ticks, the high and the low one of a range's from there.
        chance = np.minimum(ROUND_PRICES / (2.5 * levels * ticks**2), 1)
        prior = COPY_ODDS / (1 + self.lag) + SYMBOL_ODDS * others
        by_open = np.where(self.i["open"] == j["open"], 1, 0.01 / ticks)
        return prior / chance * by_open * self._by_volume() * self._by_close(ticks)

    def sure(self) -> np.ndarray:
        """True where this symbol's bars alone say that one is a copy."""
        return self.odds(np.zeros(len(self.lag))) > SURE

    def _by_volume(self) -> np.ndarray:
        """A copy's volume is the same, or a little off where it was taken before all trades were in."""
        known = (self.i["volume"] > 0) & (self.j["volume"] > 0)
        ratio = np.where(known, self.j["volume"], 1) / np.where(known, self.i["volume"], 1)
        off = np.abs(np.log(ratio))
        copy = 0.6 * _density(off, 1e-4) + 0.25 * _density(off, 0.003) + 0.15 * _density(off, 0.1)
        return np.where(known, copy / _density(off, 0.4), 1)

    def _by_close(self, ticks: np.ndarray) -> np.ndarray:
        """A copy's close is the same, or near where it was taken before the close."""
        off = np.abs(self.j["close"] - self.i["close"])
        span = np.maximum(self.j["high"] - self.j["low"], self.j["tick"])
        return np.where(off == 0, 0.97 * ticks, 0.03 * _density(off / span, 0.05))

    def steps(self) -> dict[str, np.ndarray]:
        """Log steps of the price of which some cross the copy, see `earlier_is_copy`; (p,) a column."""
        i, j = self.i, self.j
        return {
            "earlier_opens": np.log(i["open"] / i["close_before"]),
            "later_opens": np.log(j["open"] / j["close_before"]),
            "next_opens": np.log(i["open_after"] / i["close"]),
            "across": np.log(i["open_after"] / i["close_before"]),
            "night": j["night_noise"],
            "day": j["day_noise"],
            "adjacent": self.lag == 1,
        }


def earlier_is_copy(steps: dict[str, np.ndarray]) -> np.ndarray:
    """Log odds that the earlier of two bars has the later session's prices, and not the reverse; (p,).

    A bar opens near the close before it. Where the bar between is a copy, a session more lies between.

    Args:
        steps: `earlier_opens`, `later_opens`, `next_opens` (the bar after the earlier one), each on the
            close before; `across` (the latter, on the close before the earlier one); `night` and `day`,
            the noise of an opening and of a session; `adjacent`, true where the next bar is the later.
    """
    night, adjacent = steps["night"], steps["adjacent"]
    session = np.sqrt(2 * night**2 + steps["day"] ** 2)
    alike = _log_t(steps["later_opens"], night) + _log_t(steps["across"], session)
    as_copy = np.where(adjacent, _log_t(steps["earlier_opens"], session), alike)
    as_bar = _log_t(steps["earlier_opens"], night)
    as_bar += np.where(adjacent, 0, _log_t(steps["next_opens"], night))
    return np.clip(np.nan_to_num(as_copy - as_bar), -MOST, MOST)


def _density(x: np.ndarray, mean: float) -> np.ndarray:
    """Of the exponential distribution."""
    return np.exp(-x / mean) / mean


def _log_t(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Log density of Student's t with 3 degrees of freedom, as returns have, up to a constant."""
    return -np.log(scale) - 2 * np.log1p((x / scale) ** 2 / 3)
