"""Stage `clean`: raw bars to bars that can be trusted, and the rest to quarantine with a reason.

Nothing is dropped silently: rows in = rows clean + rows quarantined.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from feature_repo.actions import (
    EVENT_COLUMNS,
    ActionParams,
    absences,
    moves,
    segments,
    split_factors,
)
from feature_repo.adjust import adjusted, on_share_basis, vendor_events
from feature_repo.artifacts import (
    CLEAN_BARS,
    CLEAN_REPORT,
    EVENTS,
    QUARANTINE,
    RAW_BARS,
    read_parquet,
    write_json,
    write_parquet,
)
from feature_repo.bars import ADJUSTED_CLOSE, COLUMNS, PRICES
from feature_repo.errors import DataError
from feature_repo.glitches import GLITCHES, GlitchParams, glitch_events
from feature_repo.neighbours import Neighbours
from feature_repo.sessions import has_closed, is_session, session_date
from feature_repo.stage import Params, load_params, run_stage

Check = Callable[[pd.DataFrame], np.ndarray]
CHECKS: dict[str, Check] = {
    "missing": lambda b: (
        b[_needed(b)].isna().any(axis=1).to_numpy() | (b["symbol"].fillna("") == "").to_numpy()
    ),
    # A bar of a session that is still open, or yet to come, is none.
    "not_a_session": lambda b: ~has_closed(b["date"], pd.Timestamp.now("UTC")),
    "non_positive": lambda b: (
        ~(b[_prices(b)] > 0).all(axis=1).to_numpy() | np.isinf(b[_needed(b)[2:]]).any(axis=1).to_numpy()
    ),
    "negative_volume": lambda b: (b["volume"] < 0).to_numpy(),
    "high_below_low": lambda b: (b["high"] < b["low"]).to_numpy(),
    "open_outside_range": lambda b: ~b["open"].between(b["low"], b["high"]).to_numpy(),
    "close_outside_range": lambda b: ~b["close"].between(b["low"], b["high"]).to_numpy(),
    "duplicate": lambda b: b.duplicated(_needed(b)).to_numpy(),
    # Two bars of one session that differ: nothing says which one is right, so neither is kept.
    "conflicting_duplicate": lambda b: b.duplicated(["symbol", "date"], keep=False).to_numpy(),
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
        "segment": pa.Column("int32", pa.Check.ge(0)),
    },
    unique=["symbol", "date"],
    strict=True,
    ordered=True,
)
"""What every later stage may rely on."""


class CleanParams(Params):
    min_history: int = Field(ge=1)
    split_step: float = Field(gt=1)
    glitches: GlitchParams
    actions: ActionParams


def _needed(bars: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]


def _prices(bars: pd.DataFrame) -> list[str]:
    return [c for c in _needed(bars) if c in (*PRICES, ADJUSTED_CLOSE)]


def reasons(bars: pd.DataFrame) -> pd.Series:
    """The name of the first row check that each row fails, or an empty string; (n,) of str."""
    reason = pd.Series("", index=bars.index)
    for name, refuses in CHECKS.items():
        good = bars[reason == ""] if (reason != "").any() else bars
        reason.loc[good.index[refuses(good)]] = name
    return reason


def quarantined_glitches(kept: pd.DataFrame, params: CleanParams) -> pd.Series:
    """The name of the first check on its neighbours that each row fails, or an empty string.

    Args:
        kept: bars that passed the row checks, sorted by symbol and date.
    """
    reason = pd.Series("", index=kept.index)
    bars = adjusted(kept, params.split_step)
    neighbours = Neighbours(bars)
    for name, refuses in GLITCHES.items():
        refused = refuses(neighbours, params.glitches)
        if refused.any():
            reason.loc[bars.index[refused]] = name
            bars = bars[~refused]
            neighbours = Neighbours(bars)
    return reason


def with_actions(
    bars: pd.DataFrame, vendor: pd.DataFrame, params: CleanParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars adjusted for the splits found in them, with their segments; and the events.

    Args:
        bars: sorted, free of glitches, adjusted by the vendor's factor where there is one.
        vendor: the events that factor knows of.
    """
    bars = bars.reset_index(drop=True)
    neighbours = Neighbours(bars)
    found = moves(neighbours, params.actions, adjusted=ADJUSTED_CLOSE in bars)
    factor = split_factors(neighbours, found)
    segment = segments(neighbours, found, params.actions)
    events = pd.concat([_named(vendor, bars), _named(found, bars)], ignore_index=True)
    return on_share_basis(bars, factor).assign(segment=segment), events


def missing_sessions(raw: pd.DataFrame, params: ActionParams) -> pd.DataFrame:
    """The events of sessions for which no row came at all, not even one set aside."""
    came = raw[raw["symbol"].notna() & is_session(raw["date"])].drop_duplicates(["symbol", "date"])
    came = came.sort_values(["symbol", "date"], ignore_index=True)
    came[PRICES] = came[PRICES].where((came[PRICES] > 0) & (came[PRICES] < np.inf))
    away = absences(Neighbours(came), params)
    return _named(away, came).assign(date=session_date(away["first"].to_numpy()))


def _named(found: pd.DataFrame, bars: pd.DataFrame) -> pd.DataFrame:
    """Events with the symbol and date of their row."""
    at = found["row"].to_numpy(int)
    return pd.DataFrame(
        {
            "symbol": bars["symbol"].array[at],
            "date": bars["date"].array[at],
            "kind": found["kind"].astype("string").array,
            "price_ratio": found["price_ratio"].to_numpy("float64"),
            "sessions": found["sessions"].to_numpy("int64") if "sessions" in found else 1,
            "evidence": found["evidence"].astype("string").array,
        },
        columns=EVENT_COLUMNS,
    )


def clean(
    raw: pd.DataFrame, params: CleanParams, earlier: Mapping[str, int] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split raw bars into clean ones and quarantined ones, and tell what happened to the companies.

    Args:
        earlier: clean sessions that a symbol had before `raw` begins; none where it is not named.

    Returns:
        clean bars sorted by symbol and date, adjusted for splits and known dividends;
        the quarantined rows as they came, with a `reason`;
        the events: symbol, date, kind, price_ratio, sessions, evidence.

    Raises:
        DataError: no row is left.
    """
    raw = raw.reset_index(drop=True)
    reason = reasons(raw)
    kept = raw[reason == ""].sort_values(["symbol", "date"])
    glitches = quarantined_glitches(kept, params)
    reason.loc[glitches.index] = glitches
    refused = _named(glitch_events(kept, glitches.to_numpy(object)), kept)
    kept = kept[glitches == ""]
    history = kept.groupby("symbol")["date"].transform("size")
    if earlier:
        history += kept["symbol"].map(earlier).fillna(0).astype(int)
    reason.loc[kept.index[history < params.min_history]] = TOO_LITTLE_HISTORY
    kept = kept[history >= params.min_history].reset_index(drop=True)
    quarantine = raw[reason != ""].assign(reason=reason[reason != ""]).reset_index(drop=True)
    assert len(kept) + len(quarantine) == len(raw)
    if kept.empty:
        counts = ", ".join(f"{n:,} {r}" for r, n in quarantine["reason"].value_counts().items())
        raise DataError(
            f"{RAW_BARS}: no row is left after cleaning ({counts}). A symbol needs "
            f"{params.min_history} clean sessions (clean.min_history)."
        )
    kept["date"] = kept["date"].astype("datetime64[us]")
    vendor = vendor_events(kept, params.split_step)
    bars, events = with_actions(adjusted(kept, params.split_step), vendor, params)
    events = pd.concat([events, refused, missing_sessions(raw, params.actions)], ignore_index=True)
    events = events.sort_values(["symbol", "date", "kind"], ignore_index=True)
    return CLEAN_SCHEMA.validate(bars[list(CLEAN_SCHEMA.columns)]), quarantine, events


def main() -> None:
    pd.options.mode.copy_on_write = True  # a third of the memory, which millions of bars need
    params = load_params("clean", CleanParams)
    raw = read_parquet(RAW_BARS)
    bars, quarantine, events = clean(raw, params)
    write_parquet(bars, CLEAN_BARS)
    write_parquet(quarantine, QUARANTINE)
    write_parquet(events, EVENTS)
    by_reason = quarantine["reason"].value_counts().sort_index()
    by_kind = events["kind"].value_counts().sort_index()
    write_json(
        {
            "rows_in": len(raw),
            "rows_clean": len(bars),
            "rows_quarantined": len(quarantine),
            "quarantined_by_reason": {str(r): int(n) for r, n in by_reason.items()},
            "events_by_kind": {str(k): int(n) for k, n in by_kind.items()},
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
