import hashlib
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets

from pitwise.features.daily import daily_features
from pitwise.features.errors import WindowSchemaError
from pitwise.features.indicators import NAMES
from pitwise.features.windows import (
    WindowRows,
    gather,
    last_windows,
    packed,
    unpacked,
    window_ends,
    window_hash,
)


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


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_packed_windows_are_little_endian_float32_and_come_back_bit_for_bit(n, length, width, random):
    values = [random.choice([0.0, -0.0, float("inf"), 1e-45, random.uniform(-9, 9)]) for _ in range(64)]
    windows = np.resize(np.array(values, "float32"), (n, length, width))
    names = NAMES[:width]
    stored = packed(windows, names)
    floats = [b"".join(struct.pack("<f", v) for v in window.ravel()) for window in windows]
    schema = hashlib.blake2b("\n".join(["<f4", *names]).encode(), digest_size=8).digest()
    assert stored == [b"PWW1" + schema + values for values in floats]
    others = (windows.astype(">f4"), windows.swapaxes(1, 2).copy().swapaxes(1, 2))
    assert all(packed(same, names) == stored for same in others)
    hashes = [hashlib.blake2b(values, digest_size=8).hexdigest() for values in floats]
    assert [window_hash(window) for window in stored] == hashes
    if n:
        back = unpacked(stored, names)
        assert back.dtype == np.float32
        np.testing.assert_array_equal(back.view("uint32"), windows.view("uint32"))


def test_windows_of_several_lengths_and_broken_ones_are_refused():
    names = NAMES[:3]
    short, long = (packed(np.zeros((1, length, 3), "float32"), names)[0] for length in (2, 4))
    assert unpacked([short, short], names).shape == (2, 2, 3)
    assert unpacked([], names).shape == (0, 0, 3)
    for windows in ([short, long, long], [short, long], [short[:-1]], [short[:-4]]):
        with pytest.raises(WindowSchemaError, match="several lengths, or broken ones"):
            unpacked(windows, names)


@pytest.mark.parametrize(
    "names",
    [["b", "a", "c"], ["a", "b"], ["a", "b", "c", "d"], ["a", "bc"], ["a", "b", "d"]],
    ids=" ".join,
)
def test_windows_of_other_features_or_of_another_order_are_refused_whatever_their_size(names):
    (ours,) = packed(np.zeros((1, 12, 3), "float32"), ["a", "b", "c"])
    (theirs,) = packed(np.zeros((1, 36 // len(names), len(names)), "float32"), names)
    assert unpacked([ours, ours], ["a", "b", "c"]).shape == (2, 12, 3)
    with pytest.raises(WindowSchemaError, match="window 2 of 2 is of other features, or"):
        unpacked([ours, theirs], ["a", "b", "c"])


def test_windows_from_before_there_was_a_header_are_refused_as_such():
    with pytest.raises(WindowSchemaError, match="does not say which features it has: an older version"):
        unpacked([np.ones((4, len(NAMES)), "<f4").tobytes()], NAMES)


def test_windows_are_not_packed_under_the_names_of_other_features():
    with pytest.raises(ValueError, match="windows of 3 features, but 2 names"):
        packed(np.zeros((1, 4, 3), "float32"), ["a", "b"])


def test_no_window_crosses_a_segment():
    bars = markets.bars(1, 160, seed=0)
    bars.loc[80:, "segment"] = np.int32(1)
    daily = daily_features(bars)
    ends = window_ends(daily["symbol"].to_numpy(object), daily[NAMES].to_numpy(), 30)
    first = 33 + 29  # the slowest indicator needs 33 bars before a window of 30 can start
    assert ends.tolist() == [*range(first, 80), *range(80 + first, 160)]


def test_the_last_windows_are_each_symbols_newest_whole_one():
    daily = daily_features(markets.bars(4, 80, seed=2, gaps=0.1))
    features = ["close", "sma_20", "volume"]
    daily.loc[daily.groupby("symbol").tail(1).index[1], "sma_20"] = np.nan  # S001's newest row
    daily.loc[daily["symbol"] == "S002", "volume"] = np.nan
    found = last_windows(daily, features, 8)
    expected = {}
    for symbol, own in daily.groupby("symbol"):
        for end in range(8, len(own) + 1):
            window = own.iloc[end - 8 : end]
            if window[features].notna().all(axis=None):
                expected[symbol] = window
    assert list(found) == list(expected) == ["S000", "S001", "S003"]
    for symbol, window in expected.items():
        assert found[symbol].as_of == window["event_timestamp"].iloc[-1]
        np.testing.assert_array_equal(found[symbol].values, window[features].to_numpy("float32"))
        assert found[symbol].values.dtype == np.float32


def test_no_symbol_with_a_whole_window_has_no_last_window():
    daily = daily_features(markets.bars(2, 20, seed=2))
    assert last_windows(daily, NAMES, 5) == {}


def test_a_window_is_on_the_share_basis_of_its_last_session():
    # 2:1 between the second and third session; a dividend of 2% before the fourth.
    rows = pd.DataFrame(
        {
            "close": [100.0, 110.0, 56.0, 54.0],
            "volume": [10.0, 20.0, 50.0, 60.0],
            "macd": [4.0, 2.0, 1.0, 3.0],
            "rsi_14": [50.0, 60.0, 70.0, 80.0],
            "price_factor": [1.0, 1.0, 2.0, 2.0 / 0.98],
            "share_factor": [1.0, 1.0, 2.0, 2.0],
        }
    )
    made = WindowRows(rows, ["close", "volume", "macd", "rsi_14"])
    before, after, paid = made.gather(np.array([1, 2, 3]), 2)
    assert before.tolist() == [[100, 10, 4, 50], [110, 20, 2, 60]]
    assert after.tolist() == [[55, 40, 1, 60], [56, 50, 1, 70]]
    assert paid[0].tolist() == pytest.approx([56 * 0.98, 50, 0.98, 70])
    assert paid[1].tolist() == pytest.approx([54, 60, 3, 80])
    assert made.gather(np.array([1]), 2).dtype == np.float32


def test_the_newest_windows_are_on_the_basis_of_the_newest_session():
    bars = markets.bars(2, 60, seed=3)
    split = bars["date"] >= bars["date"].unique()[50]
    bars.loc[split, ["open", "high", "low", "close"]] /= 2
    bars.loc[split, "volume"] *= 2
    bars.loc[split, ["price_factor", "share_factor"]] = 2.0
    plain = markets.bars(2, 60, seed=3)
    halved = plain.assign(volume=2 * plain["volume"])
    halved[["open", "high", "low", "close"]] /= 2
    windows, expected = (last_windows(daily_features(b), NAMES, 20) for b in (bars, halved))
    for symbol, window in expected.items():
        np.testing.assert_allclose(windows[symbol].values, window.values, rtol=1e-6, atol=1e-7)


def test_a_split_and_a_dividend_move_no_feature_of_a_session_before_them():
    bars = markets.bars(1, 60, seed=3)
    after = bars["date"] >= bars["date"].unique()[40]
    later = bars.copy()
    later.loc[after, "price_factor"] = 2.0 / 0.97
    later.loc[after, "share_factor"] = 2.0
    one, other = daily_features(bars), daily_features(later)
    pd.testing.assert_frame_equal(one[~after], other[~after], check_exact=True)
    assert (other.loc[after, "close"] == bars.loc[after, "close"]).all()
