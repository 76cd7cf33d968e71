import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import markets
from support.histories import merge

from feature_repo import publish
from feature_repo.publish import PublishParams, write_windows
from pitwise.errors import DataError
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.features.windows import unpacked, window_header

pytestmark = pytest.mark.unit


def window_table(daily: pd.DataFrame, window: int, window_sessions: int, groups: int = 1) -> pa.Table:
    """The windows of a history that is written in so many row groups, cut between symbols."""
    names = sorted(daily["symbol"].unique())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "daily.parquet"
        schema = pa.Schema.from_pandas(daily, preserve_index=False)
        with pq.ParquetWriter(path, schema) as writer:
            for part in np.array_split(names, groups):
                rows = daily[daily["symbol"].isin(part)]
                if len(rows):
                    writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
        params = PublishParams(window=window, window_sessions=window_sessions)
        windows = Path(folder) / "windows.parquet"
        published = write_windows(path, params, windows)
        table = pq.read_table(windows)
        assert published.windows == len(table)
        assert published.with_a_window == set(table["symbol"].to_pylist())
        return table


def first_load(bars: pd.DataFrame) -> pd.DataFrame:
    return merge(None, daily_features(bars), pd.Timestamp.now("UTC"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("window_sessions", [1, 15])
def test_the_window_table_is_the_last_rows_of_a_plain_loop(seed, window_sessions, monkeypatch):
    monkeypatch.setattr(publish, "WINDOWS_AT_A_TIME", 10)
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
                window = window_header(NAMES) + values
                expected.append((symbol, instant, own[CREATED].max(), window))
    table = window_table(daily, 30, window_sessions, groups=seed + 1)
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
    (window,) = unpacked(last["window"].tolist(), NAMES)
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
