"""Corporate actions as they were delivered, and from when each was known.

Their versions are told apart as those of bars are: by source, what differs from what that source said
last.
"""

import numpy as np
import pandas as pd

from pitwise.bars.actions import ACTION_KEY, KINDS, KNOWN, SAID, by_the_open, no_actions
from pitwise.bars.factors import SHIFT
from pitwise.bars.landing import Landing

NEVER = np.iinfo(np.int64).min
SAME_AMOUNT = 1e-4
"""Relative difference that the decimals of an amount explain, once a later split divided it."""


class ActionNews:
    """The statements about actions that are news, taken landing by landing as they were received."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._said: dict[str, pd.DataFrame] = {}
        """By source what it said last of each action, indexed by its key."""
        self._news: list[pd.DataFrame] = []

    def take(self, landing: Landing, actions: pd.DataFrame) -> None:
        """Take a delivery.

        Args:
            actions: its own, or put in the shares of the bars they stand beside.
        """
        told = actions.set_axis(pd.Index(self._keys(actions), name="key")).assign(withdrawn=False)
        received = landing.received_at.as_unit("us")
        known = pd.Series(received, told.index, dtype="datetime64[us, UTC]")
        said = self._said.get(landing.source, told.iloc[:0])
        if landing.history == "assumed" and len(told):
            then = by_the_open(told)
            known = known.where(told.index.isin(said.index) | (then >= known) | then.isna(), then)
        news = told[~_same(told, said.reindex(told.index), landing.basis == "split_adjusted")]
        gone = said[~said.index.isin(told.index) & ~said["withdrawn"] & self._covered(said, landing)]
        known = known.reindex(news.index)
        if len(gone):
            known = pd.concat([known, pd.Series(received, gone.index, dtype=known.dtype)])
            news = pd.concat([news, gone.assign(withdrawn=True)])
        if len(news):
            self._said[landing.source] = pd.concat([said[~said.index.isin(news.index)], news])
            self._news.append(news.assign(source=landing.source, **{KNOWN: known}))

    def _keys(self, actions: pd.DataFrame) -> np.ndarray:
        """(n,) one number for a symbol, day and kind."""
        symbol, kind = (actions[name].astype("category").cat for name in ("symbol", "kind"))
        codes = [self._codes.setdefault(str(s), len(self._codes)) for s in symbol.categories]
        kinds = [KINDS.index(k) for k in kind.categories]
        code, which = (
            np.array(numbers, "int64")[column.codes.to_numpy()]
            for numbers, column in ((codes, symbol), (kinds, kind))
        )
        day = actions["date"].to_numpy("datetime64[D]").astype("int64") + SHIFT // 2
        return (code * SHIFT + day) * len(KINDS) + which

    def _covered(self, said: pd.DataFrame, landing: Landing) -> np.ndarray:
        """Whether an action lies in the days that a delivery holds whole; (n,) bool."""
        days = np.full((len(self._codes), 2), np.array(["2262-01-01", "1700-01-01"], "datetime64[D]"))
        for symbol, whole in landing.covers.items():
            if symbol in self._codes:
                days[self._codes[symbol]] = whole
        first, last = days[said.index.to_numpy("int64") // len(KINDS) // SHIFT].T
        day = said["date"].to_numpy("datetime64[D]")
        return np.asarray((day >= first) & (day <= last))

    def versions(self) -> pd.DataFrame:
        """The table of `BarVersions.actions`."""
        if not self._news:
            return no_actions()
        table = pd.concat(self._news, ignore_index=True).astype(no_actions().dtypes)[[*no_actions()]]
        # Of one instant holds what was received last.
        table = table.drop_duplicates([*ACTION_KEY, KNOWN], keep="last")
        table = table.sort_values([*ACTION_KEY, KNOWN], kind="stable", ignore_index=True)
        before = table.shift()
        follows = (table[ACTION_KEY] == before[ACTION_KEY]).all(axis=1).to_numpy(bool)
        gone = table["withdrawn"].to_numpy(bool)
        was_gone = np.append(False, gone[:-1])
        same = _alike(table, before) & (gone == was_gone) | (gone & was_gone)
        keep = np.where(follows, ~same, ~gone)
        return table[keep].reset_index(drop=True)


def in_shares_of_bars(
    actions: pd.DataFrame,
    codes: dict[str, int],
    since: dict[int, int],
    restated: dict[int, dict[int, float]] | None,
) -> pd.DataFrame:
    """The actions beside bars whose prices first came on the share basis of the day of delivery.

    Splits that those prices have in them since they came are left out, for there is nothing to see of
    them; and amounts are put in the shares that the prices count.

    Args:
        codes: of the symbols.
        since: the day since 1970 on which the first bar of each symbol came, by its code.
        restated: the splits since, (day, ratio) by code, where amounts are in the shares of the day of
            delivery too; None where they are in those of their own ex-date.
    """
    day = actions["date"].to_numpy("datetime64[D]").astype("int64")
    code = actions["symbol"].map(codes).fillna(-1).to_numpy("int64")
    came = np.array([since.get(c, NEVER) for c in code.tolist()], "int64")
    amount, ratio = (actions[name].to_numpy("float64").copy() for name in ("amount", "ratio"))
    carried = (actions["kind"] == "split").to_numpy(bool) & (day <= came)
    if restated is None:
        for row in np.flatnonzero(carried):
            amount[(code == code[row]) & (day < day[row])] /= ratio[row]
    else:
        for one, steps in restated.items():
            for split_day, step in steps.items():
                amount[(code == one) & (day < split_day)] *= step
    return actions.assign(amount=amount)[~carried]


def _same(told: pd.DataFrame, said: pd.DataFrame, restated: bool) -> np.ndarray:
    """Whether a source says what it said last; (n,) bool."""
    standing = said["withdrawn"].eq(False).to_numpy(bool)  # missing where it said nothing
    return _alike(told, said, SAME_AMOUNT if restated else 0.0) & standing


def _alike(one: pd.DataFrame, other: pd.DataFrame, amounts: float = 0.0) -> np.ndarray:
    """Whether the actions are of one content; (n,) bool."""
    alike = np.ones(len(one), bool)
    for name in SAID:
        x, y = one[name].to_numpy(), other[name].to_numpy(one[name].to_numpy().dtype)
        equal = x == y
        if name == "amount" and amounts:
            equal |= np.abs(x - y) <= amounts * np.abs(y)
        alike &= equal | (pd.isna(x) & pd.isna(y))
    return alike
