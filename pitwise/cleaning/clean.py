"""Raw bars to bars that can be trusted, and the rest to quarantine with a reason.

Nothing is dropped silently: rows in = rows clean + rows quarantined.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from pitwise.bars.calendar import is_session, session_date
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, PRICES, in_order
from pitwise.cleaning.adjustment import adjusted, on_share_basis, vendor_events
from pitwise.cleaning.bad_prints import GLITCHES, GlitchParams, glitch_events
from pitwise.cleaning.corporate_actions import (
    EVENT_COLUMNS,
    ActionParams,
    absences,
    moves,
    segments,
    split_factors,
)
from pitwise.cleaning.neighbours import Neighbours
from pitwise.cleaning.row_checks import reasons
from pitwise.errors import DataError
from pitwise.stage import Params
from pitwise.workspace import Workspace

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


class Cleaned(NamedTuple):
    """What became of raw bars."""

    bars: pd.DataFrame
    """The clean ones, sorted by symbol and date, adjusted for splits and known dividends."""
    quarantine: pd.DataFrame
    """The rows set aside, as they came, with a `reason`."""
    events: pd.DataFrame
    """What happened to the companies: symbol, date, kind, price_ratio, sessions, evidence."""


class CleanParams(Params):
    min_history: int = Field(ge=1)
    split_step: float = Field(gt=1)
    glitches: GlitchParams
    actions: ActionParams


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
        vendor: the events that are in that factor.
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
    came = raw[raw["symbol"].notna() & is_session(raw["date"])].drop_duplicates(BAR_KEY)
    came = in_order(came).reset_index(drop=True)
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


def clean(raw: pd.DataFrame, params: CleanParams, earlier: Mapping[str, int] | None = None) -> Cleaned:
    """Split raw bars into clean ones and quarantined ones, and find what happened to the companies.

    Args:
        earlier: clean sessions that a symbol had before `raw` begins; none where it is not named.

    Raises:
        DataError: no row is left.
    """
    raw = raw.reset_index(drop=True)
    reason = reasons(raw)
    kept = in_order(raw[reason == ""])
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
            f"{Workspace.raw_bars}: no row is left after cleaning ({counts}). A symbol needs "
            f"{params.min_history} clean sessions (clean.min_history)."
        )
    kept["date"] = kept["date"].astype("datetime64[us]")
    vendor = vendor_events(kept, params.split_step)
    bars, events = with_actions(adjusted(kept, params.split_step), vendor, params)
    events = pd.concat([events, refused, missing_sessions(raw, params.actions)], ignore_index=True)
    events = events.sort_values(["symbol", "date", "kind"], ignore_index=True)
    return Cleaned(CLEAN_SCHEMA.validate(bars[list(CLEAN_SCHEMA.columns)]), quarantine, events)
