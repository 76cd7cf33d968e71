"""Stage `clean`: raw bars to bars that can be trusted, and the rest to quarantine with a reason.

Nothing is dropped silently: rows in = rows clean + rows quarantined.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from feature_repo.adjust import adjusted
from feature_repo.artifacts import (
    CLEAN_BARS,
    CLEAN_REPORT,
    QUARANTINE,
    RAW_BARS,
    read_parquet,
    write_json,
    write_parquet,
)
from feature_repo.bars import ADJUSTED_CLOSE, COLUMNS, PRICES
from feature_repo.errors import DataError
from feature_repo.sessions import is_session
from feature_repo.stage import Params, load_params, run_stage

Check = Callable[[pd.DataFrame], np.ndarray]
CHECKS: dict[str, Check] = {
    "missing": lambda b: (
        b[_needed(b)].isna().any(axis=1).to_numpy() | (b["symbol"].fillna("") == "").to_numpy()
    ),
    "not_a_session": lambda b: ~is_session(b["date"]),
    "non_positive": lambda b: (
        ~(b[_prices(b)] > 0).all(axis=1).to_numpy() | np.isinf(b[_needed(b)[2:]]).any(axis=1).to_numpy()
    ),
    "negative_volume": lambda b: (b["volume"] < 0).to_numpy(),
    "high_below_low": lambda b: (b["high"] < b["low"]).to_numpy(),
    "open_outside_range": lambda b: ~b["open"].between(b["low"], b["high"]).to_numpy(),
    "close_outside_range": lambda b: ~b["close"].between(b["low"], b["high"]).to_numpy(),
    "duplicate": lambda b: b.duplicated(["symbol", "date"]).to_numpy(),
}
"""Name of each row check and the rows it refuses; a row is quarantined by the first it fails."""
TOO_LITTLE_HISTORY = "too_little_history"

CLEAN_SCHEMA = pa.DataFrameSchema(
    {
        "symbol": pa.Column("string", pa.Check.str_length(min_value=1)),
        "date": pa.Column("datetime64[us]"),
        **{p: pa.Column("float64", pa.Check.gt(0)) for p in PRICES},
        "volume": pa.Column("float64", pa.Check.ge(0)),
        "price_factor": pa.Column("float64", pa.Check.gt(0)),
    },
    unique=["symbol", "date"],
    strict=True,
    ordered=True,
)
"""What every later stage may rely on."""


class CleanParams(Params):
    min_history: int = Field(ge=1)
    split_step: float = Field(gt=1)


def _needed(bars: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]


def _prices(bars: pd.DataFrame) -> list[str]:
    return [c for c in _needed(bars) if c in (*PRICES, ADJUSTED_CLOSE)]


def reasons(bars: pd.DataFrame, min_history: int) -> pd.Series:
    """The name of the first check that each row fails, or an empty string; (n,) of str.

    A duplicate is judged among the rows that passed so far, so the first good row is the one kept.
    """
    reason = pd.Series("", index=bars.index)
    for name, refuses in CHECKS.items():
        good = bars[reason == ""]
        reason.loc[good.index[refuses(good)]] = name
    history = bars[reason == ""].groupby("symbol").size()
    short = bars["symbol"].isin(history.index[history < min_history])
    return reason.mask((reason == "") & short, TOO_LITTLE_HISTORY)


def clean(raw: pd.DataFrame, params: CleanParams) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split raw bars into clean ones, adjusted for splits and dividends, and quarantined ones.

    Returns:
        (clean bars sorted by symbol and date, the quarantined rows as they came with a `reason`).

    Raises:
        DataError: no row is left.
    """
    raw = raw.reset_index(drop=True)
    reason = reasons(raw, params.min_history)
    quarantine = raw.assign(reason=reason)[reason != ""].reset_index(drop=True)
    kept = raw[reason == ""].sort_values(["symbol", "date"], ignore_index=True)
    assert len(kept) + len(quarantine) == len(raw)
    if kept.empty:
        counts = ", ".join(f"{n:,} {r}" for r, n in quarantine["reason"].value_counts().items())
        raise DataError(
            f"{RAW_BARS}: no row is left after cleaning ({counts}). A symbol needs "
            f"{params.min_history} clean sessions (clean.min_history)."
        )
    kept["date"] = kept["date"].astype("datetime64[us]")
    bars = adjusted(kept, params.split_step)[[*COLUMNS, "price_factor"]]
    return CLEAN_SCHEMA.validate(bars), quarantine


def main() -> None:
    params = load_params("clean", CleanParams)
    raw = read_parquet(RAW_BARS)
    bars, quarantine = clean(raw, params)
    write_parquet(bars, CLEAN_BARS)
    write_parquet(quarantine, QUARANTINE)
    by_reason = quarantine["reason"].value_counts().sort_index()
    write_json(
        {
            "rows_in": len(raw),
            "rows_clean": len(bars),
            "rows_quarantined": len(quarantine),
            "quarantined_by_reason": {str(r): int(n) for r, n in by_reason.items()},
            "symbols": int(bars["symbol"].nunique()),
            "sessions": int(bars["date"].nunique()),
            "first_session": f"{bars['date'].min():%Y-%m-%d}",
            "last_session": f"{bars['date'].max():%Y-%m-%d}",
        },
        CLEAN_REPORT,
    )
    print(f"{len(raw):,} rows in = {len(bars):,} clean + {len(quarantine):,} quarantined")


if __name__ == "__main__":
    run_stage(main)
