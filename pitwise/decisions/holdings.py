"""What a person holds, as a file says, and the returns of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.bars.returns import returns as bar_returns
from pitwise.errors import DataError
from pitwise.workspace import Workspace, read_parquet

TOLERANCE = 1e-3
"""How far the sum of weights may be from 1, or from 0; within it they are scaled."""
STALE = 5
"""Sessions without a bar at the end of the history that are a halt; with more a symbol is gone."""


@dataclass(frozen=True)
class Market:
    """The market that a portfolio is of."""

    returns: pd.DataFrame
    """Simple returns of closes with splits and known dividends taken out, sessions x symbols. A return
    after a halt is that of all sessions since; NaN where there is none: no bar, or after a spin-off."""
    close: pd.Series
    """Last traded price of each symbol, in dollars."""


def market(workspace: Workspace) -> Market:
    """The market of a workspace's clean bars, as they are known now.

    Raises:
        DataError: there are none.
    """
    columns = ["symbol", "date", "close", "price_factor", "segment"]
    bars = read_parquet(workspace.clean_bars, columns)
    # The basis is a constant of each symbol, so returns need none.
    bars = bars.assign(adjusted=bars["close"] * bars["price_factor"])
    change = bar_returns(bars.assign(close=bars["adjusted"]))
    wide = bars.assign(change=change).pivot(index="date", columns="symbol", values="change")
    return Market(wide.sort_index(), bars.groupby("symbol")["close"].last())


def read_weights(path: Path, close: pd.Series) -> tuple[pd.Series, float | None]:
    """Weights of a csv with columns `symbol` and `weight`, or `symbol` and `shares`.

    A short position is below 0. Of shares the weight is their value at the last close over the value of
    all, or over the gross exposure where longs and shorts cancel. See `checked_weights`.

    Args:
        close: last traded price of each symbol.

    Returns:
        weight of each symbol that has one other than 0, and what the weights of shares are fractions of
        in dollars (None for weights).

    Raises:
        DataError: the file cannot be read so; the message names the file and the line or symbol.
    """
    try:
        table = pd.read_csv(path, dtype={"symbol": str}, keep_default_na=False, skipinitialspace=True)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: cannot be read as csv ({str(error).strip()}).") from error
    kinds = [kind for kind in ("weight", "shares") if kind in table.columns]
    if "symbol" not in table.columns or len(kinds) != 1:
        raise DataError(
            f"{path}: has columns {', '.join(table.columns)}. Columns `symbol` and one of `weight` and "
            "`shares` are needed."
        )
    symbols = table["symbol"].str.strip()
    amounts = pd.to_numeric(table[kinds[0]], errors="coerce").to_numpy(float)
    for i in np.flatnonzero(~np.isfinite(amounts))[:1]:
        raise DataError(f"{path}: line {i + 2}: {kinds[0]} {table[kinds[0]].iloc[i]!r} is no number.")
    held = pd.Series(amounts, index=pd.Index(symbols, name="symbol"))
    return weights_of(held, kinds[0], close, str(path))


def weights_of(
    held: pd.Series, kind: str, close: pd.Series, where: str
) -> tuple[pd.Series, float | None]:
    """Weights, and value, of amounts by symbol; see `read_weights`.

    Args:
        kind: of the amounts: weight or shares.
        where: they stand, for messages.
    """
    _check_symbols(held.index, close.index, where)
    held = held[held != 0]
    if kind == "weight":
        return checked_weights(held, close.index, where), None
    value = held * close[held.index]
    if is_neutral(value):
        gross = float(value.abs().sum())
        return value / gross, gross
    total = float(value.sum())
    if held.empty or total <= 0:
        raise DataError(
            f"{where}: the holdings are worth {total:,.2f}; their risk needs a value above 0, or longs "
            "and shorts that cancel."
        )
    return value / total, total


def checked_weights(weights: pd.Series, known: pd.Index, where: str = "weights") -> pd.Series:
    """Weights that sum to 1 to the last digit; or of a dollar-neutral portfolio, fractions of the gross.

    A portfolio whose longs and shorts cancel has no value for its losses to be a fraction of. They are
    told as a fraction of its gross exposure, longs and shorts added, so the weights are scaled until
    their absolute values sum to 1.

    Raises:
        DataError: they sum neither to 1 nor to 0, up to `TOLERANCE`, or a symbol is unknown or named
            twice.
    """
    _check_symbols(weights.index, known, where)
    if is_neutral(weights):
        return weights / weights.abs().sum()
    total = float(weights.to_numpy(float).sum())  # pandas leaves NaN out
    if not abs(total - 1) <= TOLERANCE:
        raise DataError(
            f"{where}: the weights sum to {total:.6g}, and should to 1, or to 0 for a dollar-neutral "
            f"portfolio (within {TOLERANCE}). Scale them, or give a column `shares` in place of "
            "`weight`."
        )
    return weights / total


def is_neutral(amounts: pd.Series) -> bool:
    """Whether longs and shorts cancel, up to `TOLERANCE` of the two added."""
    values = amounts.to_numpy(float)
    gross = np.abs(values).sum()
    return bool(gross > 0 and abs(values.sum()) <= TOLERANCE * gross)


def held_returns(
    returns: pd.DataFrame, weights: pd.Series, least: int
) -> tuple[pd.DataFrame, dict[str, int], str]:
    """Returns of the symbols held, from the first session on that all of them have one.

    Sessions after it in which a symbol has none count as 0: it was halted, or a part was spun off.

    Returns:
        sessions x symbols; how many such sessions each symbol has (where any); the symbol with the
        shortest history.

    Raises:
        DataError: a symbol no longer trades, or there are fewer than `least` sessions; it is named.
    """
    held = returns[weights.index]
    there = held.notna().to_numpy()
    first = np.where(there.any(axis=0), there.argmax(axis=0), len(held))
    shortest = int(first.argmax())
    n = len(held) - int(first[shortest])
    if n < least:
        raise DataError(
            f"{held.columns[shortest]}: has {n} sessions of history, and a portfolio's risk needs "
            f"{least}. Leave it out, or load more of its past."
        )
    gone = held.columns[~there[-STALE:].any(axis=0)]
    if len(gone):
        raise DataError(
            f"{', '.join(gone[:5])}: no bar in the last {STALE} sessions, up to "
            f"{held.index[-1].date()}. A portfolio of today cannot hold what no longer trades."
        )
    held = held.iloc[first[shortest] :]
    absent = held.isna().sum()
    return held.fillna(0.0), absent[absent > 0].astype(int).to_dict(), str(held.columns[shortest])


def _check_symbols(symbols: pd.Index, known: pd.Index, where: str) -> None:
    if symbols.has_duplicates:
        raise DataError(f"{where}: {symbols[symbols.duplicated()][0]} is named twice; add the two up.")
    unknown = [symbol for symbol in symbols if symbol not in known]
    if unknown:
        raise DataError(
            f"{where}: {', '.join(map(repr, unknown[:5]))}"
            f"{' and others' if len(unknown) > 5 else ''} not among the {len(known)} symbols of this "
            "workspace. Check the spelling, or load their prices."
        )
