"""What is known of the S&P 500's file without any detector: another vendor's tape and the public events.

The two vendors' prices stand on different bases, which change at spin-offs; so a price is compared
relative to the usual quotient of the closes around it, between one listed event and the next.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_number
from pitwise.bars.schema import BAR_KEY, PRICES

TRUTH = Path(__file__).resolve().parent / "truth"
VISIBLE = 0.04  # share of the price that an event must take to count; see docs/public_events.md
LEFT = ["spin_off", "special_dividend"]
"""Kinds by which a part of the price leaves. Prices alone do not tell them apart."""
SESSIONS_OFF = 3  # between an event's public date and the session it is told at
AROUND = 21  # sessions of which the usual quotient is the median
SAME = 0.001  # log: the vendors say the same
WRONG = {"open": 0.02, "high": 0.005, "low": 0.005, "close": 0.005}
"""Log: the tape contradicts a price. The second vendor's opens are poor."""
COPIED = 0.0005  # log, in two of the four prices: enough where the bar is another session's too
SAME_VOLUME = 0.01


def second_vendor_path() -> Path:
    """`PITWISE_SECOND_VENDOR_CSV`, or an exit with a message that describes it."""
    path = os.environ.get("PITWISE_SECOND_VENDOR_CSV")
    if not path or not Path(path).exists():
        sys.exit(
            "error: set PITWISE_SECOND_VENDOR_CSV to another vendor's file of the S&P 500 "
            "(symbol,date,open,high,low,close,adj_close,volume)"
        )
    return Path(path)


def keyed(rows: pd.DataFrame) -> pd.MultiIndex:
    """Symbol and date, of one type wherever they come from."""
    symbol = rows["symbol"].astype(str).astype(object)
    return pd.MultiIndex.from_arrays([symbol, rows["date"].astype("datetime64[us]")], names=BAR_KEY)


def public_events() -> pd.DataFrame:
    """symbol, date (the ex-date), kind, price_ratio, what."""
    return pd.read_csv(TRUTH / "public_events.csv", parse_dates=["date"])


def listed_faults(index: pd.MultiIndex) -> pd.DataFrame:
    """(rows of `index`, 4) bool: prices that are the second vendor's fault."""
    faults = pd.read_csv(TRUTH / "second_vendor_faults.csv", parse_dates=["date"])
    prices = faults["prices"].str.split().set_axis(keyed(faults))
    listed = {p: prices.map(lambda names, p=p: p in names) for p in PRICES}
    return pd.DataFrame(listed).reindex(index, fill_value=False).astype(bool)


def compare(bars: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """How far each price of the file is off the tape.

    Returns:
        by symbol and date, (rows of the file, 4): log; NaN where the tape has no bar, or a listed fault.
    """
    ours = bars.set_index(keyed(bars))[PRICES]
    both = ours.join(second.set_index(keyed(second))[PRICES], rsuffix="_2", how="inner").sort_index()
    symbol = both.index.get_level_values("symbol")
    ex_date = pd.Series(both.index.isin(keyed(public_events())), index=both.index)
    era = ex_date.groupby(symbol).cumsum()
    quotient = np.log(both["close"] / both["close_2"])
    usual = quotient.groupby([symbol, era]).transform(
        lambda q: q.rolling(AROUND, center=True, min_periods=1).median()
    )
    off = pd.DataFrame({p: np.log(both[p] / both[f"{p}_2"]) - usual for p in PRICES})
    return off.mask(listed_faults(off.index)).reindex(ours.index)


def contradicted(off: pd.DataFrame) -> pd.Series:
    """True where the tape contradicts a price."""
    return pd.DataFrame({p: off[p].abs() > WRONG[p] for p in PRICES}).any(axis=1)


def confirmed(off: pd.DataFrame) -> pd.Series:
    """True where the tape has the same high, low and close."""
    return (off[["high", "low", "close"]].abs() <= SAME).all(axis=1)


def equal_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """Pairs of sessions of a symbol that share open, high and low, which are not one price.

    Returns:
        symbol, date, other (the later one), same_volume.
    """
    moving = bars[bars["high"] > bars["low"]]
    alike = moving[moving.duplicated(["symbol", "open", "high", "low"], keep=False)]
    pairs = alike.merge(alike, on=["symbol", "open", "high", "low"], suffixes=("", "_other"))
    pairs = pairs[pairs["date"] < pairs["date_other"]]
    same = np.abs(pairs["volume"] / pairs["volume_other"] - 1) < SAME_VOLUME
    return pairs.assign(same_volume=same).rename(columns={"date_other": "other"})[
        ["symbol", "date", "other", "same_volume"]
    ]


def displaced(bars: pd.DataFrame, off: pd.DataFrame) -> tuple[pd.MultiIndex, pd.DataFrame]:
    """Rows that carry another session's bar: those the tape names; and pairs of which it has neither.

    A pair that shares its volume too is no chance, even where the tape has no bar; which of its two
    rows is true is then unknown.
    """
    pairs = equal_bars(bars)
    first, second = keyed(pairs), keyed(pairs.assign(date=pairs["other"]))
    strange = (off.abs() > COPIED).sum(axis=1) >= 2
    both = first.append(second).unique()
    told = both[strange.reindex(both).to_numpy()]
    unknown = off["close"].isna()
    neither = unknown.reindex(first).to_numpy() & unknown.reindex(second).to_numpy()
    return told, pairs[neither & pairs["same_volume"].to_numpy()]


def matched(found: pd.DataFrame, events: pd.DataFrame) -> pd.Series:
    """For each event, the row of `found` that tells it, within `SESSIONS_OFF`; NaN where none does."""
    at = pd.Series(session_number(found["date"]), index=found.index, dtype="int64")
    number = pd.Series(session_number(events["date"]), index=events.index, dtype="int64")
    best = pd.Series(np.nan, index=events.index)
    for row in events.itertuples():
        away = (at[found["symbol"].astype(str) == row.symbol] - number[row.Index]).abs()
        if len(away) and away.min() <= SESSIONS_OFF:
            best[row.Index] = away.idxmin()
    return best
