import json
from itertools import pairwise

import hypothesis.strategies as st
import markets
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from pandas.testing import assert_frame_equal

from feature_repo.artifacts import DAILY_FEATURES, REVISIONS, write_parquet
from feature_repo.errors import DataError
from feature_repo.features import daily_features, load, symbol_groups
from feature_repo.indicators import NAMES
from feature_repo.revisions import CREATED, KEYS, covered_before, known, merge, revisions
from tests import models_for_tests as small

OPENING = pd.Timestamp("2024-01-02", tz="UTC")
DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
NOW = pd.Timestamp("2024-06-03 22:00", tz="UTC")


def table(bars: dict[tuple[str, int], tuple[float, int]]) -> pd.DataFrame:
    """A table of features from (symbol, day) to (close, segment); one feature may be missing."""
    rows = [
        {
            "symbol": symbol,
            "event_timestamp": OPENING + day * DAY,
            "open": 1.0,
            "high": 9.0,
            "low": 1.0,
            "close": close,
            "volume": 10 * close,
            "sma_5": close / 3 if day > 1 else np.nan,
            "segment": segment,
        }
        for (symbol, day), (close, segment) in sorted(bars.items())
    ]
    kinds = {"symbol": "string", "event_timestamp": "datetime64[us, UTC]", "segment": "int32"}
    return pd.DataFrame(rows).astype(kinds)


BARS = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 6)),
    st.tuples(st.sampled_from([0.0, -0.0, 2.0, 3.0]), st.sampled_from([0, 0, 1])),
    min_size=1,
)
LOADS = st.lists(st.tuples(BARS, st.integers(1, 60)), min_size=1, max_size=5)


def loaded(loads: list) -> tuple[pd.DataFrame, list[tuple[pd.Timestamp, pd.DataFrame]]]:
    """The history after these loads, each some hours after the one before, the first within the data."""
    history, told, now = None, [], OPENING
    for bars, hours in loads:
        now += hours * HOUR
        # The first load may come before the last bars' closes: it took them while the market was open.
        told.append((now, table(bars)))
        history = merge(history, told[-1][1], now)
    return history, told


def bits(frame: pd.DataFrame) -> list[tuple]:
    """Rows as they compare bit for bit; NaN equals NaN."""
    return [tuple(repr(value) for value in row) for row in frame.itertuples(index=False)]


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_what_is_known_at_an_instant_is_what_the_last_load_before_it_brought(loads):
    history, told = loaded(loads)
    ends = [*(instant for instant, _ in told[1:]), told[-1][0] + 999 * DAY]
    for (instant, fresh), end in zip(told, ends, strict=True):
        for at in (instant, end - pd.Timedelta(1, "us")):
            assert bits(known(history, at).drop(columns=CREATED)) == bits(fresh)
    assert bits(known(history).drop(columns=CREATED)) == bits(told[-1][1])
    first, fresh = told[0]
    before = known(history, first - HOUR).drop(columns=CREATED)
    assert bits(before) == bits(fresh[fresh["event_timestamp"] <= first - HOUR])


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_a_load_rewrites_nothing_and_the_same_load_again_adds_nothing(loads):
    history, told = loaded(loads)
    assert history.equals(history.sort_values([*KEYS, CREATED], ignore_index=True))
    again = merge(history, told[-1][1], told[-1][0] + HOUR)
    assert bits(again) == bits(history)
    earlier, _ = loaded(loads[:-1]) if len(loads) > 1 else (history, None)
    assert set(bits(earlier)) <= set(bits(history))


def difference(old: pd.DataFrame, new: pd.DataFrame) -> dict[tuple, str]:
    """What a person would say changed in the sessions that the old table reached, bar by bar."""
    columns = [c for c in new if c not in (*KEYS, CREATED)]
    before, after = (
        {row[:2]: repr(row[2:]) for row in f[[*KEYS, *columns]].itertuples(index=False, name=None)}
        for f in (old, new)
    )
    reached = old["event_timestamp"].max()
    answer = {}
    for key in before.keys() | after.keys():
        if before.get(key) == after.get(key):
            continue
        if key not in before:
            if key[1] <= reached:
                answer[key] = "late"
        else:
            answer[key] = "changed" if key in after else "withdrawn"
    return answer


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_the_revisions_of_a_load_are_its_difference_in_sessions_held_before(loads):
    history, told = loaded(loads)
    found = revisions(history, covered_before(history))
    highest = told[0][1]["event_timestamp"].max()
    for (_, old), (instant, new) in pairwise(told):
        rows = found[found[CREATED] == instant]
        said = {(r.symbol, r.event_timestamp): r.kind for r in rows.itertuples()}
        assert said.items() >= difference(old, new).items()
        if old["event_timestamp"].max() == highest:  # else a withdrawn last session that comes again
            assert said == difference(old, new)
        highest = max(highest, new["event_timestamp"].max())
    assert found[CREATED].isin([instant for instant, _ in told[1:]]).all()


def test_a_revision_tells_the_bar_before_and_after_and_how_many_features_moved():
    one = table({("A", day): (2.0, 0) for day in range(4)} | {("B", 3): (7.0, 0)})
    two = one.copy()
    two.loc[1, ["close", "volume", "sma_5"]] = [3.0, 30.0, 1.0]  # corrected
    two.loc[2, "sma_5"] = 0.9  # only a feature of it
    two.loc[3, "segment"] = 1  # only its segment
    two = pd.concat([two.iloc[:4], table({("A", 4): (5.0, 1), ("B", 1): (6.0, 0)})])  # B's 3 withdrawn
    history = merge(merge(None, one, NOW), two, NOW + DAY)
    found = revisions(history, covered_before(history))
    nan = np.nan
    expected = [
        ("A", 1, "changed", True, 2.0, 3.0, 20.0, 30.0, 3),
        ("A", 2, "changed", False, 2.0, 2.0, 20.0, 20.0, 1),
        ("A", 3, "changed", False, 2.0, 2.0, 20.0, 20.0, 0),
        ("B", 1, "late", True, nan, 6.0, nan, 60.0, 5),
        ("B", 3, "withdrawn", True, 7.0, nan, 70.0, nan, 6),
    ]
    columns = ["kind", "bar_changed", "old_close", "new_close", "old_volume", "new_volume"]
    wanted = pd.DataFrame(expected, columns=["symbol", "day", *columns, "features_moved"])
    wanted.insert(1, "event_timestamp", OPENING + wanted.pop("day") * DAY)
    assert (found[CREATED] == NOW + DAY).all()
    assert_frame_equal(found.drop(columns=CREATED).reset_index(drop=True), wanted, check_dtype=False)


def test_a_bar_taken_before_its_close_was_known_when_it_was_taken():
    noon = OPENING - 9 * HOUR
    history = merge(None, table({("A", -1): (2.0, 0), ("A", 0): (3.0, 0)}), noon)
    assert history[CREATED].tolist() == [OPENING - DAY, noon]
    history = merge(history, table({("A", -1): (2.0, 0), ("A", 0): (4.0, 0)}), OPENING + HOUR)
    assert known(history, OPENING)["close"].tolist() == [2.0, 3.0]
    assert known(history)["close"].tolist() == [2.0, 4.0]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def market(symbols: int = 4, sessions: int = 60) -> pd.DataFrame:
    return markets.bars(symbols, sessions, seed=5).assign(segment=np.int32(0))


def revised(bars: pd.DataFrame) -> pd.DataFrame:
    """One bar corrected, one withdrawn; one is late and two sessions are new, missing in `held`."""
    changed = bars.drop(index=100).reset_index(drop=True)
    changed.loc[45, "close"] *= 1.001
    return changed


def held(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.groupby("symbol").head(58).drop(index=150).reset_index(drop=True)


def files() -> list[bytes]:
    return [path.read_bytes() for path in (DAILY_FEATURES, REVISIONS)]


def test_a_first_load_takes_each_bar_as_known_at_its_close_whenever_it_runs(project):
    bars = market()
    assert load(bars, NOW) == f"240 rows of {len(NAMES)} features for 4 symbols"
    before = files()
    history = pd.read_parquet(DAILY_FEATURES)
    assert history.columns.tolist() == [*KEYS, CREATED, *NAMES, "segment"]
    assert (history[CREATED] == history["event_timestamp"]).all()
    assert_frame_equal(history.drop(columns=CREATED), daily_features(bars))
    assert pd.read_parquet(REVISIONS).empty
    DAILY_FEATURES.unlink()
    load(bars, NOW + 99 * DAY)
    assert files() == before


def test_the_same_bars_again_change_no_byte(project):
    bars = market()
    load(held(bars), NOW)
    load(revised(bars), NOW + DAY)
    before = files()
    assert load(revised(bars), NOW + 2 * DAY) == f"239 rows of {len(NAMES)} features for 4 symbols"
    assert files() == before


def test_a_load_says_what_it_changed_and_where(project):
    bars = market()
    load(held(bars), NOW)
    told = load(revised(bars), NOW + DAY)
    assert "3 bars revised (1 changed, 1 withdrawn, 1 late) of S000, S001, S002" in told
    found = pd.read_parquet(REVISIONS)
    first, last = (f"{getattr(found['event_timestamp'], side)():%Y-%m-%d}" for side in ("min", "max"))
    assert f"features moved in {len(found):,} rows, sessions {first} to {last}" in told
    dates = found.loc[found["bar_changed"], ["symbol", "event_timestamp", "kind"]]
    wanted = bars.loc[[45, 100, 150], "symbol"].tolist()
    assert dates["symbol"].tolist() == wanted
    days = dates["event_timestamp"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    assert days.tolist() == bars.loc[[45, 100, 150], "date"].dt.strftime("%Y-%m-%d").tolist()


@pytest.mark.parametrize("rows", [1, 61, 130, 10_000])
def test_a_history_written_in_groups_is_the_history_written_at_once(project, rows):
    bars = market()
    loads = [held(bars), revised(bars), revised(bars)[lambda b: ~b["symbol"].isin(["S000", "S003"])]]
    history = None
    for i, each in enumerate(loads):
        load(each.reset_index(drop=True), NOW + i * DAY, group_rows=rows)
        history = merge(history, daily_features(each.reset_index(drop=True)), NOW + i * DAY)
    assert_frame_equal(pd.read_parquet(DAILY_FEATURES), history)
    expected = revisions(history, covered_before(history))
    assert_frame_equal(pd.read_parquet(REVISIONS), expected.reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize("rows", [1, 50, 60, 61, 120, 1000])
def test_groups_hold_whole_symbols_and_their_filters_part_all_symbols(rows):
    bars = market(5, 60)
    groups = list(symbol_groups(bars, rows))
    assert_frame_equal(pd.concat([group for group, _ in groups]), bars)
    assert sum(group["symbol"].nunique() for group, _ in groups) == 5
    for name in ("A", "S000", "S002X", "S004", "ZZZ"):
        selects = [
            all(name >= edge if sign == ">=" else name < edge for _, sign, edge in filters or [])
            for _, filters in groups
        ]
        assert sum(selects) == 1
        own = [name in set(group["symbol"]) for group, _ in groups]
        assert not any(own) or own == selects


def test_a_clock_put_back_does_not_reorder_what_was_known(project):
    bars = market()
    load(held(bars), NOW)
    load(revised(bars), NOW + DAY)
    load(held(bars), NOW - DAY)
    history = pd.read_parquet(DAILY_FEATURES)
    for at, expected in ((NOW, held(bars)), (NOW + DAY, revised(bars)), (None, held(bars))):
        assert_frame_equal(known(history, at).drop(columns=CREATED), daily_features(expected))


@pytest.mark.parametrize("other", ["symbols", "sessions", "features"])
def test_another_market_or_feature_set_begins_anew_and_says_so(project, other):
    bars = market()
    if other == "features":
        write_parquet(daily_features(bars), DAILY_FEATURES)
    else:
        load(bars, NOW)
    if other == "symbols":
        bars["symbol"] = "X" + bars["symbol"]
    if other == "sessions":
        bars = markets.bars(4, 60, seed=5, start="2019-01-02").assign(segment=np.int32(0))
    assert "begins anew" in load(bars, NOW + DAY)
    history = pd.read_parquet(DAILY_FEATURES)
    assert (history[CREATED] == history["event_timestamp"]).all()
    assert_frame_equal(history.drop(columns=CREATED), daily_features(bars))


def test_a_broken_history_is_one_clear_message_and_stays(project):
    DAILY_FEATURES.parent.mkdir(parents=True)
    DAILY_FEATURES.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"daily\.parquet: cannot be read.*dvc checkout"):
        load(market(), NOW)
    assert DAILY_FEATURES.read_bytes() == b"PAR1 no more"


DAYS_OF_WORK = """
import json, shutil, yaml
import pandas as pd
from feature_repo import features, publish
from feature_repo.indicators import NAMES
from feature_repo.windows import unpacked
from training import dataset

def made(day, known_at=None):
    params = yaml.safe_load(open("params.yaml"))
    params["dataset"]["known_at"] = known_at
    yaml.safe_dump(params, open("params.yaml", "w"))
    dataset.main()
    shutil.copy("data/dataset/rows.parquet", f"{day}.parquet")

first, second = pd.read_parquet("first_bars.parquet"), pd.read_parquet("second_bars.parquet")
features.load(first, pd.Timestamp("2024-06-03 22:00Z"))
publish.main()
made("monday")
features.load(second, pd.Timestamp("2024-06-04 22:00Z"))
publish.main()
made("tuesday")
made("monday_again", "2024-06-03T22:00:00+00:00")
made("before_the_second_load", "2024-06-05T00:59:59.999999+03:00")
made("from_the_second_load_on", "2024-06-04T22:00:00+00:00")

from feast import FeatureStore
store = FeatureStore("feature_repo")
rows = [{"symbol": symbol} for symbol in ("S000", "S001", "S002", "S003")]
daily, windows = (
    store.get_online_features(store.get_feature_service(name), rows).to_dict()
    for name in ("daily_v1", "windows_v1")
)
closes = unpacked(windows["window"], len(NAMES))[:, :, NAMES.index("close")]
print(json.dumps([daily["close"], closes.tolist()]))
"""


@pytest.fixture(scope="module")
def days_of_work(tmp_path_factory):
    """A set made on Monday; on Tuesday with newer sessions, a correction, a late bar, withdrawn bars."""
    folder = tmp_path_factory.mktemp("days")
    small.copy_rooms(folder)
    bars = small.market(4, 150, seed=11)
    number = bars.groupby("symbol").cumcount()
    first = bars[(number < 140) & ~((bars["symbol"] == "S001") & (number == 70))].reset_index(drop=True)
    second = bars[~((bars["symbol"] == "S002") & (number == 80))]
    second = second[~((second["symbol"] == "S003") & (number >= 139))].reset_index(drop=True)
    at = second.index[(second["symbol"] == "S000") & (second["date"] == bars["date"][100])][0]
    second.loc[at, "close"] = second.loc[at, "low"]
    write_parquet(first, folder / "first_bars.parquet")
    write_parquet(second, folder / "second_bars.parquet")
    params = {"publish": {"window": 10, "window_sessions": 5}, "dataset": small.SPLIT}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    said = small.run_python(folder, DAYS_OF_WORK).splitlines()[-1]
    return folder, bars, first, second, json.loads(said)


def test_a_training_set_made_yesterday_is_made_again_bit_for_bit(days_of_work):
    folder, *_ = days_of_work
    sets = {path.stem: path.read_bytes() for path in folder.glob("*.parquet")}
    assert sets["monday_again"] == sets["monday"]
    assert sets["before_the_second_load"] == sets["monday"]
    assert sets["tuesday"] != sets["monday"]
    assert sets["from_the_second_load_on"] == sets["tuesday"]


def test_a_training_set_is_the_one_of_its_bars_and_the_revisions_name_what_moved(days_of_work):
    folder, _, first, second, _ = days_of_work
    monday, tuesday = (pd.read_parquet(folder / f"{day}.parquet") for day in ("monday", "tuesday"))
    for rows, bars in ((monday, first), (tuesday, second)):
        daily = daily_features(bars)
        assert_frame_equal(rows[[*KEYS, *NAMES]], daily[[*KEYS, *NAMES]], check_dtype=False)
        following = bars.groupby("symbol")["close"].shift(-1).to_numpy()
        has = rows["label"].notna().to_numpy()
        np.testing.assert_array_equal(rows["next_close"][has], following[has])
    moved = difference(monday[[*KEYS, *NAMES]], tuesday[[*KEYS, *NAMES]])
    found = pd.read_parquet(folder / REVISIONS)
    assert {(r.symbol, r.event_timestamp): r.kind for r in found.itertuples()} == moved
    assert sorted(found.loc[found["bar_changed"], "kind"]) == [
        "changed",
        "late",
        "withdrawn",
        "withdrawn",
    ]


def test_a_withdrawn_last_bar_leaves_the_bars_before_it_online(days_of_work):
    _, _, _, second, (daily, windows) = days_of_work
    closes = [own.tail(10).to_numpy() for _, own in second.groupby("symbol")["close"]]
    assert daily == [own[-1] for own in closes]
    np.testing.assert_array_equal(windows, np.array(closes, "float32"))
