"""A table of forecasts, and what each session of it says: one value a session.

A table is long: a row is what one kind of model or baseline, fitted with one seed in one fold of the
walk-forward, said of one symbol at the close of one session, and what came of it. Returns are log
returns over `horizon` sessions: `label` from this close to the close then, `label_open` from the next
session's open to the open `horizon` sessions after it, which is what a person could have traded on a
forecast that is made at the close. A part that a forecast does not have, or a return that never came,
is NaN.
"""

import numpy as np
import pandas as pd

from pitwise.errors import DataError
from pitwise.evaluation import metrics
from pitwise.evaluation.metrics import Array

SESSION = "event_timestamp"
COLUMNS = (
    "symbol",
    SESSION,
    "kind",
    "fold",
    "seed",
    "score",
    "log_return",
    "p_up",
    "label",
    "label_open",
)
PARTS = ["score", "log_return", "p_up"]
"""What a forecast says; a score only ranks the symbols of a session."""
DECILES = 10
GROSS = 2
"""Long and short together, in units of one leg's capital."""


def mean_of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one forecast a kind, symbol and session: the mean of its seeds'.

    Returns:
        the columns of the table without `seed`, sorted by kind, session and symbol.
    """
    keys = ["kind", SESSION, "symbol"]
    others = [name for name in table if name not in (*keys, *PARTS, "seed")]
    how = dict.fromkeys(PARTS, "mean") | dict.fromkeys(others, "first")
    mean = table.groupby(keys, observed=True, sort=True).agg(how).reset_index()
    return mean[[name for name in table if name != "seed"]]


def by_session(table: pd.DataFrame, horizon: int, label: str = "label") -> pd.DataFrame:
    """What each session of one kind's forecasts says.

    Args:
        table: of one kind, with one forecast a symbol and session: `symbol`, `event_timestamp`, `score`
            and the label. Rows without score or label take no part.
        horizon: sessions that the label looks ahead.
        label: the return to measure by.

    Returns:
        by session, in order: `rank_ic`, `ic`; `hit_rate`, see `hit_rates`; `decile_spread`, simple
        return of one session, and `traded`, see `decile_books` and `traded`. NaN where undefined.

    Raises:
        DataError: several forecasts of one symbol and session.
    """
    if table.duplicated(["symbol", SESSION]).any():
        raise DataError(
            "the table has several forecasts of one symbol and session. Take the rows of one kind, and "
            "the mean of its seeds (`mean_of_seeds`)."
        )
    known = table[table["score"].notna() & table[label].notna()]
    scores, returns = (known[name].to_numpy(float) for name in ("score", label))
    codes, sessions = pd.factorize(known[SESSION], sort=True)
    weights = decile_books(scores, codes)
    earned = np.bincount(codes, weights * np.expm1(returns), minlength=len(sessions))
    held = np.bincount(codes, np.abs(weights), minlength=len(sessions)) > 0
    trades = traded(weights, pd.factorize(known["symbol"])[0], codes, horizon)
    return pd.DataFrame(
        {
            "rank_ic": metrics.rank_ic(scores, returns, codes),
            "ic": metrics.ic(scores, returns, codes),
            "hit_rate": hit_rates(scores, returns, codes),
            "decile_spread": np.where(held, earned, np.nan) / horizon,
            "traded": np.where(held, trades, np.nan),
        },
        index=pd.Index(sessions, name=SESSION),
    )


def price_errors(table: pd.DataFrame) -> pd.Series:
    """Each session's mean absolute error of the price, in percent of the actual one; by session.

    Args:
        table: as of `by_session`, with `log_return` and `label`. Rows without either take no part.
    """
    known = table.dropna(subset=["log_return", "label"])
    # The price level cancels: |close e^said - close e^came| / (close e^came).
    errors = 100 * np.expm1(known["log_return"] - known["label"]).abs()
    return errors.groupby(known[SESSION]).mean()


def hit_rates(scores: Array, returns: Array, sessions: Array) -> Array:
    """Share of each session's symbols that are on the side of the median that the score says.

    Half is a coin, whatever the market does that day. Symbols at the median of score or return are on
    no side and do not count; a session without others is NaN; (n_sessions,).
    """
    sides = pd.DataFrame({"said": scores, "came": returns})
    sides = np.sign(sides - sides.groupby(sessions).transform("median")).to_numpy()
    right = np.where((sides != 0).all(axis=1), sides[:, 0] == sides[:, 1], np.nan)
    return pd.Series(right, dtype=float).groupby(sessions).mean().to_numpy()


def decile_books(scores: Array, sessions: Array) -> Array:
    """Each session's book: long the tenth with the largest scores, short the tenth with the smallest.

    A leg has a tenth of the session's symbols, rounded down, in equal parts that add up to 1; where the
    next symbol ties with the last of the leg, those that tie share the places left. A session of fewer
    than ten symbols, or without differences to rank, has no book.

    Returns:
        (n,) weights, positive long, negative short, 0 where a symbol is in no leg.
    """
    first, after, order = metrics.ties(scores, sessions)
    _, codes = np.unique(sessions[order], return_inverse=True)
    n = np.bincount(codes)[codes]
    places = n // DECILES
    equal = after - first
    long = np.clip(after - np.maximum(first, n - places), 0, None)
    short = np.clip(np.minimum(after, places) - first, 0, None)
    weights = np.empty(len(scores))
    weights[order] = (long - short) / equal / np.maximum(places, 1)
    return weights


def traded(weights: Array, symbols: Array, sessions: Array, horizon: int) -> Array:
    """What is bought and sold in each session to hold the books, in units of one leg's capital.

    A book is held for `horizon` sessions, so that as many are held at a time, each with its share of
    the capital, and one is replaced a session: |w[t] - w[t - horizon]| / horizon, summed over the
    symbols. At most 4 where the horizon is 1: both legs sold and bought. That prices move the weights
    while a book is held is left out.
    Source: Jegadeesh and Titman (1993), Returns to buying winners and selling losers.

    Args:
        weights: (n,) see `decile_books`.
        symbols: (n,) numbers from 0.
        sessions: (n,) numbers from 0, of sessions that follow one another.

    Returns:
        (n_sessions,) NaN in the first `horizon` sessions, which have no book to replace.
    """
    if len(weights) == 0:
        return np.empty(0)
    books = np.zeros((sessions.max() + 1, symbols.max() + 1))
    books[sessions, symbols] = weights
    result = np.full(len(books), np.nan)
    result[horizon:] = np.abs(books[horizon:] - books[:-horizon]).sum(axis=1) / horizon
    return result
