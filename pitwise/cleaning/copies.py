"""Bars that carry another session's prices.

Two sessions of a symbol with three equal prices are either chance, as where a day's range is a few
ticks, or one is a copy of the other. Which holds is told from the volumes, the closes, and how many
other symbols have a copy between the same two sessions. Which of the two is the copy is told from how
well each follows the close before it, all symbols of the session together. All of it is judged at the
later session's close, from bars up to it.

In a history loaded at once, a bar may carry the prices of a later session. It cannot have been known at
its own close, and is the only bar that is refused for what came after it. Of bars observed live, the
later one is the copy.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.cleaning.neighbours import MARKET_SYMBOLS
from pitwise.cleaning.pairs import MOST, STEPS, Pairs, columns_of, earlier_is_copy

LOOK_BACK = 250
"""Bars of a symbol, before the one judged, in which its like is looked for: live keeps no more."""
HABIT = 3.0
"""Log odds of the direction that a source's copies of earlier sessions give to the next, at most."""


class Copies(NamedTuple):
    """Sure copies of the whole market, by the sessions between which they are. See `session_copies`.

    Sessions are numbered as by `session_number`.
    """

    sessions: pd.DataFrame
    """(k,) sorted by `copied` and `number`: `number` and `copied` (the earlier and the later session),
    `symbols` (int, with a sure copy), `earlier` (log odds that the earlier one has the copies, by these
    symbols)."""
    later: pd.DataFrame
    """(l,) sorted by `copied`: `earlier` as above, by all copies of this later session; and `habit`, log
    odds that the next session's copies are in the earlier one, as those up to this one were."""

    def of(self, number: np.ndarray, copied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between two sessions each, (p,): `symbols` and `earlier`, 0 where no copy is sure."""
        key = self.sessions["copied"].to_numpy() << 32 | self.sessions["number"].to_numpy()
        at, there = _found(key, copied << 32 | number)
        symbols, earlier = (_at(self.sessions[name], at) for name in ("symbols", "earlier"))
        return np.where(there, symbols, 0), np.where(there, earlier, 0)

    def as_a_rule(self, copied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(p,) `earlier` of the later session, 0 where no copy is sure, and the `habit` before it."""
        at, there = _found(self.later["copied"].to_numpy(), copied)
        habit = _at(self.later["habit"], at - 1)
        return np.where(there, _at(self.later["earlier"], at), 0), np.where(at > 0, habit, 0)

    @classmethod
    def together(cls, sure: pd.DataFrame) -> "Copies":
        """From the sure copies of each symbol: `number`, `copied`, and the columns of `Pairs.steps`."""
        by = sure.groupby(["copied", "number"])
        # What the market did in these sessions moved all alike, and says nothing of which is the copy.
        many = by["night"].transform("size") >= MARKET_SYMBOLS
        alike = {name: by[name].transform("median").where(many, 0) for name in STEPS}
        own = sure.assign(**{name: sure[name] - alike[name] for name in STEPS})
        judged = own.assign(symbols=1, earlier=earlier_is_copy(columns_of(own)))
        sessions = judged.groupby(["copied", "number"], as_index=False)[["symbols", "earlier"]].sum()
        sessions["earlier"] = sessions["earlier"].clip(-MOST, MOST)
        return cls.of_sessions(sessions)

    @classmethod
    def of_sessions(cls, sessions: pd.DataFrame) -> "Copies":
        """From the table `sessions` alone."""
        later = sessions.groupby("copied", as_index=False)["earlier"].sum()
        before, after = ((sign * later["earlier"] > 1).cumsum() for sign in (1, -1))
        habit = np.clip(np.log1p(before) - np.log1p(after), -HABIT, HABIT)
        return cls(sessions, later.assign(habit=habit))


def session_copies(equal: Iterable[pd.DataFrame]) -> Copies:
    """The sure copies of the whole market, from the `equal_bars` of all symbols.

    What it says of a session is told from sessions up to it.
    """
    sure = []
    for part in equal:
        columns = columns_of(part)
        later = np.flatnonzero(columns["group"][1:] == columns["group"][:-1]) + 1
        pairs = Pairs(columns, later - 1, later)
        at = {"number": pairs.i["number"], "copied": pairs.j["number"]}
        bars = {"i": pairs.i["row"], "j": pairs.j["row"]}
        seen = pairs.sure() & (pairs.lag <= LOOK_BACK)
        found = pd.DataFrame({**at, **bars, **pairs.steps()})[seen]
        sure.append(found.drop_duplicates(list(bars)))  # of bars in two groups
    return Copies.together(pd.concat(sure))


def copies(equal: pd.DataFrame, market: Copies, assumed: np.ndarray) -> pd.DataFrame:
    """The bars that are copies of another session's.

    Each bar is compared with the last one of equal prices that was not refused by then.

    Args:
        equal: see `equal_bars`.
        market: see `session_copies`; of all symbols.
        assumed: (n,) bool by row of the bars, true where `known_at` is but assumed to be its close.

    Returns:
        (c,) sorted by `row`, each row once: `row`, `reason` (displaced: it carries a later session's
        prices, and is absent at every instant; repeated: an earlier one's, known at its own close),
        `other` (row of that session), `copy_of` (its date), `told` (row at whose close it is told, the
        later of the two), `symbols` (int, with a sure copy between the two sessions), `volume_ratio`
        (its volume over the other's, NaN unknown), `confidence` (0..1, that this bar is the copy).
    """
    columns = columns_of(equal)
    group, row = columns["group"], columns["row"]
    begins = np.append(True, group[1:] != group[:-1])[: len(group)]
    standing = np.arange(len(equal))  # at a group's begin: the bar that its next is compared with
    begin = np.maximum.accumulate(np.where(begins, standing, 0))
    rank = standing - begin
    turns = np.split(np.argsort(rank, kind="stable"), np.cumsum(np.bincount(rank)))[1:]
    parts = []
    for later in turns or [rank]:
        earlier = standing[begin[later]]
        pairs = Pairs(columns, earlier, later)
        both = assumed[row[earlier]] & assumed[row[later]]
        judged = _judged(pairs, market, both, earlier == later - 1)
        displaced = (judged["reason"] == "displaced").to_numpy()
        copy, other = np.where(displaced, earlier, later), np.where(displaced, later, earlier)
        is_copy = judged["reason"] != ""
        parts.append(judged.assign(copy=copy, other=other, told=row[later])[is_copy])
        standing[begin[later]] = np.where(is_copy & ~displaced, earlier, later)
    found = pd.concat(parts)
    at, other = found["copy"].to_numpy(int), found["other"].to_numpy(int)
    volume, of = columns["volume"][at], columns["volume"][other]
    table = pd.DataFrame(
        {
            "row": row[at],
            "reason": found["reason"].astype("string").array,
            "other": row[other],
            "copy_of": columns["date"][other],
            "told": found["told"].to_numpy(int),
            "symbols": found["symbols"].to_numpy(int),
            "volume_ratio": volume / np.where(of > 0, of, np.nan),
            "confidence": found["confidence"].to_numpy("float64"),
        }
    )
    # Of a bar in two groups, what was told first.
    first = table.sort_values(["told", "confidence"], ascending=[True, False]).drop_duplicates("row")
    return first.sort_values("row", ignore_index=True)


def _judged(pairs: Pairs, market: Copies, assumed: np.ndarray, adjacent: np.ndarray) -> pd.DataFrame:
    """(p,) `reason` of the one that is the copy, empty for none; `symbols` and `confidence` as `copies`.

    Args:
        assumed: (p,) bool, of both bars.
        adjacent: (p,) bool, no other bar of these prices lies between: `market` knows this pair.
    """
    number, copied = pairs.i["number"], pairs.j["number"]
    symbols, together = market.of(number, copied)
    counted = adjacent & pairs.sure()
    odds = pairs.odds(symbols - counted)
    of_session, habit = market.as_a_rule(copied)
    earlier = np.where(counted, 0, earlier_is_copy(pairs.steps())) + together
    earlier += np.clip(of_session - together, -MOST, MOST) + habit
    reason = np.where(assumed & (earlier > 0), "displaced", "repeated")
    right = np.where(assumed, 1 / (1 + np.exp(-np.abs(earlier))), 1)
    is_copy = (odds > 1) & (pairs.lag <= LOOK_BACK)
    return pd.DataFrame(
        {
            "reason": np.where(is_copy, reason, ""),
            "symbols": symbols,
            "confidence": right * odds / (1 + odds),
        }
    )


def _found(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key is, or the next greater one; and (p,) bool, true where it is there."""
    at = np.searchsorted(sorted_keys, keys)
    return at, np.append(sorted_keys, -1)[at] == keys


def _at(values: pd.Series, at: np.ndarray) -> np.ndarray:
    """The values at these places, 0 one after the last."""
    return np.append(values.to_numpy("float64"), 0)[at]
