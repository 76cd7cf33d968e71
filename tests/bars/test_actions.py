"""Corporate actions: when each is known, what is a version, and in which shares it is."""

from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.bars.actions import KINDS, TYPES, by_the_open, no_actions
from pitwise.bars.landing import Landing, land, no_bars, read_landing
from pitwise.bars.versions import (
    BarVersions,
    bar_versions,
    known_actions,
    known_bars,
    read_versions,
    write_versions,
)
from pitwise.workspace import Workspace


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def table(*rows: tuple) -> pd.DataFrame:
    """Actions of (symbol, date, kind, ratio or amount, announced)."""
    made = [
        {
            "symbol": symbol,
            "date": pd.Timestamp(day),
            "kind": kind,
            "ratio": value if kind in ("split", "spin_off") else np.nan,
            "amount": value if kind not in ("split", "spin_off") else np.nan,
            "announced": pd.Timestamp(announced) if announced else pd.NaT,
        }
        for symbol, day, kind, value, announced in rows
    ]
    return pd.DataFrame(made, columns=list(TYPES)).astype(TYPES)


def feed(received: str, *rows: tuple, **more) -> Landing:
    return Landing(no_bars(), "actions", utc(received), actions=table(*rows), **more)


def bars(*rows: tuple[str, str, float]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["symbol", "date", "close"]).assign(volume=100.0)
    made = made.assign(date=pd.to_datetime(made["date"]), **dict.fromkeys(["open", "high", "low"], 0.0))
    for name in ("open", "high", "low"):
        made[name] = made["close"]
    return made.astype({"symbol": "string"})


def known(landings: list[Landing], at: str | None = None) -> list[tuple]:
    found = known_actions(bar_versions(landings, 0.95), utc(at) if at else None)
    value = found["ratio"].fillna(found["amount"])
    return [
        (s, f"{d:%Y-%m-%d}", k, v)
        for s, d, k, v in zip(found["symbol"], found["date"], found["kind"], value, strict=True)
    ]


# From when an action is known.


@pytest.mark.parametrize(
    ("ex_date", "announced", "expected"),
    [
        ("2014-06-09", "2014-04-23", "2014-04-24T04:00"),  # the day it was announced is over
        ("2014-06-09", None, "2014-06-06T20:00"),  # a Monday: Friday's close
        ("2014-06-09", "2014-06-08", "2014-06-09T04:00"),  # announced on the Sunday
        ("2014-06-09", "2014-06-09", "2014-06-06T20:00"),
        ("2014-06-09", "2014-07-01", "2014-06-06T20:00"),
        ("2014-12-26", None, "2014-12-24T18:00"),  # a half day before Christmas
        ("2014-06-08", None, "2014-06-06T20:00"),  # no session
    ],
)
def test_an_action_of_an_assumed_history_is_known_before_its_ex_date_opens(ex_date, announced, expected):
    made = feed("2016-01-01", ("A", ex_date, "dividend", 1.0, announced), history="assumed")
    assert by_the_open(made.actions).tolist() == [utc(expected)]
    assert bar_versions([made], 0.95).actions["known_at"].tolist() == [utc(expected)]


def test_no_action_of_an_assumed_history_is_known_later_than_it_was_received():
    made = feed("2014-06-01", ("A", "2014-06-09", "dividend", 1.0, None), history="assumed")
    assert bar_versions([made], 0.95).actions["known_at"].tolist() == [utc("2014-06-01")]


def test_an_observed_action_is_known_when_it_was_received():
    made = [feed("2016-01-01", ("A", "2014-06-09", "split", 7.0, "2014-04-23"))]
    assert known(made, "2015-12-31") == []
    assert known(made, "2016-01-01") == [("A", "2014-06-09", "split", 7.0)]


def test_a_correction_is_a_version_and_the_same_again_is_none():
    first = feed("2014-06-01", ("A", "2014-06-09", "dividend", 0.5, None))
    again = feed("2014-06-02", ("A", "2014-06-09", "dividend", 0.5, None))
    mended = feed("2014-06-03", ("A", "2014-06-09", "dividend", 0.6, None))
    made = [first, again, mended]
    assert len(bar_versions(made, 0.95).actions) == 2
    assert known(made, "2014-06-02T12:00") == [("A", "2014-06-09", "dividend", 0.5)]
    assert known(made) == [("A", "2014-06-09", "dividend", 0.6)]


def test_an_action_that_is_absent_where_the_delivery_is_whole_is_withdrawn():
    days = {"A": (date(2014, 6, 1), date(2014, 6, 30))}
    first = feed(
        "2014-06-01", ("A", "2014-06-09", "split", 2.0, None), ("B", "2014-06-09", "split", 2.0, None)
    )
    moved = feed("2014-06-02", ("A", "2014-06-10", "split", 2.0, None), covers=days)
    back = feed("2014-06-03", ("A", "2014-06-09", "split", 2.0, None))
    b = ("B", "2014-06-09", "split", 2.0)
    assert known([first, moved], "2014-06-01") == [("A", "2014-06-09", "split", 2.0), b]
    assert known([first, moved]) == [("A", "2014-06-10", "split", 2.0), b]
    assert known([first, moved, back])[:2] == [
        ("A", "2014-06-09", "split", 2.0),
        ("A", "2014-06-10", "split", 2.0),
    ]


def test_what_is_known_can_be_asked_of_some_symbols():
    made = feed(
        "2014-06-01", ("A", "2014-06-09", "split", 2.0, None), ("B", "2014-06-09", "split", 3.0, None)
    )
    found = known_actions(bar_versions([made], 0.95), symbols=["B"])
    assert found["ratio"].tolist() == [3.0]


keys = st.tuples(
    st.sampled_from("AB"),
    st.sampled_from(["2014-01-06", "2014-01-07", "2014-01-11"]),
    st.sampled_from(KINDS[:3]),
)
said = st.tuples(st.sampled_from([2.0, 3.0]), st.sampled_from([None, "2014-01-02", "2014-01-08"]))


@st.composite
def feeds(draw) -> list[Landing]:
    made, at = [], utc("2014-01-02T15:00")
    for n in range(draw(st.integers(1, 6))):
        at += pd.Timedelta(hours=draw(st.sampled_from([1, 20, 70])))
        rows = draw(st.dictionaries(keys, said, max_size=6))
        covers = {}
        for symbol in draw(st.sets(st.sampled_from("AB"))):
            ends = draw(st.lists(st.sampled_from([6, 7, 11]), min_size=2, max_size=2))
            covers[symbol] = (date(2014, 1, min(ends)), date(2014, 1, max(ends)))
        made.append(
            Landing(
                no_bars(),
                draw(st.sampled_from(["actions", "desk_actions"])),
                at,
                history="assumed" if draw(st.booleans()) and n == 0 else "observed",
                covers=covers,
                actions=table(*((*key, *value) for key, value in rows.items())),
            )
        )
    return made


OPENS = {"2014-01-06": utc("2014-01-03T21:00"), "2014-01-07": utc("2014-01-06T21:00")}
OPENS["2014-01-11"] = utc("2014-01-10T21:00")


def defined(made: list[Landing], at: pd.Timestamp) -> dict:
    """What is known at an instant by the definition: by key, the value."""
    told: dict = {}  # (source, key) -> what it said last
    news: list[tuple] = []  # (known_at, order, key, value)
    for order, one in enumerate(made):
        here = {}
        for row in one.actions.itertuples():
            key = row.symbol, f"{row.date:%Y-%m-%d}", row.kind
            value = str(row.ratio), str(row.amount), str(row.announced)
            here[key] = value
            instant = one.received_at
            if one.history == "assumed" and (one.source, key) not in told:
                then = OPENS[key[1]]
                if pd.notna(row.announced) and row.announced < row.date:
                    then = (row.announced + pd.Timedelta(days=1)).tz_localize("America/New_York")
                instant = min(instant, then)
            if told.get((one.source, key)) != value:
                told[one.source, key] = value
                news.append((instant, order, key, value))
        for source, key in list(told):
            first, last = one.covers.get(key[0], (date.max, date.min))
            whole = first <= date.fromisoformat(key[1]) <= last
            if source == one.source and key not in here and whole and told[source, key] is not None:
                told[source, key] = None
                news.append((one.received_at, order, key, None))
    state: dict = {}
    for instant, _, key, value in sorted(news, key=lambda n: (n[0], n[1])):
        if instant <= at:
            state[key] = value
    return {key: value for key, value in state.items() if value is not None}


def answered(versions: BarVersions, at: pd.Timestamp) -> dict:
    found = known_actions(versions, at)
    return {
        (row.symbol, f"{row.date:%Y-%m-%d}", row.kind): (
            str(row.ratio),
            str(row.amount),
            str(row.announced),
        )
        for row in found.itertuples()
    }


@given(feeds())
@settings(max_examples=30, deadline=None)
def test_what_is_known_at_an_instant_is_what_the_definition_says(made):
    versions = bar_versions(made, 0.95)
    instants = [one.received_at for one in made] + list(versions.actions["known_at"])
    for at in instants:
        for around in (at - pd.Timedelta("1us"), at):
            assert answered(versions, around) == defined(made, around)


@given(feeds())
@settings(max_examples=15, deadline=None)
def test_versions_are_sorted_and_each_says_something_else_than_the_one_before(made):
    actions = bar_versions(made, 0.95).actions
    assert actions.dtypes.to_dict() == no_actions().dtypes.to_dict()
    pd.testing.assert_frame_equal(
        actions, actions.sort_values(["symbol", "date", "kind", "known_at"], ignore_index=True)
    )
    for _, one in actions.groupby(["symbol", "date", "kind"]):
        said = [(str(r.ratio), str(r.amount), str(r.announced), r.withdrawn) for r in one.itertuples()]
        assert all(a != b for a, b in pairwise(said))
        assert not said[0][-1]


@given(feeds())
@settings(max_examples=15, deadline=None)
def test_what_comes_later_changes_nothing_that_was_known_before(made):
    whole = bar_versions(made, 0.95)
    for n in range(1, len(made)):
        at = made[n - 1].received_at
        assert answered(bar_versions(made[:n], 0.95), at) == answered(whole, at)


# The share basis.


def split_adjusted(received: str, rows: pd.DataFrame, told: pd.DataFrame) -> list[Landing]:
    more = {"basis": "split_adjusted", "history": "observed"}
    return [
        Landing(rows, "yfinance", utc(received), **more),
        Landing(no_bars(), "yfinance_actions", utc(received), actions=told, **more),
    ]


def test_a_later_split_restates_the_amounts_of_a_source_and_makes_no_version_of_them():
    days = ["2014-06-04", "2014-06-05", "2014-06-06"]
    first = split_adjusted(
        "2014-06-06T22:00",
        bars(*(("A", day, price) for day, price in zip(days, (90.0, 92.0, 94.0), strict=True))),
        table(("A", "2014-06-05", "dividend", 0.82, None), ("A", "2012-01-05", "split", 3.0, None)),
    )
    second = split_adjusted(
        "2014-06-09T22:00",
        bars(
            *(("A", d, p) for d, p in zip([*days, "2014-06-09"], (45.0, 46.0, 47.0, 48.0), strict=True))
        ),
        table(
            ("A", "2014-06-05", "dividend", 0.41, None),
            ("A", "2012-01-05", "split", 3.0, None),
            ("A", "2014-06-09", "split", 2.0, None),
        ),
    )
    made = [*first, *second]
    assert known(made, "2014-06-07") == [("A", "2014-06-05", "dividend", 0.82)]
    assert known(made) == [("A", "2014-06-05", "dividend", 0.82), ("A", "2014-06-09", "split", 2.0)]
    assert len(bar_versions(made, 0.95).actions) == 2


def test_a_feed_beside_split_adjusted_prices_is_put_in_the_shares_that_they_count():
    prices = Landing(bars(("A", "2014-06-05", 92.0)), "csv", utc("2014-06-06"), basis="split_adjusted")
    told = feed(
        "2014-06-06",
        ("A", "2014-05-08", "dividend", 3.5, None),
        ("A", "2014-06-02", "split", 7.0, None),
        ("A", "2014-06-04", "dividend", 0.5, None),
        ("A", "2014-07-01", "split", 2.0, None),
    )
    assert known([prices, told]) == [
        ("A", "2014-05-08", "dividend", 0.5),
        ("A", "2014-06-04", "dividend", 0.5),
        ("A", "2014-07-01", "split", 2.0),
    ]


# Files.


def test_actions_land_and_come_back(tmp_path):
    workspace = Workspace(tmp_path)
    landing = feed(
        "2014-06-06",
        ("A", "2014-06-09", "split", 7.0, "2014-04-23"),
        ("A", "2014-06-10", "spin_off", np.nan, None),
    )
    path = land(workspace, landing)
    back = read_landing(path)
    pd.testing.assert_frame_equal(back.actions, landing.actions)
    pd.testing.assert_frame_equal(back.rows.astype({"symbol": "string"}), no_bars())
    assert land(workspace, Landing(**{**vars(back), "received_at": utc("2014-06-08")})) == path
    other = feed("2014-06-09", ("A", "2014-06-09", "split", 2.0, "2014-04-23"))
    assert land(workspace, other) != path


def test_a_landing_of_actions_says_nothing_of_bars():
    prices = Landing(bars(("A", "2014-06-05", 92.0)), "csv", utc("2014-06-06"))
    told = feed("2014-06-07", ("A", "2014-06-09", "split", 7.0, None), history="assumed")
    alone, beside = bar_versions([prices], 0.95), bar_versions([prices, told], 0.95)
    pd.testing.assert_frame_equal(known_bars(alone), known_bars(beside))
    pd.testing.assert_frame_equal(alone.seals, beside.seals)
    assert known_bars(bar_versions([told], 0.95)).empty


def test_the_versions_of_actions_are_written_and_read(tmp_path):
    workspace = Workspace(tmp_path)
    prices = Landing(bars(("A", "2014-06-05", 92.0)), "csv", utc("2014-06-06"))
    for landings in ([prices], [prices, feed("2014-06-07", ("A", "2014-06-09", "split", 7.0, None))]):
        versions = bar_versions(landings, 0.95)
        write_versions(workspace, versions)
        back = read_versions(workspace).actions
        pd.testing.assert_frame_equal(back, versions.actions)


def test_versions_without_actions_have_an_empty_table_of_them():
    versions = BarVersions(
        *bar_versions([Landing(bars(("A", "2014-06-05", 9.0)), "csv", utc("2014-06-06"))], 0.9)[:3]
    )
    assert known_actions(versions).empty
    assert known_actions(versions, utc("2014-06-06")).columns.tolist()[-1] == "known_at"
