"""Bars with one fault each, and what cleaning makes of bars with faults and events planted by hand."""

import numpy as np
import pandas as pd
from support import markets
from support.project import PROJECT

from pitwise.cleaning.clean import CleanParams, clean
from pitwise.stage import load_params

CLEAN = load_params(PROJECT, "clean", CleanParams)
"""The project's own params."""
PRICES = ["open", "high", "low", "close"]
GOOD = {
    "symbol": "AAA",
    "date": pd.Timestamp("2014-01-02"),
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 100.0,
}
FAULTS = [
    ({"symbol": None}, "missing"),
    ({"date": pd.NaT}, "missing"),
    ({"open": np.nan}, "missing"),
    ({"high": np.nan}, "missing"),
    ({"low": np.nan}, "missing"),
    ({"close": np.nan}, "missing"),
    ({"volume": np.nan}, "missing"),
    ({"date": pd.Timestamp("2014-12-25")}, "not_a_session"),
    ({"date": pd.Timestamp("2014-01-04")}, "not_a_session"),
    ({"date": pd.Timestamp("2014-01-02 16:00")}, "not_a_session"),
    ({"open": 0.0}, "non_positive"),
    ({"low": 0.0}, "non_positive"),
    ({"close": -11.0}, "non_positive"),
    ({"high": np.inf}, "non_positive"),
    ({"volume": -1.0}, "negative_volume"),
    ({"high": 8.0}, "high_below_low"),
    ({"open": 12.01}, "open_outside_range"),
    ({"open": 8.99}, "open_outside_range"),
    ({"close": 12.01}, "close_outside_range"),
    ({"close": 8.99}, "close_outside_range"),
]
"""Changes to a good bar, and the row check that refuses it."""
AT = 150
"""The row of a calm stock that is tampered with."""


def raw(*changes: dict) -> pd.DataFrame:
    """Raw bars: a good one with each of these changes."""
    frame = pd.DataFrame([GOOD | change for change in changes])
    return frame.astype({"symbol": "string", "date": "datetime64[ns]"})


def move(bars: pd.DataFrame, ratio: float, at: int = AT) -> None:
    """From a row on the stock is worth `ratio` times what it was."""
    bars.loc[at:, PRICES] *= ratio


def busy(bars: pd.DataFrame, times: float) -> None:
    """The volume of row `AT` is that many times what it was, and dies down."""
    bars.loc[AT : AT + 2, "volume"] *= [times, 1 + times / 3, 1 + times / 6]


def earnings(bars: pd.DataFrame, ratio: float) -> None:
    """News in row `AT`, on eight times the volume; a third of the move comes within the session."""
    move(bars, ratio)
    bars.loc[AT, "open"] /= ratio**0.3
    bars.loc[AT, "high"] = bars.loc[AT, ["open", "close"]].max() * 1.01
    bars.loc[AT, "low"] = bars.loc[AT, ["open", "close"]].min() * 0.99
    busy(bars, 8)


def calm_stock() -> pd.DataFrame:
    """300 sessions of a stock that moves about 1% a day and trades about a million shares."""
    rng = np.random.default_rng(5)
    frame = markets.bars(1, 300, seed=5).drop(columns=["price_factor", "share_factor", "segment"])
    close = 100 * np.exp(rng.normal(0, 0.01, 300).cumsum())
    opening = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.003, 300))
    frame["close"], frame["open"] = close, opening
    frame["high"] = np.maximum(opening, close) * (1 + rng.uniform(0.001, 0.006, 300))
    frame["low"] = np.minimum(opening, close) * (1 - rng.uniform(0.001, 0.006, 300))
    frame["volume"] = np.round(1e6 * np.exp(rng.normal(0, 0.2, 300)))
    return frame


def cleaned(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Clean bars, quarantine and events; no row is lost."""
    bars, quarantine, events = clean(frame, CLEAN)
    assert len(bars) + len(quarantine) == len(frame)
    return bars, quarantine, events


def quarantined(frame: pd.DataFrame) -> dict[str, list[pd.Timestamp]]:
    """The dates set aside by reason."""
    _, quarantine, _ = cleaned(frame)
    return {reason: list(part["date"]) for reason, part in quarantine.groupby("reason")}


def kinds(events: pd.DataFrame) -> list[tuple[pd.Timestamp, str]]:
    return list(zip(events["date"], events["kind"], strict=True))
