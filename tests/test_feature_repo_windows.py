import markets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import DataError
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.publish import window_table
from feature_repo.windows import gather, window_ends


@st.composite
def tables(draw) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and rows of two features, with NaNs at the start of a history and within it."""
    histories = draw(st.lists(st.lists(st.booleans(), max_size=12), max_size=5))
    symbols = [f"S{i}" for i, history in enumerate(histories) for _ in history]
    rows = np.arange(2.0 * len(symbols)).reshape(-1, 2)
    incomplete = np.array([not whole for history in histories for whole in history], dtype=bool)
    rows[incomplete, draw(st.integers(0, 1))] = np.nan
    return np.array(symbols, dtype=object), rows


def slow_windows(symbols: np.ndarray, rows: np.ndarray, length: int) -> dict[int, list[list[float]]]:
    """Each whole window's rows by the position at which it ends."""
    windows = {}
    for end in range(length - 1, len(rows)):
        positions = range(end - length + 1, end + 1)
        if all(symbols[p] == symbols[end] and not np.isnan(rows[p]).any() for p in positions):
            windows[end] = [rows[p].tolist() for p in positions]
    return windows


@settings(max_examples=200, deadline=None)
@given(table=tables(), length=st.integers(1, 14))
def test_windows_are_those_a_slow_reader_finds(table, length):
    symbols, rows = table
    expected = slow_windows(symbols, rows, length)
    ends = window_ends(symbols, rows, length)
    assert ends.tolist() == list(expected)
    if len(ends):
        assert gather(rows, ends, length).tolist() == list(expected.values())


def test_ends_may_be_gathered_in_any_order_and_twice():
    rows = np.arange(6.0).reshape(-1, 1)
    windows = gather(rows, np.array([4, 2, 4]), 3)
    assert windows[:, :, 0].tolist() == [[2, 3, 4], [0, 1, 2], [2, 3, 4]]


@pytest.mark.parametrize("n", [0, 3])
def test_no_window_in_a_history_that_is_too_short_is_an_empty_batch(n):
    rows = np.zeros((n, 2), dtype="float32")
    ends = window_ends(np.array(["A"] * n, dtype=object), rows, 5)
    assert gather(rows, ends, 5).shape == (0, 5, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("window_sessions", [1, 15])
def test_the_window_table_is_the_last_rows_of_a_plain_loop(seed, window_sessions):
    daily = daily_features(markets.bars(6, 150, seed, gaps=0.1, lives=True))
    recent = set(sorted(set(daily["event_timestamp"]))[-window_sessions:])
    expected = []
    for symbol, rows in daily.groupby("symbol"):
        whole = [i for i in range(30, len(rows) + 1) if not rows.iloc[i - 30 : i].isna().any(axis=None)]
        for i in whole:
            instant = rows["event_timestamp"].iloc[i - 1]
            if instant in recent or i == whole[-1]:
                values = rows[NAMES].iloc[i - 30 : i].to_numpy("float32")
                expected.append(
                    {"symbol": symbol, "event_timestamp": instant}
                    | dict(zip(NAMES, values.T, strict=True))
                )
    table = window_table(daily, 30, window_sessions)
    assert table.column_names == ["symbol", "event_timestamp", *NAMES]
    assert str(table.schema.field("close").type.value_type) == "float"
    assert str(table.schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
    assert table.num_rows == len(expected)
    for ours, theirs in zip(table.to_pylist(), expected, strict=True):
        assert (ours["symbol"], ours["event_timestamp"]) == (theirs["symbol"], theirs["event_timestamp"])
        for name in NAMES:
            np.testing.assert_array_equal(np.float32(ours[name]), theirs[name])


def test_a_delisted_symbol_keeps_its_last_window():
    bars = markets.bars(2, 100, seed=0)
    gone = bars[(bars["symbol"] == "S001") | (bars.index < 70)]
    table = window_table(daily_features(gone), 30, 5).to_pandas()
    last = table[table["symbol"] == "S000"]
    assert last["event_timestamp"].dt.date.tolist() == [gone["date"].iloc[69].date()]
    np.testing.assert_array_equal(last["close"].item(), gone["close"].iloc[40:70].to_numpy("float32"))
    assert (table["symbol"] == "S001").sum() == 5


def test_a_symbol_without_a_whole_window_is_left_out():
    bars = markets.bars(2, 70, seed=0)
    young = bars[(bars["symbol"] == "S001") | (bars.index < 62)]
    assert set(window_table(daily_features(young), 30, 5)["symbol"].to_pylist()) == {"S001"}


def test_a_window_longer_than_the_history_names_the_key():
    daily = daily_features(markets.bars(2, 60, seed=0))
    assert window_table(daily, 27, 5).num_rows == 2
    with pytest.raises(DataError, match=r"publish\.window: 28 sessions is longer.* 60, .* first 33\."):
        window_table(daily, 28, 5)


def test_no_window_crosses_a_segment():
    bars = markets.bars(1, 160, seed=0)
    bars.loc[80:, "segment"] = np.int32(1)
    daily = daily_features(bars)
    ends = window_ends(daily["symbol"].to_numpy(object), daily[NAMES].to_numpy(), 30)
    first = 33 + 29  # the slowest indicator needs 33 bars before a window of 30 can start
    assert ends.tolist() == [*range(first, 80), *range(80 + first, 160)]
