"""Bar versions, with literal numbers, and against their definition row by row."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.bars.landing import Landing, first_to_last
from pitwise.bars.schema import NUMBERS
from pitwise.bars.versions import bar_versions, known_bars

DAYS = ["2014-01-02", "2014-01-03", "2014-01-06", "2014-01-07", "2014-01-08"]


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def rows(*bars: tuple, **more) -> pd.DataFrame:
    """(symbol, day, close[, volume]) each; open, high and low are a multiple of the close."""
    table = pd.DataFrame([(b if len(b) > 3 else (*b, 100.0)) for b in bars], columns=list("sdcv"))
    close = table["c"].astype(float)
    return pd.DataFrame(
        {
            "symbol": table["s"].astype("string"),
            "date": pd.to_datetime(table["d"]).astype("datetime64[us]"),
            **{"open": close, "high": close * 1.25, "low": close * 0.75, "close": close},
            "volume": table["v"].astype(float),
            **more,
        }
    )


def landing(table: pd.DataFrame, at: str, source: str = "csv", **more) -> Landing:
    return Landing(table, source, utc(at), **more)


def versions(*landings: Landing, coverage: float = 0.95):
    return bar_versions(landings, coverage)


def listed(made) -> list[tuple]:
    """(symbol, day, close or None where withdrawn, known_at) of each row."""
    return [
        (b.symbol, f"{b.date:%m-%d}", None if b.withdrawn else b.close, f"{b.known_at:%m-%dT%H:%M}")
        for b in made.bars.itertuples()
    ]


FIRST = landing(
    rows(("A", DAYS[0], 10), ("A", DAYS[1], 11), ("B", DAYS[0], 20), ("B", DAYS[1], 21)),
    "2014-01-03T23:00",
    history="assumed",
)


def test_of_a_first_history_each_bar_is_known_as_its_session_closed():
    assert listed(versions(FIRST)) == [
        ("A", "01-02", 10, "01-02T21:00"),
        ("A", "01-03", 11, "01-03T21:00"),
        ("B", "01-02", 20, "01-02T21:00"),
        ("B", "01-03", 21, "01-03T21:00"),
    ]


def test_what_differs_later_is_a_version_and_what_does_not_is_none():
    again = landing(
        rows(("A", DAYS[0], 10), ("A", DAYS[1], 11.5), ("B", DAYS[1], 21)), "2014-01-06T23:00"
    )
    assert listed(versions(FIRST, again))[1:3] == [
        ("A", "01-03", 11, "01-03T21:00"),
        ("A", "01-03", 11.5, "01-06T23:00"),
    ]
    assert len(versions(FIRST, again).bars) == 5


def test_an_old_file_loaded_again_does_not_undo_a_live_correction():
    live = landing(
        rows(("A", DAYS[1], 11.5), known_at=[utc("2014-01-04T10:00")]), "2014-01-04T11:00", "live"
    )
    old = landing(FIRST.rows, "2014-01-06T23:00")
    made = versions(FIRST, live, old)
    assert listed(made)[1:3] == [("A", "01-03", 11, "01-03T21:00"), ("A", "01-03", 11.5, "01-04T10:00")]
    assert known_bars(made)["close"].tolist() == [10, 11.5, 20, 21]


def test_what_a_source_leaves_out_where_it_covers_all_is_withdrawn_and_comes_back():
    table = rows(("A", DAYS[0], 10))
    covers = {"A": (date(2014, 1, 2), date(2014, 1, 3))}
    less = landing(table, "2014-01-06T23:00", covers=covers)
    more = landing(rows(("A", DAYS[1], 11)), "2014-01-07T23:00")
    made = versions(FIRST, less, more)
    assert listed(made)[1:4] == [
        ("A", "01-03", 11, "01-03T21:00"),
        ("A", "01-03", None, "01-06T23:00"),
        ("A", "01-03", 11, "01-07T23:00"),
    ]
    assert len(known_bars(made, utc("2014-01-07T00:00"))) == 3


def test_a_symbol_that_is_not_in_a_load_loses_nothing():
    less = landing(rows(("A", DAYS[0], 10)), "2014-01-06T23:00")
    covered = landing(less.rows, "2014-01-06T23:00", covers=first_to_last(less.rows))
    for second in (less, covered):
        assert len(known_bars(versions(FIRST, second))) == 4


def test_another_source_withdraws_nothing_that_it_did_not_deliver():
    covers = {"A": (date(2014, 1, 2), date(2014, 1, 3))}
    other = landing(rows(("A", DAYS[0], 10)), "2014-01-06T23:00", "yfinance", covers=covers)
    assert len(known_bars(versions(FIRST, other))) == 4


def test_a_bar_is_withdrawn_by_hand_and_stays_so_when_its_file_is_loaded_again():
    hand = landing(rows(("A", DAYS[1], np.nan), withdrawn=[True]), "2014-01-06T12:00", "withdrawal")
    made = versions(FIRST, hand, landing(FIRST.rows, "2014-01-06T23:00"))
    assert listed(made)[1:3] == [("A", "01-03", 11, "01-03T21:00"), ("A", "01-03", None, "01-06T12:00")]


def test_a_withdrawal_of_what_was_never_there_is_no_version():
    hand = landing(rows(("C", DAYS[1], np.nan), withdrawn=[True]), "2014-01-06T12:00", "withdrawal")
    assert len(versions(FIRST, hand).bars) == 4


def test_rows_of_one_bar_in_one_delivery_are_one_version():
    table = rows(("A", DAYS[0], 10), ("A", DAYS[0], 12), ("A", DAYS[1], 11), ("A", DAYS[1], 11))
    made = versions(landing(table, "2014-01-03T23:00", history="assumed"))
    assert [row[2] for row in listed(made)] == [10, 12, 11, 11]
    turned = table.iloc[[1, 0, 2]].reset_index(drop=True)  # the same, said in another order and once
    assert (
        len(versions(landing(table, "2014-01-03T23:00"), landing(turned, "2014-01-06T23:00")).bars) == 4
    )
    mended = landing(rows(("A", DAYS[0], 12)), "2014-01-06T23:00")
    now = known_bars(versions(landing(table, "2014-01-03T23:00"), mended))
    assert now["close"].tolist() == [12, 11, 11]


def test_a_bar_of_an_open_session_is_said_again_by_the_same_numbers_after_the_close():
    early = landing(rows(("A", DAYS[0], 10)), "2014-01-02T18:00")
    late = landing(rows(("A", DAYS[0], 10)), "2014-01-02T22:00")
    assert [row[3] for row in listed(versions(early, late))] == ["01-02T18:00", "01-02T22:00"]


def test_rows_without_a_symbol_or_a_date_are_kept_once():
    bare = rows(("A", None, 10), (None, DAYS[0], 11))
    made = versions(landing(bare, "2014-01-03T23:00"), landing(bare, "2014-01-06T23:00"))
    assert made.bars["close"].tolist() == [10, 11]
    assert made.bars["known_at"].tolist() == [utc("2014-01-03T23:00")] * 2
    assert len(known_bars(made)) == 2


# Factors.


def adjusted(*bars: tuple[str, float, float]) -> pd.DataFrame:
    return rows(*(("A", day, close) for day, close, _ in bars), adj_close=[adj for *_, adj in bars])


def steps(made) -> list[tuple]:
    return [
        (f"{f.date:%m-%d}", f.kind, round(f.factor, 6), f"{f.known_at:%m-%dT%H:%M}")
        for f in made.factors.itertuples()
    ]


def test_an_adjusted_close_is_kept_as_its_steps():
    table = adjusted(
        (DAYS[0], 100, 49.5), (DAYS[1], 102, 50.49), (DAYS[2], 51, 50.49), (DAYS[3], 50, 50)
    )
    made = versions(landing(table, "2014-01-07T23:00", history="assumed"))
    assert steps(made) == [
        ("01-02", "adjusted_close", 1.0, "01-02T21:00"),
        ("01-06", "adjusted_close", 2.0, "01-06T21:00"),
        ("01-07", "adjusted_close", 1.010101, "01-07T21:00"),
    ]
    known = known_bars(made)
    assert known["adj_close"].round(9).tolist() == [100, 102, 102, round(100 / 0.99, 9)]
    then = known_bars(made, utc("2014-01-03T22:00"))
    assert then["adj_close"].tolist() == [100, 102]


def test_a_dividend_that_restates_a_whole_past_is_one_step():
    first = adjusted((DAYS[0], 100, 100), (DAYS[1], 102, 102), (DAYS[2], 101, 101))
    # One dollar is paid on the fourth day: 100 / 101 of every price before, rounded to cents.
    second = adjusted(
        (DAYS[0], 100, 99.01), (DAYS[1], 102, 100.99), (DAYS[2], 101, 100), (DAYS[3], 100, 100)
    )
    made = versions(
        landing(first, "2014-01-06T23:00", history="assumed"), landing(second, "2014-01-07T23:00")
    )
    assert len(made.bars) == 4
    assert [(day, at) for day, _, _, at in steps(made)] == [
        ("01-02", "01-02T21:00"),
        ("01-07", "01-07T23:00"),
    ]
    assert made.factors["factor"].iloc[1] == pytest.approx(1.01, abs=1e-4)


def test_a_step_that_is_taken_back_is_one_of_1():
    first = adjusted((DAYS[0], 100, 50), (DAYS[1], 50, 50))
    second = adjusted((DAYS[0], 100, 100), (DAYS[1], 50, 50))
    made = versions(
        landing(first, "2014-01-03T23:00", history="assumed"), landing(second, "2014-01-06T23:00")
    )
    assert steps(made)[1:] == [
        ("01-03", "adjusted_close", 2.0, "01-03T21:00"),
        ("01-03", "adjusted_close", 1.0, "01-06T23:00"),
    ]
    assert known_bars(made)["adj_close"].tolist() == [100, 50]


def test_session_by_session_the_steps_are_those_of_one_load():
    table = adjusted(
        (DAYS[0], 100, 49.5), (DAYS[1], 102, 50.49), (DAYS[2], 51, 50.49), (DAYS[3], 50, 50)
    )
    at = ["2014-01-02T21:00", "2014-01-03T21:00", "2014-01-06T21:00", "2014-01-07T21:00"]
    daily = [landing(table.iloc[[i]], at[i]) for i in range(4)]
    one, many = versions(landing(table, at[3], history="assumed")), versions(*daily)
    for a, b in zip(one, many, strict=True):
        pd.testing.assert_frame_equal(a, b)


def test_a_split_that_restates_all_prices_is_one_factor():
    first = landing(
        rows(("A", DAYS[0], 100, 10), ("A", DAYS[1], 102, 12)),
        "2014-01-03T23:00",
        "yfinance",
        basis="split_adjusted",
        history="assumed",
    )
    second = landing(
        rows(("A", DAYS[0], 50, 20), ("A", DAYS[1], 51, 24), ("A", DAYS[2], 52, 30)),
        "2014-01-06T23:00",
        "yfinance",
        basis="split_adjusted",
    )
    made = versions(first, second)
    assert made.bars["close"].tolist() == [100, 102, 52]
    assert made.bars["volume"].tolist() == [10, 12, 30]
    assert steps(made) == [("01-06", "split", 2.0, "01-06T23:00")]
    assert known_bars(made)["adj_close"].tolist() == [100, 102, 104]
    third = landing(
        rows(("A", DAYS[0], 50, 20), ("A", DAYS[1], 51.5, 24), ("A", DAYS[2], 52, 30)),
        "2014-01-07T23:00",
        "yfinance",
        basis="split_adjusted",
    )
    corrected = versions(first, second, third)
    assert corrected.bars["close"].tolist() == [100, 102, 103, 52]
    assert len(corrected.factors) == 1


def test_one_corrected_bar_is_no_split():
    first = landing(
        rows(*(("A", day, 100) for day in DAYS[:4])),
        "2014-01-07T23:00",
        "yfinance",
        basis="split_adjusted",
        history="assumed",
    )
    second = landing(
        rows(("A", DAYS[0], 100), ("A", DAYS[1], 50), ("A", DAYS[2], 100), ("A", DAYS[3], 100)),
        "2014-01-08T23:00",
        "yfinance",
        basis="split_adjusted",
    )
    made = versions(first, second)
    assert made.factors.empty
    assert made.bars["close"].tolist() == [100, 100, 50, 100, 100]


# Seals.


def seals(made) -> list[tuple[str, str]]:
    return [(f"{s.date:%m-%d}", f"{s.sealed_at:%m-%dT%H:%M}") for s in made.seals.itertuples()]


def market(n: int, day: str) -> list[tuple]:
    return [(f"S{i:02}", day, 10 + i) for i in range(n)]


def test_a_history_is_sealed_at_each_close():
    assert seals(versions(FIRST)) == [("01-02", "01-02T21:00"), ("01-03", "01-03T21:00")]


def test_a_session_is_sealed_when_it_covers_the_one_before():
    first = landing(rows(*market(20, DAYS[0])), "2014-01-02T22:00", history="assumed")
    live = [
        landing(rows(bar), f"2014-01-03T21:{i:02}", "live")
        for i, bar in enumerate(market(20, DAYS[1]), 10)
    ]
    assert seals(versions(first, *live[:18])) == [("01-02", "01-02T21:00")]
    assert seals(versions(first, *live)) == [("01-02", "01-02T21:00"), ("01-03", "01-03T21:28")]
    assert seals(versions(first, *live, coverage=0.5))[1] == ("01-03", "01-03T21:19")


def test_a_session_is_sealed_by_hand_or_with_a_later_one():
    first = landing(rows(*market(20, DAYS[0])), "2014-01-02T22:00", history="assumed")
    part = landing(rows(*market(3, DAYS[1])), "2014-01-03T22:00")
    hand = landing(rows(*[]), "2014-01-03T23:30", "seal", seals=(date(2014, 1, 3),))
    assert seals(versions(first, part, hand))[1:] == [("01-03", "01-03T23:30")]
    # Caught up with symbol by symbol: three of twenty seal no session, though they are all of the one
    # before.
    few = landing(rows(*market(3, DAYS[2])), "2014-01-06T22:00")
    assert seals(versions(first, part, few))[1:] == []
    late = landing(rows(*market(19, DAYS[2])), "2014-01-06T22:00")
    assert seals(versions(first, part, late))[1:] == [("01-03", "01-06T22:00"), ("01-06", "01-06T22:00")]


def test_a_bar_of_an_open_session_seals_nothing():
    first = landing(rows(("A", DAYS[0], 10)), "2014-01-02T22:00", history="assumed")
    early = landing(rows(("A", DAYS[1], 11)), "2014-01-03T15:00")
    assert seals(versions(first, early)) == [("01-02", "01-02T21:00")]
    again = landing(early.rows, "2014-01-03T22:00")
    assert seals(versions(first, early, again))[1:] == [("01-03", "01-03T22:00")]


# Against the definition, on deliveries that hypothesis draws.

CLOSES = {day: utc(f"{day}T21:00") for day in DAYS}
SOURCES = ["csv", "live", "yahoo"]

cells = st.tuples(
    st.sampled_from("ABC"),
    st.sampled_from(DAYS),
    st.sampled_from([1.0, 2.0, 3.0, np.nan]),
    st.sampled_from([None, None, 1, 5, 30]),  # hours before the landing, of live rows
    st.sampled_from([False, False, False, True]),
)


@st.composite
def deliveries(draw) -> list[Landing]:
    made = []
    at = utc("2014-01-02T15:00")
    for n in range(draw(st.integers(1, 5))):
        at += pd.Timedelta(hours=draw(st.sampled_from([3, 20, 50])))
        source = draw(st.sampled_from(SOURCES))
        drawn = draw(st.lists(cells, min_size=0, max_size=8))
        table = rows(*((s, day, close) for s, day, close, _, _ in drawn))
        if source == "live":
            instants = [at - pd.Timedelta(hours=h) if h else pd.NaT for *_, h, _ in drawn]
            table["known_at"] = pd.Series(instants, dtype="datetime64[us, UTC]")
            table["withdrawn"] = pd.Series([w for *_, w in drawn], dtype=bool)
        covers = {}
        if source != "live":
            for symbol in draw(st.sets(st.sampled_from("ABC"))):
                low, high = sorted(draw(st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS))))
                covers[symbol] = (date.fromisoformat(low), date.fromisoformat(high))
        history = "assumed" if n == 0 and draw(st.booleans()) else "observed"
        made.append(Landing(table, source, at, history=history, covers=covers))
    return made


def defined(made: list[Landing]) -> list[tuple]:
    """The versions by their definition: (symbol, day, known_at, numbers of its rows or None)."""
    said: dict = {}  # (source, bar) -> numbers or None if withdrawn, and whether the session had closed
    news: dict = {}  # bar -> [(known_at, order, numbers, settled)]
    for order, one in enumerate(made):
        statements: dict = {}
        for row in one.rows.itertuples():
            bar = row.symbol, f"{row.date:%Y-%m-%d}"
            own = getattr(row, "known_at", pd.NaT)
            gone = bool(getattr(row, "withdrawn", False))
            numbers = None if gone else tuple(str(getattr(row, name)) for name in NUMBERS)
            statements.setdefault((bar, own if pd.notna(own) else None), []).append(numbers)
        before = {bar for source, bar in said if source == one.source}
        # A row's own instant may come before the landing's; rows without one were read first.
        for (bar, own), numbers in sorted(
            statements.items(), key=lambda s: (s[0][0], s[0][1] or utc("1900-01-01"))
        ):
            if own is not None:
                known = own
            elif one.history == "assumed" and (one.source, bar) not in said:
                known = min(CLOSES[bar[1]], one.received_at)
            else:
                known = one.received_at
            what = None if None in numbers else frozenset(numbers)
            settled = what is None or known >= CLOSES[bar[1]]
            last = said.get((one.source, bar))
            if what is not None and last and last[0] == what and (last[1] or not settled):
                continue
            said[one.source, bar] = what, settled
            news.setdefault(bar, []).append((known, order, what, settled))
        here = {bar for bar, _ in statements}
        for bar in sorted(before - here):
            first, last_day = one.covers.get(bar[0], (date.max, date.min))
            if first <= date.fromisoformat(bar[1]) <= last_day and said[one.source, bar][0] is not None:
                said[one.source, bar] = None, True
                news[bar].append((one.received_at, order, None, True))
    result = []
    for bar, events in sorted(news.items()):
        held = None, True
        at_instant: dict = {}
        for known, _, what, settled in sorted(events, key=lambda e: (e[0], e[1])):
            at_instant[known] = what, settled
        for known, (what, settled) in at_instant.items():
            if what == held[0] and (held[1] or not settled):
                continue
            held = what, settled
            result.append((*bar, known, what))
    return result


def shown(bars: pd.DataFrame) -> list[tuple]:
    keys = ["symbol", "date", "known_at"]
    found = []
    for (symbol, day, known), group in bars.groupby(keys, sort=True):
        gone = group["withdrawn"].any()
        numbers = frozenset(tuple(str(v) for v in row) for row in group[NUMBERS].to_numpy().tolist())
        found.append((symbol, f"{day:%Y-%m-%d}", known, None if gone else numbers))
    return found


@pytest.mark.property
@given(deliveries())
@settings(deadline=None, max_examples=40)
def test_versions_are_what_the_definition_says(made):
    versions_made = bar_versions(made, 0.95)
    wanted = defined(made)
    assert shown(versions_made.bars) == wanted
    for at in [one.received_at for one in made]:
        known = known_bars(versions_made, at)
        newest = {}
        for symbol, day, instant, what in wanted:
            if instant <= at:
                newest[symbol, day] = what
        bars = {(s, f"{d:%Y-%m-%d}") for s, d in zip(known["symbol"], known["date"], strict=True)}
        assert bars == {bar for bar, what in newest.items() if what is not None}


@pytest.mark.property
@given(deliveries())
@settings(deadline=None, max_examples=40)
def test_loading_what_existed_at_an_instant_is_asking_for_it(made):
    """For deliveries as they came: live rows known when they landed, nothing assumed."""
    made = [
        Landing(
            one.rows.drop(columns="known_at", errors="ignore"),
            one.source,
            one.received_at,
            covers=one.covers,
        )
        for one in made
    ]
    whole = bar_versions(made, 0.95)
    for n in range(1, len(made)):
        at = made[n - 1].received_at
        part = bar_versions(made[:n], 0.95)
        pd.testing.assert_frame_equal(
            part.bars, whole.bars[whole.bars["known_at"] <= at].reset_index(drop=True)
        )
        # A session of which nothing was known by then may be sealed by a later one all the same.
        seals_by_then = whole.seals[
            (whole.seals["sealed_at"] <= at) & whole.seals["date"].isin(part.bars["date"])
        ]
        pd.testing.assert_frame_equal(part.seals, seals_by_then.reset_index(drop=True))
