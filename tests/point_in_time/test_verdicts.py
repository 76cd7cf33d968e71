"""Verdicts, actions and short histories, where what is known now is not what was known then."""

import numpy as np
import pandas as pd
from support.deliveries import delivery, exactly, existing_at, versions_of
from support.markets import bars
from support.project import PROJECT

from pitwise.bars.actions import TYPES
from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing, no_bars
from pitwise.bars.schema import COLUMNS, PRICES
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.events import LIFE, known_events
from pitwise.features.daily import daily_features
from pitwise.features.history import KEYS, known
from pitwise.features.versions import feature_history
from pitwise.stage import load_params

RULES = load_params(PROJECT, "clean", CleanParams).model_copy(update={"min_history": 40})
TOLD = ["symbol", "date", "kind", "status", *LIFE, "told_by"]
HOUR = pd.Timedelta(hours=1)
FIRST, AT = 60, 70
"""Sessions of the first load, and the one in which it happens."""
ODD = "S003"


def market(sessions: int = 80) -> pd.DataFrame:
    raw = bars(22, sessions, seed=1)[COLUMNS]
    rng = np.random.default_rng(3)
    return raw.assign(volume=np.round(1e6 * np.exp(rng.normal(0, 0.2, len(raw)))))


def days_of(raw: pd.DataFrame) -> np.ndarray:
    return np.sort(raw["date"].unique())


def of_odd(raw: pd.DataFrame, session: int) -> pd.Series:
    return (raw["symbol"] == ODD) & (raw["date"] == days_of(raw)[session])


def halved(raw: pd.DataFrame) -> pd.DataFrame:
    since = (raw["symbol"] == ODD) & (raw["date"] >= days_of(raw)[AT])
    raw.loc[since, PRICES] /= 2
    raw.loc[since, "volume"] *= 2
    return raw


def evenings(raw: pd.DataFrame, first: int = FIRST) -> list[Landing]:
    """A first load, and then a delivery an hour after each session's close."""
    days = days_of(raw)
    closes = session_close(pd.Series(days))
    loads = [delivery(raw[raw["date"] < days[first]], closes[first - 1] + HOUR, history="assumed")]
    for s in range(first, len(days)):
        loads.append(delivery(raw[raw["date"] == days[s]], closes[s] + HOUR))
    return loads


def announcement(raw: pd.DataFrame, kind: str, at: pd.Timestamp, **said: float) -> Landing:
    row = {"symbol": ODD, "date": days_of(raw)[AT], "kind": kind, "announced": pd.NaT}
    actions = pd.DataFrame([{"ratio": np.nan, "amount": np.nan} | row | said])
    return Landing(no_bars(), "actions", at, actions=actions[list(TYPES)].astype(TYPES))


def holds(loads: list[Landing], *at: pd.Timestamp) -> pd.DataFrame:
    """Asks at these instants, and of only what existed at each; returns all events."""
    loads = sorted(loads, key=lambda load: load.received_at)
    told, history = feature_history(versions_of(loads), RULES)
    for instant in at:
        there, _ = feature_history(versions_of(existing_at(loads, instant)), RULES)
        exactly(known_events(told.cleaned.events, instant)[TOLD], there.cleaned.events[TOLD])
        columns = [*KEYS, "close", "daily_return", "segment", "price_factor"]
        exactly(known(history, instant)[columns], daily_features(there.cleaned.bars)[columns])
    return told.cleaned.events[told.cleaned.events["symbol"] == ODD]


def around(raw: pd.DataFrame, *sessions: int) -> list[pd.Timestamp]:
    closes = session_close(pd.Series(days_of(raw)))
    return [closes[s] + h * HOUR for s in sessions for h in (0.5, 1.5)]


def test_what_the_adjusted_close_said_of_a_bar_is_told_until_the_bar_is_set_aside():
    raw = market()
    raw["adj_close"] = raw["close"]
    raw.loc[of_odd(raw, AT), ["close", "high"]] = raw.loc[of_odd(raw, AT), "close"].item() * 1.5
    events = holds(evenings(raw), *around(raw, AT, AT + 1))
    told = events.set_index("kind")[["status", "told_by"]]
    assert told.loc["bad_close"].tolist() == ["withdrawn", "adjusted_close"]
    assert told.loc["bad_print"].tolist() == ["confirmed", "prices"]


def test_an_action_that_comes_after_its_day_and_before_its_late_bar():
    raw = halved(market())
    late = raw[of_odd(raw, AT)]
    loads = evenings(raw.drop(late.index))
    closes = session_close(pd.Series(days_of(raw)))
    loads.append(announcement(raw, "split", closes[AT + 3] + 1.2 * HOUR, ratio=2.0))
    loads.append(delivery(late, closes[AT + 5] + 1.2 * HOUR))
    events = holds(loads, *around(raw, AT + 2, AT + 3, AT + 4, AT + 5))
    stands = events[events["status"] == "confirmed"]
    assert (stands["kind"] + stands["told_by"]).tolist() == ["splitactions"]


def test_an_event_that_is_announced_after_prices_have_told_it_is_one_and_the_same():
    raw = halved(market())
    closes = session_close(pd.Series(days_of(raw)))
    loads = [*evenings(raw), announcement(raw, "split", closes[AT + 4] + 1.2 * HOUR, ratio=2.0)]
    events = holds(loads, *around(raw, AT, AT + 1, AT + 3, AT + 4))
    assert events[["kind", "status", "told_by"]].values.tolist() == [["split", "confirmed", "prices"]]
    assert events["confirmed_at"].item() == closes[AT + 1] + HOUR


def test_an_action_is_told_of_a_symbol_that_is_too_young_for_features():
    raw = halved(market())
    raw = raw[(raw["symbol"] != ODD) | (raw["date"] >= days_of(raw)[AT - 20])]
    closes = session_close(pd.Series(days_of(raw)))
    loads = [*evenings(raw), announcement(raw, "split", closes[AT - 2], ratio=2.0)]
    events = holds(loads, *around(raw, AT - 1, AT, AT + 1), closes.iloc[-1] + 2 * HOUR)
    assert events["kind"].tolist() == ["split"]


def test_a_symbol_away_for_a_quarter_starts_anew_as_soon_as_it_is_back():
    raw = market(130)
    days, closes = days_of(raw), session_close(pd.Series(days_of(raw)))
    away = (raw["symbol"] == ODD) & (raw["date"] >= days[60]) & (raw["date"] < days[125])
    raw = raw[~away]
    early = raw[of_odd(raw, 125)]
    loads = [*evenings(raw.drop(early.index), 118), delivery(early, closes[125] + HOUR / 4)]
    holds(loads, *around(raw, 125, 126))


def test_a_history_that_becomes_too_short_and_long_enough_again_is_away_between():
    raw = market()
    days, closes = days_of(raw), session_close(pd.Series(days_of(raw)))
    raw = raw[(raw["symbol"] != ODD) | (raw["date"] >= days[AT - 39])]  # its 40th bar is that of AT
    loads = evenings(raw)
    gone = raw[of_odd(raw, AT - 5)].assign(withdrawn=True, **dict.fromkeys([*PRICES, "volume"], np.nan))
    loads.append(delivery(gone, closes[AT] + 2 * HOUR, source="withdrawal", covers={}))
    holds(loads, *around(raw, AT, AT + 1), closes[AT] + 3 * HOUR)


def test_a_close_that_is_on_the_new_basis_a_session_early():
    raw = market()
    since = (raw["symbol"] == ODD) & (raw["date"] >= days_of(raw)[AT])
    eve = of_odd(raw, AT - 1)
    last = raw.loc[eve, "close"].item()
    raw.loc[eve, PRICES] = [last * 1.001, last * 1.005, last * 0.995, last * 0.85]
    raw.loc[since, PRICES] *= 0.85 * last / raw.loc[of_odd(raw, AT), "open"].item()
    raw.loc[eve, "volume"] = 1e6
    closes = session_close(pd.Series(days_of(raw)))
    events = holds(evenings(raw), *around(raw, AT - 1, AT, AT + 1))
    assert events[["kind", "status"]].values.tolist() == [["spin_off", "confirmed"]]
    assert events["date"].item() == days_of(raw)[AT]
    assert events["first_known"].item() == closes[AT] + HOUR
    assert events["confirmed_at"].item() == closes[AT + 1] + HOUR
