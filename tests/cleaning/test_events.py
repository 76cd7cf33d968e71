"""The lives of events: told, confirmed, withdrawn, told again, each at a literal instant."""

import pandas as pd
import pytest
from support.deliveries import delivery, exactly, versions_of
from support.faulty_bars import AT, CLEAN, PRICES

from pitwise.bars.actions import TYPES
from pitwise.bars.calendar import session_close
from pitwise.cleaning.as_of import history
from pitwise.cleaning.events import (
    DTYPES,
    EVENT_COLUMNS,
    LIFE,
    event_table,
    known_events,
    lives,
    standing,
    with_status,
)

DAY = pd.Timestamp("2014-03-03")
EVER = pd.Timestamp(0, tz="UTC")


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


MONDAY, TUESDAY = utc("2014-03-03 21:00"), utc("2014-03-04 21:00")
MARCH, APRIL, MAY = utc("2014-03-20 12:00"), utc("2014-04-20 12:00"), utc("2014-05-20 12:00")


def event(
    first: pd.Timestamp = MONDAY,
    confirmed: pd.Timestamp | None = TUESDAY,
    withdrawn: pd.Timestamp | None = None,
    kind: str = "bad_print",
    **known,
) -> pd.DataFrame:
    life = zip(LIFE, (first, confirmed, withdrawn), strict=True)
    columns = {"symbol": "AAA", "date": DAY, "kind": kind, **dict(life), **known}
    return event_table(**{name: pd.array([value]) for name, value in columns.items()})


NOTHING = event()[:0]


def life(events: pd.DataFrame) -> list[tuple]:
    """(first_known, confirmed_at, withdrawn_at, status) of each, None where that has not been."""
    rows = events[[*LIFE, "status"]].astype(object)
    return list(rows.where(rows.notna(), None).itertuples(index=False, name=None))


def test_the_table_has_all_columns_and_types_whatever_is_known_of_an_event():
    table = event_table(symbol=["AAA"], date=[DAY], kind=["gap"])
    assert list(table) == EVENT_COLUMNS
    assert table["sessions"].tolist() == [1]
    assert table["status"].tolist() == ["provisional"]
    for name, kind in DTYPES.items():
        assert table[name].dtype == kind
    exactly(NOTHING, with_status(NOTHING))


@pytest.mark.parametrize(
    ("confirmed", "withdrawn", "status"),
    [
        (None, None, "provisional"),
        (TUESDAY, None, "confirmed"),
        (TUESDAY, MARCH, "withdrawn"),
        (None, MARCH, "withdrawn"),
    ],
)
def test_the_status_follows_from_the_life(confirmed, withdrawn, status):
    assert event(MONDAY, confirmed, withdrawn)["status"].tolist() == [status]


SECOND = pd.Timedelta("1s")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (MONDAY - SECOND, []),
        (MONDAY, [(MONDAY, None, None, "provisional")]),
        (TUESDAY - SECOND, [(MONDAY, None, None, "provisional")]),
        (TUESDAY, [(MONDAY, TUESDAY, None, "confirmed")]),
        (MARCH - SECOND, [(MONDAY, TUESDAY, None, "confirmed")]),
        (MARCH, [(MONDAY, TUESDAY, MARCH, "withdrawn")]),
    ],
)
def test_what_is_known_of_an_event_at_an_instant_is_its_life_so_far(at, expected):
    told = event(MONDAY, TUESDAY, MARCH, confidence=0.95)
    then = known_events(told, at)
    assert life(then) == expected
    assert then["confidence"].tolist() == [0.95] * len(expected)


def test_what_stands_is_confirmed_and_not_withdrawn():
    told = pd.concat(
        [event(), event(confirmed=None), event(withdrawn=MARCH), event(kind="split")], ignore_index=True
    )
    exactly(standing(told, "bad_print"), told[:1])


def test_of_bars_that_were_never_revised_events_have_the_life_they_were_told_with():
    told = event()
    exactly(lives([(EVER, told)]), told)
    exactly(lives([(EVER, NOTHING)]), NOTHING)
    exactly(lives([]), NOTHING)


def test_an_event_that_a_revision_leaves_keeps_its_instants():
    assert life(lives([(EVER, event()), (MARCH, event())])) == [(MONDAY, TUESDAY, None, "confirmed")]


def test_an_event_that_a_revision_takes_away_is_withdrawn_then():
    assert life(lives([(EVER, event()), (MARCH, NOTHING)])) == [(MONDAY, TUESDAY, MARCH, "withdrawn")]


def test_an_event_that_a_revision_brings_is_told_and_confirmed_then():
    assert life(lives([(EVER, NOTHING), (MARCH, event())])) == [(MARCH, MARCH, None, "confirmed")]


def test_an_event_that_comes_back_is_told_again_and_its_first_life_stays():
    spans = [(EVER, event()), (MARCH, NOTHING), (APRIL, event())]
    assert life(lives(spans)) == [
        (MONDAY, TUESDAY, MARCH, "withdrawn"),
        (APRIL, APRIL, None, "confirmed"),
    ]
    assert life(lives([*spans, (MAY, NOTHING)]))[1] == (APRIL, APRIL, MAY, "withdrawn")
    then = known_events(lives(spans), MARCH)
    assert life(then) == [(MONDAY, TUESDAY, MARCH, "withdrawn")]


def test_an_event_told_before_a_revision_and_settled_after_it_was_told_once():
    early, late = event(confirmed=None), event(MONDAY, APRIL)
    assert life(lives([(EVER, early), (MARCH, late)])) == [(MONDAY, APRIL, None, "confirmed")]


def test_what_a_revision_settles_stands_from_the_revision_on():
    early, late = event(confirmed=None), event(MONDAY, TUESDAY)
    assert life(lives([(EVER, early), (MARCH, late)])) == [(MONDAY, MARCH, None, "confirmed")]


def test_a_revision_that_changes_the_evidence_leaves_the_instants_and_the_new_evidence():
    told = lives([(EVER, event(close=10.0)), (MARCH, event(close=11.0))])
    assert life(told) == [(MONDAY, TUESDAY, None, "confirmed")]
    assert told["close"].tolist() == [11.0]


def test_a_guess_withdrawn_by_the_next_close_is_told_once_however_often_the_bars_are_revised():
    guess = event(MONDAY, None, TUESDAY, kind="split")
    for spans in (
        [(EVER, guess)],
        [(EVER, guess), (MARCH, guess)],
        [(EVER, guess), (MARCH, guess), (APRIL, NOTHING)],
    ):
        assert life(lives(spans)) == [(MONDAY, None, TUESDAY, "withdrawn")]


def test_a_guess_of_bars_that_came_when_its_answer_was_known_was_never_told():
    guess = event(MONDAY, None, TUESDAY, kind="split")
    assert lives([(EVER, NOTHING), (MARCH, guess)]).empty


def test_a_guess_that_a_revision_answers_before_the_next_close_is_withdrawn_by_the_revision():
    between = utc("2014-03-04 12:00")
    guess = event(MONDAY, None, None, kind="split")
    assert life(lives([(EVER, guess), (between, NOTHING)])) == [(MONDAY, None, between, "withdrawn")]


def test_events_of_two_kinds_at_one_bar_have_a_life_each():
    both = pd.concat([event(), event(kind="gap")], ignore_index=True)
    told = lives([(EVER, both), (MARCH, event(kind="gap"))]).set_index("kind")
    assert life(told.loc[["bad_print"]]) == [(MONDAY, TUESDAY, MARCH, "withdrawn")]
    assert life(told.loc[["gap"]]) == [(MONDAY, TUESDAY, None, "confirmed")]


def announced(kind: str, day: pd.Timestamp, **said) -> pd.DataFrame:
    one = {"symbol": "S000", "date": day, "kind": kind, "ratio": None, "amount": None, "announced": None}
    return pd.DataFrame([one | said]).astype(TYPES)


def test_a_ticker_that_an_announced_change_gives_to_another_company_starts_anew(calm):
    change = announced("symbol_change", calm["date"][AT])
    closes = session_close(calm["date"])
    bars = delivery(calm, closes[299], history="assumed")
    feed = delivery(
        calm[:0], closes[299], source="actions", history="assumed", covers={}, actions=change
    )
    told = history(versions_of([bars, feed]), CLEAN).cleaned
    assert told.bars["segment"].tolist() == [0] * AT + [1] * (300 - AT)
    (reused,) = told.events.to_dict("records")
    assert (reused["date"], reused["kind"]) == (calm["date"][AT], "symbol_reused")
    assert (reused["told_by"], reused["status"]) == ("actions", "confirmed")
    assert reused["first_known"] == closes[AT]


def test_an_announced_split_that_the_feed_takes_back_is_withdrawn(calm):
    calm.loc[AT:, PRICES] /= 1.3  # as news, on heavy trading
    calm.loc[AT : AT + 2, "volume"] *= [8, 3, 2]
    split = announced("split", calm["date"][AT], ratio=1.3)
    closes = session_close(calm["date"])
    bars = delivery(calm, closes[299], history="assumed")
    one, two = closes[299] + pd.Timedelta("1h"), closes[299] + pd.Timedelta("2h")
    covers = {"S000": (calm["date"][0].date(), calm["date"][299].date())}
    feed = delivery(calm[:0], one, source="actions", covers={}, actions=split)
    back = delivery(calm[:0], two, source="actions", covers=covers, actions=split[:0])

    told = history(versions_of([bars, feed]), CLEAN).cleaned
    assert told.bars["share_factor"].tolist() == pytest.approx([1.0] * AT + [1.3] * (300 - AT))
    by_feed = told.events[told.events["told_by"] == "actions"]
    assert by_feed["kind"].tolist() == ["split"]
    assert life(by_feed) == [(one, one, None, "confirmed")]

    told = history(versions_of([bars, feed, back]), CLEAN).cleaned
    assert (told.bars["share_factor"] == 1).all()
    assert life(told.events[told.events["told_by"] == "actions"]) == [(one, one, two, "withdrawn")]
    news = told.events[told.events["kind"] == "jump"]
    assert life(news)[-1][1:] == (two, None, "confirmed")
