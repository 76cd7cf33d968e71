"""Rows by symbol against a plain table that is sorted anew after each change."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.features import symbol_rows
from pitwise.features.symbol_rows import SymbolRows

NAMES = ["A", "B", "C", "D"]


def table(rows: list[tuple[str, int, float]]) -> pd.DataFrame:
    """Rows of symbol, day and value, as an API has them."""
    frame = pd.DataFrame(rows, columns=["symbol", "day", "value"])
    day = pd.to_datetime(frame["day"].astype("int64"), unit="D").astype("datetime64[us]")
    return pd.DataFrame(
        {
            "symbol": frame["symbol"].astype("string"),
            "date": day,
            "known_at": day.dt.tz_localize("UTC"),
            "value": frame["value"].astype("float64"),
            "segment": frame["day"].astype("int32"),
            "source": pd.Series(["live"] * len(frame), dtype="string"),
        }
    )


def plain(frame: pd.DataFrame) -> list[list]:
    return frame.astype({"symbol": object, "source": object}).to_numpy().tolist()


days = st.dictionaries(st.integers(0, 30), st.floats(-9, 9), max_size=12)
markets = st.dictionaries(st.sampled_from(NAMES), days)


def rows_of(market: dict[str, dict[int, float]]) -> list[tuple[str, int, float]]:
    return [(name, day, market[name][day]) for name in sorted(market) for day in sorted(market[name])]


@settings(deadline=None, max_examples=60)
@given(markets, st.lists(st.tuples(markets, st.integers(0, 31)), max_size=4))
def test_replacing_rows_is_what_sorting_them_anew_would_be(first, changes):
    held = SymbolRows(table(rows_of(first)), NAMES, "date", keep=1000)
    oracle = {name: dict(first.get(name, {})) for name in NAMES}
    symbol_rows.ROOM, room = 3, symbol_rows.ROOM  # so that they are laid out anew now and then
    try:
        for change, since in changes:
            fresh = {n: {d: v for d, v in rows.items() if d >= since} for n, rows in change.items()}
            codes = held.codes(list(change))
            begin = held.before(codes, np.datetime64(since, "D"))
            rows = table(rows_of(fresh))
            asked = held.replaced(codes, begin, rows)
            held.replace(codes, begin, rows)
            for name in change:
                oracle[name] = {d: v for d, v in oracle[name].items() if d < since} | fresh[name]
            assert plain(asked) == plain(table(rows_of({name: oracle[name] for name in change})))
            assert plain(held.frame(held.all)) == plain(table(rows_of(oracle)))
    finally:
        symbol_rows.ROOM = room
    assert held.size(held.all).tolist() == [len(oracle[name]) for name in NAMES]
    for code, name in enumerate(NAMES):
        assert held.column(code, "value").tolist() == [v for _, v in sorted(oracle[name].items())]
    newest = [max(oracle[name], default=None) for name in NAMES]
    last = held.last("date").astype("datetime64[D]")
    assert [None if np.isnat(d) else int(d.astype(int)) for d in last] == newest


def test_rows_between_two_positions_and_the_types_they_came_in():
    frame = table([("A", 1, 1.0), ("A", 2, 2.0), ("A", 3, 3.0), ("C", 2, np.nan)])
    held = SymbolRows(frame, NAMES, "date", keep=1000)
    codes = held.codes(["C", "A", "unknown"])
    assert codes.tolist() == [0, 2]
    some = held.frame(codes, np.array([1, 0]), np.array([2, 1]))
    assert some["symbol"].tolist() == ["A", "C"]
    assert some["value"].tolist()[0] == 2.0
    assert some.dtypes.drop("symbol").to_dict() == {
        name: np.dtype(object) if name == "source" else dtype
        for name, dtype in frame.dtypes.drop("symbol").items()
    }
    assert held.before(codes, np.datetime64(2, "D"), "right").tolist() == [2, 1]


def test_the_oldest_rows_go_when_there_is_no_room():
    held = SymbolRows(table([("A", day, float(day)) for day in range(5)]), NAMES, "date", keep=5)
    code = held.codes(["A"])
    for day in range(5, 200):
        held.replace(code, held.size(code), table([("A", day, float(day))]))
        assert held.column(0, "value")[-5:].tolist() == [float(d) for d in range(day - 4, day + 1)]
        assert held.size(code).item() <= 5 + symbol_rows.ROOM
