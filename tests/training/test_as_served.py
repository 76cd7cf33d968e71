"""Windows as they were served, on histories made by hand and against the definition."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from support import small_runs as small

from pitwise.bars.calendar import session_close
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.served import ServedWindows, as_served, last_sessions
from pitwise.features.windows import last_windows
from pitwise.workspace import Workspace, read_json, read_parquet, write_parquet
from training import dataset

DAYS = pd.Series(pd.to_datetime([f"2024-01-{day:02d}" for day in (2, 3, 4, 5, 8, 9, 10, 11, 12)]))
CLOSES = session_close(DAYS)
SEALS = pd.DataFrame({"date": DAYS, "sealed_at": CLOSES + pd.Timedelta("1h")})
LATER = pd.Timedelta("2h")
"""After the session's seal, and before the next session."""
FEATURES = ["close", "volume", "rsi_14"]
WINDOW = 3


def versions(*rows: tuple) -> pd.DataFrame:
    """A history of (symbol, session, known at, close) and, where they are not 1, both factors.

    Known at: a session's number for its close, or an instant. The volume is 100 times the close, every
    other feature the close; a close of NaN withdraws the row.
    """
    table = pd.DataFrame([(*row, 1.0, 1.0)[:6] for row in rows])
    table.columns = ["symbol", "session", "known", "close", "price_factor", "share_factor"]
    created = [CLOSES[at] if isinstance(at, int) else at for at in table["known"]]
    history = pd.DataFrame(dict.fromkeys(NAMES, table["close"]))
    for name in NAMES:
        if BY_NAME[name].unit == "shares":
            history[name] = 100 * table["close"]
    history.insert(0, "symbol", table["symbol"].astype("string"))
    history.insert(1, "event_timestamp", CLOSES[table["session"]].array)
    history.insert(2, CREATED, pd.Series(created, dtype="datetime64[us, UTC]"))
    history = history.assign(**table[["price_factor", "share_factor"]])
    return history.sort_values([*KEYS, CREATED], ignore_index=True)


def set_of(history: pd.DataFrame, seals: pd.DataFrame = SEALS) -> tuple[pd.DataFrame, pd.DataFrame]:
    ends, served = as_served(history, seals, WINDOW)
    return known(history).assign(ends_window=ends), served


def closes_served(history: pd.DataFrame, seals: pd.DataFrame = SEALS) -> dict[int, list[float]]:
    """The closes of each window, by the number of the session that it ends in."""
    rows, served = set_of(history, seals)
    windows = ServedWindows(rows, served, ["close"])
    ends = windows.ends(WINDOW)
    np.testing.assert_array_equal(ends, np.flatnonzero(rows["ends_window"]))
    of_session = {instant: i for i, instant in enumerate(CLOSES)}
    sessions = [of_session[instant] for instant in rows["event_timestamp"].iloc[ends]]
    values = windows.gather(ends, WINDOW)[..., 0]
    return dict(zip(sessions, values.tolist(), strict=True))


def day_by_day(*closes: float) -> list[tuple]:
    return [("A", i, i, close) for i, close in enumerate(closes)]


def test_a_history_without_corrections_has_no_rows_beside_it():
    rows, served = set_of(versions(*day_by_day(10, 11, 12, 13), ("B", 0, 0, 5.0), ("B", 1, 1, 6.0)))
    assert served.empty
    assert rows["ends_window"].tolist() == [False, False, True, True, False, False]


def test_a_correction_is_in_the_windows_that_end_from_its_instant_on():
    """Session 2 is corrected from 12 to 99 two sessions later, after the seal of session 4."""
    corrected = ("A", 2, CLOSES[4] + LATER, 99.0)
    found = closes_served(versions(*day_by_day(10, 11, 12, 13, 14, 15, 16), corrected))
    assert found == {
        2: [10, 11, 12],
        3: [11, 12, 13],
        4: [12, 13, 14],
        5: [13, 14, 15],
        6: [14, 15, 16],
    }
    sooner = ("A", 2, CLOSES[3] + LATER, 99.0)
    found = closes_served(versions(*day_by_day(10, 11, 12, 13, 14, 15), sooner))
    assert found == {2: [10, 11, 12], 3: [11, 12, 13], 4: [99, 13, 14], 5: [13, 14, 15]}


def test_a_correction_before_the_seal_is_what_was_served():
    corrected = ("A", 3, CLOSES[3] + pd.Timedelta("30min"), 99.0)
    history = versions(*day_by_day(10, 11, 12, 13), corrected)
    assert closes_served(history) == {2: [10, 11, 12], 3: [11, 12, 99]}
    assert set_of(history)[1].empty


def test_a_session_that_is_not_sealed_shows_what_is_known_now():
    corrected = ("A", 3, CLOSES[3] + LATER, 99.0)
    history = versions(*day_by_day(10, 11, 12, 13), corrected)
    assert closes_served(history)[3] == [11, 12, 13]
    assert closes_served(history, SEALS[:3])[3] == [11, 12, 99]


def test_a_bar_withdrawn_later_is_in_the_windows_that_it_was_served_in():
    withdrawn = ("A", 2, CLOSES[3] + LATER, math.nan)
    found = closes_served(versions(*day_by_day(10, 11, 12, 13, 14, 15), withdrawn))
    assert found == {3: [11, 12, 13], 4: [11, 13, 14], 5: [13, 14, 15]}
    withdrawn = ("A", 2, CLOSES[4] + LATER, math.nan)
    found = closes_served(versions(*day_by_day(10, 11, 12, 13, 14, 15), withdrawn))
    assert found == {3: [11, 12, 13], 4: [12, 13, 14], 5: [13, 14, 15]}


def test_a_window_without_a_bar_that_came_late_is_of_the_bars_before_it():
    late = ("A", 2, CLOSES[4] + LATER, 12.0)
    others = [row for row in day_by_day(9, 10, 0, 13, 14, 15, 16) if row[1] != 2]
    assert closes_served(versions(*others, late)) == {
        2: [9, 10, 12],  # when it came
        3: [9, 10, 13],
        4: [10, 13, 14],
        5: [13, 14, 15],
        6: [14, 15, 16],
    }


def test_where_too_few_sessions_were_known_nothing_was_served():
    late = ("A", 1, CLOSES[3] + LATER, 11.0)
    others = [row for row in day_by_day(10, 0, 12, 13) if row[1] != 1]
    history = versions(*others, late)
    assert closes_served(history) == {3: [10, 12, 13]}
    rows, served = set_of(history)
    assert rows["ends_window"].tolist() == [False, False, False, True]
    assert served["ends_window"].tolist() == [False, False, True]


def test_rows_that_wait_for_a_symbols_first_sessions_are_served_when_they_are_known():
    """With a `min_history` of 5, sessions 0 to 4 are known from the close of session 4 on."""
    history = versions(*(("A", i, max(i, 4), 10.0 + i) for i in range(6)))
    assert closes_served(history) == {2: [10, 11, 12], 3: [11, 12, 13], 4: [12, 13, 14], 5: [13, 14, 15]}
    too_early = history[history[CREATED] <= CLOSES[3]]
    assert closes_served(too_early) == {}


def test_each_window_is_on_the_basis_of_its_own_last_session():
    """A 2:1 split at session 3; session 1 is corrected after session 3's seal."""
    rows = [("A", 0, 0, 10.0), ("A", 1, 1, 11.0), ("A", 2, 2, 12.0)]
    rows += [("A", i, i, close, 2.0, 2.0) for i, close in ((3, 6.5), (4, 7.0), (5, 8.0))]
    history = versions(*rows, ("A", 1, CLOSES[3] + LATER, 20.0))
    found, served = set_of(history)
    windows = ServedWindows(found, served, FEATURES)
    values = windows.gather(windows.ends(WINDOW), WINDOW)
    assert values[..., 0].tolist() == [[10, 11, 12], [5.5, 6, 6.5], [6, 6.5, 7], [6.5, 7, 8]]
    volumes = [[1000, 1100, 1200], [2200, 2400, 650], [2400, 650, 700], [650, 700, 800]]
    assert values[..., 1].tolist() == volumes
    assert values[1, :, 2].tolist() == [11, 12, 6.5]  # an index has no basis


def test_a_row_of_another_basis_brings_its_own_factors_along():
    """A bar before the first comes late, and moves the basis that all factors count from."""
    before = [
        ("A", 1, 1, 10.0),
        ("A", 2, 2, 11.0),
        ("A", 3, 3, 6.0, 2.0, 2.0),
        ("A", 4, 4, 7.0, 2.0, 2.0),
    ]
    came = CLOSES[4] + LATER
    after = [("A", 0, came, 1.0, 1.0, 1.0)]
    after += [
        ("A", s, came, close, 8 * f, 4 * f)
        for _, s, _, close, f, *_ in (
            (0, 1, 0, 10.0, 1.0),
            (0, 2, 0, 11.0, 1.0),
            (0, 3, 0, 6.0, 2.0),
            (0, 4, 0, 7.0, 2.0),
        )
    ]
    found = closes_served(versions(*before, *after))
    assert found[3] == [5, 5.5, 6]
    assert found[4] == [5.5, 6, 7]


def test_the_last_session_of_a_window_is_as_it_was_served():
    history = versions(*day_by_day(10, 11, 12, 13), ("A", 3, CLOSES[3] + LATER, 99.0))
    rows, served = set_of(history)
    assert rows["close"].tolist() == [10, 11, 12, 99]
    seen = last_sessions(rows, served, np.array([2, 3]))
    assert seen["close"].tolist() == [12, 13]
    assert seen["volume"].tolist() == [1200, 1300]
    assert rows["close"].tolist() == [10, 11, 12, 99]


def test_windows_of_another_length_go_as_far_as_their_rows_stood_together():
    history = versions(*day_by_day(10, 11, 12, 13, 14, 15), ("A", 2, CLOSES[3] + LATER, 99.0))
    rows, served = set_of(history)
    windows = ServedWindows(rows, served, ["close"])
    assert windows.gather(windows.ends(2), 2)[..., 0].tolist() == [
        [11, 12],
        [12, 13],
        [13, 14],
        [14, 15],
    ]
    assert windows.ends(4).tolist() == [3, 4, 5]
    values = windows.gather(windows.ends(4), 4)[..., 0].tolist()
    assert values == [[10, 11, 12, 13], [11, 99, 13, 14], [99, 13, 14, 15]]


def test_a_whole_history_that_is_restated_stands_beside_it_once():
    rows = day_by_day(*range(10, 19))
    restated = [("A", i, CLOSES[8] + LATER, 100.0 + i) for i in range(9)]
    history = versions(*rows, *restated, ("B", 0, 0, 1.0))
    assert len(set_of(history)[1]) == 9
    assert closes_served(history)[5] == [13, 14, 15]


@st.composite
def histories(draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Versions at any instant, withdrawals, rows without their history, splits, sessions not sealed."""
    instants = [CLOSES[0] + pd.Timedelta(hours=12 * i) for i in range(24)]
    rows, closes = [], iter(range(1, 10_000))
    for symbol in draw(st.sampled_from([["A"], ["A", "B"], ["A", "B", "C"]])):
        for session in range(draw(st.integers(0, 9))):
            later = [at for at in instants if at >= CLOSES[session]]
            some = draw(st.lists(st.sampled_from(later), unique=True, max_size=3))
            for at in (CLOSES[session], *some)[draw(st.integers(0, 3)) == 0 :]:
                factor = draw(st.sampled_from([1.0, 1.0, 2.0, 4.0]))
                close = draw(st.sampled_from([next(closes), next(closes), math.nan]))
                rows.append((symbol, session, at, float(close), factor, factor))
    sealed = draw(st.lists(st.integers(0, 8), unique=True))
    delay = draw(st.sampled_from([0, 1, 30]))
    seals = SEALS.iloc[sorted(sealed)].assign(
        sealed_at=lambda t: t["sealed_at"] + pd.Timedelta(hours=delay)
    )
    table = versions(*(rows or [("A", 0, 0, 1.0)]))
    gaps = draw(st.lists(st.integers(0, len(table) - 1), max_size=3))
    table.loc[gaps, "rsi_14"] = math.nan
    return table.drop_duplicates([*KEYS, CREATED], ignore_index=True), seals


def served_slowly(history: pd.DataFrame, seals: pd.DataFrame) -> dict[tuple, np.ndarray]:
    """The definition: the rows known when a symbol's session was served, and the last three of them."""
    sealed_at = dict(zip(session_close(seals["date"]), seals["sealed_at"], strict=True))
    found = {}
    for symbol, instant in known(history)[KEYS].itertuples(index=False):
        own = history[history["symbol"] == symbol]
        first = own.loc[own["event_timestamp"] == instant, CREATED].min()
        at = max(sealed_at[instant], first) if instant in sealed_at else None
        then = known(own, at)
        window = then[then["event_timestamp"] <= instant].tail(WINDOW)
        is_there = len(window) == WINDOW and window["event_timestamp"].iloc[-1] == instant
        if is_there and window[NAMES].notna().all(axis=None):
            last = window.iloc[-1]
            by_price = (window["price_factor"] / last["price_factor"]).to_numpy()
            by_share = (last["share_factor"] / window["share_factor"]).to_numpy()
            found[symbol, instant] = np.column_stack(
                [window["close"] * by_price, window["volume"] * by_share, window["rsi_14"]]
            )
    return found


@settings(max_examples=100, deadline=None)
@given(histories())
def test_windows_are_those_of_the_definition(case):
    history, seals = case
    expected = served_slowly(history, seals)
    rows, served = set_of(history, seals)
    windows = ServedWindows(rows, served, FEATURES)
    ends = windows.ends(WINDOW)
    np.testing.assert_array_equal(ends, np.flatnonzero(rows["ends_window"]))
    keys = list(rows[KEYS].iloc[ends].itertuples(index=False, name=None))
    assert keys == sorted(expected)
    for key, window in zip(keys, windows.gather(ends, WINDOW), strict=True):
        np.testing.assert_array_equal(window, expected[key].astype("float32"))  # factors are powers of 2
    np.testing.assert_array_equal(
        last_sessions(rows, served, ends)[FEATURES],
        [expected[key][-1] for key in keys] or np.empty((0, 3)),
    )


def test_training_gathers_what_serving_gathers_bit_for_bit():
    """Prices that no float32 holds, and a split of 3:2, a dividend and a split of 7:1 within reach."""
    bars = small.market(4, 90, seed=3)
    number = bars.groupby("symbol").cumcount()
    splits = np.where(number >= 70, 1.5, 1) * np.where(number >= 85, 7, 1)
    bars["share_factor"] = np.where(bars["symbol"] == "S001", splits, 1)
    bars["price_factor"] = bars["share_factor"] * np.where(number >= 80, 1.01, 1)
    prices = ["open", "high", "low", "close"]
    bars[prices] = bars[prices].div(bars["price_factor"], axis=0)
    bars["volume"] *= bars["share_factor"]
    daily = daily_features(bars)
    history = small.known_at_their_close(daily)
    ends, served = as_served(history, small.sealed_at_their_close(bars), small.WINDOW)
    rows = daily.assign(ends_window=ends)
    windows = ServedWindows(rows, served, small.FEATURES)
    online = last_windows(daily, small.FEATURES, small.WINDOW)
    last = rows[ends].groupby("symbol").tail(1)
    assert list(online) == last["symbol"].tolist() == ["S000", "S001", "S002", "S003"]
    found = windows.gather(last.index.to_numpy(), small.WINDOW)
    np.testing.assert_array_equal(found, np.stack([window.values for window in online.values()]))
    before = rows[ends & (number == 78)].index.to_numpy()
    as_then = last_windows(daily[number <= 78], small.FEATURES, small.WINDOW)
    np.testing.assert_array_equal(
        windows.gather(before, small.WINDOW), np.stack([window.values for window in as_then.values()])
    )


@pytest.fixture(scope="module")
def corrected(tmp_path_factory) -> Workspace:
    """A store in which one close of S000 is corrected four sessions later."""
    workspace = small.published_workspace(tmp_path_factory.mktemp("run") / "workspace")
    history = read_parquet(workspace.daily_features)
    first = history[history["symbol"] == "S000"].iloc[[80, 84]]
    version = first.iloc[:1].assign(close=1.5, **{CREATED: first["event_timestamp"].iloc[1]})
    history = pd.concat([history, version]).sort_values([*KEYS, CREATED])
    write_parquet(history, workspace.daily_features)
    return workspace


@pytest.mark.component
def test_the_stage_makes_the_set_as_served_or_corrected(corrected):
    closes = {}
    for view in ("as_served", "corrected"):
        small.change_params(corrected, dataset={"view": view})
        dataset.main(corrected)
        rows, served = (read_parquet(p) for p in (corrected.dataset_rows, corrected.served_rows))
        windows = ServedWindows(rows, served, ["close"])
        closes[view] = windows.gather(np.arange(80, 86), 8)[..., 0]
        assert rows["close"].iloc[80] == 1.5
        assert rows["ends_window"].iloc[80:86].all()
    was = closes["as_served"][0, -1]
    assert was != 1.5
    seen = {view: [set(window) & {was, np.float32(1.5)} for window in of] for view, of in closes.items()}
    assert seen["as_served"] == [{was}] * 4 + [{1.5}] * 2
    assert seen["corrected"] == [{1.5}] * 6
    assert len(served) == 0


@pytest.mark.component
def test_a_cutoff_takes_the_correction_and_its_seals_away(corrected):
    history = read_parquet(corrected.daily_features)
    instant = history.loc[history["symbol"] == "S000", "event_timestamp"].iloc[83]
    small.change_params(corrected, dataset={"view": "as_served", "known_at": instant.isoformat()})
    try:
        dataset.main(corrected)
    finally:
        small.change_params(corrected, dataset={"known_at": None})
    rows = read_parquet(corrected.dataset_rows)
    assert rows["event_timestamp"].max() == instant
    assert rows.loc[rows["symbol"] == "S000", "close"].iloc[80] != 1.5
    assert read_parquet(corrected.served_rows).empty


@pytest.mark.component
def test_a_universe_decides_who_is_in_a_session_and_leaves_the_history(corrected):
    path = corrected.root / "universe/universe.csv"
    path.parent.mkdir()
    sessions = read_parquet(corrected.daily_features)["event_timestamp"].drop_duplicates().sort_values()
    joined, left = (f"{sessions.iloc[i]:%Y-%m-%d}" for i in (90, 70))
    rest = "".join(f"{symbol},2010-01-04,\n" for symbol in ("S002", "S003", "GONE"))
    path.write_text(f"symbol,from,to\nS000,{joined},\nS001,2010-01-04,{left}\n{rest}")
    try:
        dataset.main(corrected)
    finally:
        path.unlink()
    rows = read_parquet(corrected.dataset_rows)
    number = rows.groupby("symbol").cumcount()
    ends = {symbol: list(at) for symbol, at in number[rows["ends_window"]].groupby(rows["symbol"])}
    assert ends.keys() == {"S000", "S001", "S002", "S003"}
    assert ends["S000"] == list(range(90, 120))  # on the first day with a whole window of before
    assert ends["S001"] == list(range(ends["S002"][0], 70))
    assert (rows.loc[~rows["ends_window"], "split"] == "").all()
    report = read_json(corrected.dataset_report)
    assert report["universe"] == {"symbols": 5, "without_bars": ["GONE"], "never_members": ["S004"]}
    assert report["survivorship"] == "1 of the universe's 5 symbols have no bars: GONE"
