"""What a forecast is asked for: the return from a session to one some sessions later."""

from typing import Literal

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_days, session_number
from pitwise.stage import Params


class LabelParams(Params):
    horizon: Literal[1, 5, 20]
    """Sessions between a bar and its label: a day, a week, a month."""


def labels(daily: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """What came of each bar `horizon` sessions later, close to close and open to open.

    A label exists only if the symbol traded in each of the exchange's sessions up to its own, in the
    same segment: across a halt, a quarantined day or a spin-off there is no return to learn. The second
    one starts at the next session's open, the first price that a person can trade at who makes a
    forecast at the close.

    Args:
        daily: `symbol`, `event_timestamp`, `open`, `close`, `price_factor`, `segment`, sorted by symbol
            and event_timestamp.

    Returns:
        row for row, NaN where there is none: `next_close`, the close `horizon` sessions later on the
        share basis of the row's own session; `label`, its log return; `label_open`, the log return from
        the open of the next session to the open `horizon` sessions after that one.
    """
    instants, of_row = np.unique(
        daily["event_timestamp"].to_numpy("datetime64[us]"), return_inverse=True
    )
    closes = pd.Series(instants).dt.tz_localize("UTC")
    session = session_number(session_days(closes))[of_row]
    begins = np.zeros(len(daily), dtype=bool)
    for name in ("symbol", "segment"):
        values = daily[name].to_numpy(object)
        begins[1:] |= values[1:] != values[:-1]
    run = begins.cumsum()

    def later(sessions: int) -> dict[str, np.ndarray]:
        there = (run[sessions:] == run[:-sessions]) & (
            session[sessions:] == session[:-sessions] + sessions
        )
        at = np.flatnonzero(there)
        bars = {}
        for name in ("open", "close", "price_factor"):
            bars[name] = np.full(len(daily), np.nan)
            bars[name][at] = daily[name].to_numpy()[at + sessions]
        return bars

    after, bought, sold = later(horizon), later(1), later(horizon + 1)
    close = daily["close"].to_numpy()
    next_close = after["close"] * (after["price_factor"] / daily["price_factor"].to_numpy())
    held = (sold["open"] / bought["open"]) * (sold["price_factor"] / bought["price_factor"])
    return pd.DataFrame(
        {"next_close": next_close, "label": np.log(next_close / close), "label_open": np.log(held)},
        index=daily.index,
    )
