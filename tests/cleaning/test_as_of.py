"""The past of a symbol, at the instants at which it changed."""

import pandas as pd
import pytest
from support.deliveries import delivery, exactly, existing_at
from support.faulty_bars import AT, CLEAN, PRICES

from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing
from pitwise.bars.versions import BarVersions, bar_versions
from pitwise.cleaning.as_of import FOREVER, history, pasts, spans_between
from pitwise.cleaning.events import LIFE, known_events

HOUR = pd.Timedelta(hours=1)


def planted(calm: pd.DataFrame) -> pd.DataFrame:
    """A bad print, a split and a spin-off, 60 and 50 sessions apart."""
    calm.loc[AT, ["high", "close"]] *= 1.4
    calm.loc[AT + 60 :, PRICES] /= 2
    calm.loc[AT + 60 :, "volume"] *= 2
    calm.loc[AT + 110 :, PRICES] *= 0.7
    calm.loc[AT + 110 : AT + 111, "volume"] *= 2
    return calm


def loaded(bars: pd.DataFrame) -> list[Landing]:
    return [delivery(bars, session_close(bars["date"]).iloc[-1] + HOUR, history="assumed")]


def versions_of(landings: list[Landing]) -> BarVersions:
    return bar_versions(landings, 0.95)


def test_an_event_is_provisional_until_the_next_close_and_so_the_table_says(calm):
    raw = planted(calm)
    told = history(versions_of(loaded(raw)), CLEAN)
    closes = session_close(raw["date"])
    lives = told.cleaned.events.set_index("kind")[["first_known", "confirmed_at"]]
    for kind, row in (("bad_print", AT), ("split", AT + 60), ("spin_off", AT + 110)):
        assert lives.loc[kind].tolist() == [closes[row], closes[row + 1]]
        before = known_events(told.cleaned.events, closes[row])
        assert (before["status"] == "provisional").sum() == 1
        assert kind in told.cleaned.events["kind"].tolist()
    assert told.changes["at"].tolist() == [closes[AT + 1], closes[AT + 61], closes[AT + 111]]


def test_between_two_changes_bars_are_only_added(calm):
    raw = planted(calm)
    versions = versions_of(loaded(raw))
    told = history(versions, CLEAN)
    then = pasts(versions, spans_between(told.changes), told.market, CLEAN)
    closes = session_close(raw["date"])
    for span in then.spans.itertuples(index=False):
        bars = then.cleaned.bars[then.cleaned.bars["symbol"] == span.name].drop(columns="symbol")
        last = closes[closes < span.until].index[-1]
        alone = history(versions_of(loaded(raw[: last + 1])), CLEAN).cleaned.bars
        exactly(bars, alone.drop(columns="symbol"))
    assert then.spans["until"].iloc[-1] == FOREVER


def test_history_is_not_rescaled_on_a_provisional_split(calm):
    raw = planted(calm)[: AT + 61]
    told = history(versions_of(loaded(raw)), CLEAN).cleaned
    assert told.events.loc[told.events["kind"] == "split", "status"].tolist() == ["provisional"]
    assert (told.bars["price_factor"] == 1).all()
    assert told.bars["close"].iloc[-1] == raw["close"].iloc[-1]


def test_what_a_correction_takes_back_was_told_until_then(calm):
    raw = planted(calm)
    right = raw.copy()
    right.loc[AT, ["high", "close"]] /= 1.4
    first = loaded(raw)
    corrected = delivery(right, first[0].received_at + HOUR)
    told = history(versions_of([*first, corrected]), CLEAN).cleaned
    event = told.events[told.events["kind"] == "bad_print"].iloc[0]
    closes = session_close(raw["date"])
    assert event[LIFE].tolist() == [closes[AT], closes[AT + 1], corrected.received_at]
    assert event["status"] == "withdrawn"
    assert "bad_print" not in told.quarantine["reason"].tolist()


@pytest.mark.parametrize("session", [AT, AT + 1, AT + 60, AT + 61, AT + 110, 299])
def test_the_events_told_by_a_session_are_those_of_its_bars_and_the_ones_before(calm, session):
    landings = loaded(planted(calm))
    at = session_close(calm["date"])[session]
    whole = history(versions_of(landings), CLEAN).cleaned.events
    alone = history(versions_of(existing_at(landings, at)), CLEAN).cleaned.events
    columns = ["symbol", "date", "kind", "status", *LIFE]
    exactly(known_events(whole, at)[columns], alone[columns])
