"""A training set as it could be made on the day before a load, and on the day of it."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from support import small_runs as small
from support.once import once

from feature_repo import publish
from feature_repo.store import open_store
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.windows import unpacked
from pitwise.shards import write_groups
from pitwise.workspace import Workspace, read_json, write_json, write_parquet
from training import dataset

pytestmark = pytest.mark.component


class Days(NamedTuple):
    """A set made on Monday; on Tuesday with newer sessions, a correction, a late bar, withdrawn bars."""

    workspace: Workspace
    first: pd.DataFrame
    """Clean bars of Monday."""
    second: pd.DataFrame
    """Clean bars of Tuesday."""

    def rows(self, name: str) -> Path:
        return self.workspace.root / f"{name}.parquet"


def two_loads() -> tuple[pd.DataFrame, pd.DataFrame]:
    bars = small.market(4, 150, seed=11)
    number = bars.groupby("symbol").cumcount()
    first = bars[(number < 140) & ~((bars["symbol"] == "S001") & (number == 70))].reset_index(drop=True)
    second = bars[~((bars["symbol"] == "S002") & (number == 80))]
    second = second[~((second["symbol"] == "S003") & (number >= 139))].reset_index(drop=True)
    at = second.index[(second["symbol"] == "S000") & (second["date"] == bars["date"][100])][0]
    second.loc[at, "close"] = second.loc[at, "low"]
    return first, second


def loaded_again(history: pd.DataFrame, daily: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
    """The history with a version, known at `at`, of each row that is new, differs or is gone."""
    old, new = (table.set_index(KEYS)[NAMES] for table in (history, daily))
    same = (new.reindex(old.index).eq(old) | (new.reindex(old.index).isna() & old.isna())).all(axis=1)
    unchanged = same[same].index.intersection(new.index)
    news = daily[~pd.MultiIndex.from_frame(daily[KEYS]).isin(unchanged)]
    gone = history[~pd.MultiIndex.from_frame(history[KEYS]).isin(new.index)].copy()
    gone[NAMES] = np.nan
    versions = pd.concat([news, gone]).assign(**{CREATED: at})
    versions[CREATED] = versions[CREATED].astype(history[CREATED].dtype)
    return pd.concat([history, versions[history.columns]]).sort_values([*KEYS, CREATED])


def work_two_days(folder: Path) -> None:
    """Load, publish and make the training sets of `Days`; what is online then goes to `online.json`."""
    workspace = small.new_workspace(
        folder, publish={"window": small.WINDOW, "window_sessions": 5}, dataset=small.SPLIT
    )
    days = Days(workspace, *two_loads())

    def make(name: str, known_at: str | None = None) -> None:
        small.change_params(workspace, dataset={"known_at": known_at})
        dataset.main(workspace)
        shutil.copy(workspace.dataset_rows, days.rows(name))

    write_parquet(small.sealed_at_their_close(days.second), workspace.seals)
    write_json([], workspace.bar_landings)
    history = small.known_at_their_close(daily_features(days.first))
    write_parquet(history, workspace.daily_features)
    publish.main(workspace)
    make("monday")
    second = daily_features(days.second)
    both = loaded_again(history, second, pd.Timestamp("2024-06-04 22:00Z"))
    by_symbol = (pa.Table.from_pandas(own, preserve_index=False) for _, own in both.groupby("symbol"))
    write_groups(by_symbol, workspace.daily_features)
    publish.main(workspace)
    make("tuesday")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dataset, "SHARD_ROWS", 1)
        make("tuesday_in_shards")
    make("monday_again", "2024-06-03T22:00:00+00:00")
    make("before_the_second_load", "2024-06-05T00:59:59.999999+03:00")
    make("from_the_second_load_on", "2024-06-04T22:00:00+00:00")

    store = open_store(workspace)
    rows = [{"symbol": symbol} for symbol in ("S000", "S001", "S002", "S003")]
    daily, windows = (
        store.get_online_features(store.get_feature_service(name), rows).to_dict()
        for name in ("daily_v1", "windows_v1")
    )
    closes = unpacked(windows["window"], NAMES)[:, :, NAMES.index("close")]
    write_json({"daily": daily["close"], "windows": closes.tolist()}, workspace.root / "online.json")


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> Days:
    return Days(Workspace(once(tmp_path_factory, "two_days", work_two_days)), *two_loads())


def test_a_set_made_in_shards_is_the_set_made_at_once(days):
    shards = pq.ParquetFile(days.rows("tuesday_in_shards"))
    assert shards.num_row_groups == pd.read_parquet(days.rows("tuesday"))["symbol"].nunique() > 1
    assert shards.read().equals(pq.read_table(days.rows("tuesday")), check_metadata=True)
    assert not days.workspace.dataset_shards.exists()


def test_a_training_set_made_yesterday_is_made_again_bit_for_bit(days):
    sets = {path.stem: path.read_bytes() for path in days.workspace.root.glob("*.parquet")}
    assert sets["monday_again"] == sets["monday"]
    assert sets["before_the_second_load"] == sets["monday"]
    assert sets["tuesday"] != sets["monday"]
    assert sets["from_the_second_load_on"] == sets["tuesday"]


def test_a_training_set_is_the_one_of_its_bars(days):
    monday, tuesday = (pd.read_parquet(days.rows(name)) for name in ("monday", "tuesday"))
    for rows, bars in ((monday, days.first), (tuesday, days.second)):
        daily = daily_features(bars)
        assert_frame_equal(rows[[*KEYS, *NAMES]], daily[[*KEYS, *NAMES]], check_dtype=False)
        following = bars.groupby("symbol")["close"].shift(-1).to_numpy()
        has = rows["label"].notna().to_numpy()
        np.testing.assert_array_equal(rows["next_close"][has], following[has])


def test_a_withdrawn_last_bar_leaves_the_bars_before_it_online(days):
    online = read_json(days.workspace.root / "online.json")
    closes = [own.tail(small.WINDOW).to_numpy() for _, own in days.second.groupby("symbol")["close"]]
    assert online["daily"] == [own[-1] for own in closes]
    np.testing.assert_array_equal(online["windows"], np.array(closes, "float32"))
