"""Another version of the past, cleaned as the present was."""

import numpy as np
import pandas as pd

from pitwise.bars.schema import BAR_KEY, COLUMNS, in_order
from pitwise.cleaning.adjustment import vendor_steps, with_factors
from pitwise.cleaning.bad_prints import GLITCHES
from pitwise.cleaning.clean import CLEAN_SCHEMA, Cleaned, CleanParams, cleaned_or_nothing
from pitwise.cleaning.corporate_actions import segments
from pitwise.cleaning.neighbours import Neighbours
from pitwise.cleaning.row_checks import reasons


def cleaned_again(raw: pd.DataFrame, now: Cleaned, params: CleanParams) -> pd.DataFrame:
    """Clean bars of some symbols' bars as they were known at another instant.

    Verdicts that look back are given anew. Those that see the whole file are taken over from `now`: a
    row that was set aside is set aside here if it has the same values, and splits and breaks of the
    history stand at their dates.

    Args:
        raw: the bars that were known, of the symbols that are wanted.
        now: what has become of the bars that are known now, of these symbols at least.

    Returns:
        bars as `Cleaned.bars`; none where no symbol had its `min_history`.
    """
    if params.verdicts != "all":
        return cleaned_or_nothing(raw, params).bars
    raw = raw.reset_index(drop=True)
    kept = raw[reasons(raw) == ""]
    glitches = now.quarantine[now.quarantine["reason"].isin(GLITCHES)]
    kept = kept[~_values(kept).isin(_values(glitches))]
    kept = in_order(kept).astype({"date": "datetime64[us]"})
    kept = kept[kept.groupby("symbol")["date"].transform("size") >= params.min_history]
    kept = kept.reset_index(drop=True)

    n = Neighbours(kept)
    steps, vendor = vendor_steps(kept, params.split_step, hindsight=True)
    splits = now.events[now.events["kind"] == "split"]
    at, which = _first_bars(kept, n.first, splits)
    new = ~np.isin(at, vendor["row"])  # what the vendor counts is in its steps
    ratio = splits["price_ratio"].to_numpy()[which[new]]
    np.divide.at(steps.price, at[new], ratio)
    np.divide.at(steps.shares, at[new], ratio)
    breaks = np.zeros(len(kept), bool)
    before = now.bars.groupby("symbol")["segment"].shift()
    breaks[_first_bars(kept, n.first, now.bars[now.bars["segment"] > before])[0]] = True
    bars = with_factors(kept, steps, n.run).assign(segment=segments(breaks, n.first))
    return CLEAN_SCHEMA.validate(bars[list(CLEAN_SCHEMA.columns)])


def _values(rows: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[COLUMNS].astype({"date": "datetime64[us]"}))


def _first_bars(
    bars: pd.DataFrame, first: np.ndarray, events: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """The row of each event's first bar on or after its date, and the event's number.

    Left out are events behind a symbol's last bar and those before its second.
    """
    rows = bars[BAR_KEY].assign(row=np.arange(len(bars)))
    wanted = events[BAR_KEY].assign(event=np.arange(len(events)))
    found = pd.merge_asof(
        wanted.sort_values("date"), rows.sort_values("date"), on="date", by="symbol", direction="forward"
    ).dropna(subset="row")
    at = found["row"].to_numpy(int)
    inside = ~first[at]
    return at[inside], found["event"].to_numpy(int)[inside]
