import struct

import markets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import DataError
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.publish import window_table
from feature_repo.revisions import CREATED, merge
from feature_repo.windows import gather, packed, unpacked, window_ends


@st.composite
def tables(draw) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and rows of two features, with NaNs at the start of a history and within it."""
    histories = draw(st.lists(st.lists(st.booleans(), max_size=12), max_size=5))
    symbols = [f"S{i}" for i, history in enumerate(histories) for _ in history]
    rows = np.arange(2.0 * len(symbols)).reshape(-1, 2)
    incomplete = np.array([not whole for history in histories for whole in history], dtype=bool)
    rows[incomplete, draw(st.integers(0, 1))] = np.nan
    return np.array(symbols, dtype=object), rows


def first_load(bars: pd.DataFrame) -> pd.DataFrame:
    return merge(None, daily_features(bars), pd.Timestamp.now("UTC"))


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
    daily = first_load(markets.bars(6, 150, seed, gaps=0.1, lives=True))
    corrected = np.random.default_rng(seed).choice(len(daily), 40, replace=False)
    daily.loc[corrected, CREATED] += pd.to_timedelta(np.arange(40) * 9, "D")
    recent = set(sorted(set(daily["event_timestamp"]))[-window_sessions:])
    expected = []
    for symbol, rows in daily.groupby("symbol"):
        whole = [i for i in range(30, len(rows) + 1) if not rows.iloc[i - 30 : i].isna().any(axis=None)]
        for i in whole:
            instant = rows["event_timestamp"].iloc[i - 1]
            if instant in recent or i == whole[-1]:
                own = rows.iloc[i - 30 : i]
                values = b"".join(struct.pack("<f", v) for row in own[NAMES].to_numpy() for v in row)
                expected.append((symbol, instant, own[CREATED].max(), values))
    table = window_table(daily, 30, window_sessions)
    assert table.column_names == ["symbol", "event_timestamp", CREATED, "window"]
    kinds = [str(field.type) for field in table.schema]
    assert kinds == ["string", "timestamp[us, tz=UTC]", "timestamp[us, tz=UTC]", "binary"]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
    assert any(created > instant for _, instant, created, _ in expected)


def test_a_delisted_symbol_keeps_its_last_window():
    bars = markets.bars(2, 100, seed=0)
    gone = bars[(bars["symbol"] == "S001") | (bars.index < 70)]
    table = window_table(first_load(gone), 30, 5).to_pandas()
    last = table[table["symbol"] == "S000"]
    assert last["event_timestamp"].dt.date.tolist() == [gone["date"].iloc[69].date()]
    (window,) = unpacked(last["window"].tolist(), len(NAMES))
    expected = gone["close"].iloc[40:70].to_numpy("float32")
    np.testing.assert_array_equal(window[:, NAMES.index("close")], expected)
    assert (table["symbol"] == "S001").sum() == 5


def test_a_symbol_without_a_whole_window_is_left_out():
    bars = markets.bars(2, 70, seed=0)
    young = bars[(bars["symbol"] == "S001") | (bars.index < 62)]
    assert set(window_table(first_load(young), 30, 5)["symbol"].to_pylist()) == {"S001"}


def test_a_window_longer_than_the_history_names_the_key():
    daily = first_load(markets.bars(2, 60, seed=0))
    assert window_table(daily, 27, 5).num_rows == 2
    with pytest.raises(DataError, match=r"publish\.window: 28 sessions is longer.* 60, .* first 33\."):
        window_table(daily, 28, 5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_packed_windows_are_little_endian_float32_and_come_back_bit_for_bit(n, length, width, random):
    values = [random.choice([0.0, -0.0, float("inf"), 1e-45, random.uniform(-9, 9)]) for _ in range(64)]
    windows = np.resize(np.array(values, "float32"), (n, length, width))
    stored = packed(windows)
    assert stored == [b"".join(struct.pack("<f", v) for v in window.ravel()) for window in windows]
    assert (
        packed(windows.astype(">f4")) == packed(windows.swapaxes(1, 2).copy().swapaxes(1, 2)) == stored
    )
    if n:
        back = unpacked(stored, width)
        assert back.dtype == np.float32
        np.testing.assert_array_equal(back.view("uint32"), windows.view("uint32"))


def test_windows_that_do_not_fit_each_other_or_the_features_are_refused():
    short, long = packed(np.zeros((1, 2, 3), "float32")) + packed(np.zeros((1, 4, 3), "float32"))
    assert unpacked([short, short], 3).shape == (2, 2, 3)
    for windows, width in (([short, long, long], 3), ([short, long], 3), ([short], 4)):
        with pytest.raises(ValueError, match=r"several lengths|reshape"):
            unpacked(windows, width)


def test_no_window_crosses_a_segment():
    bars = markets.bars(1, 160, seed=0)
    bars.loc[80:, "segment"] = np.int32(1)
    daily = daily_features(bars)
    ends = window_ends(daily["symbol"].to_numpy(object), daily[NAMES].to_numpy(), 30)
    first = 33 + 29  # the slowest indicator needs 33 bars before a window of 30 can start
    assert ends.tolist() == [*range(first, 80), *range(80 + first, 160)]
