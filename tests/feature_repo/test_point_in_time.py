import itertools
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RequestSource,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float32, Float64
from hypothesis import given, settings
from support import markets

from feature_repo import definitions
from pitwise.bars.calendar import session_close
from pitwise.errors import StoreError
from pitwise.features.history import known
from pitwise.features.indicators import NAMES
from pitwise.workspace import write_parquet

ASOF = "feature_repo.offline_store.AsofDuckDBOfflineStore"
FEASTS_OWN = "duckdb"
SYMBOL = Entity(name="symbol", value_type=ValueType.STRING)
TTL = timedelta(days=3)
FOR_EVER = timedelta(days=365 * 100)
MICROSECOND = pd.Timedelta(1, "us")
CLOSE = pd.Timestamp("2014-01-03 21:00", tz="UTC")


def view(name: str, rows: pd.DataFrame, folder: Path, ttl: timedelta | None, **source) -> FeatureView:
    """A feature view over rows written to a parquet file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    write_parquet(rows, path)
    keys = {"symbol", "event_timestamp", "created"}
    kinds = {
        n: Array(Float32) if rows[n].dtype == object else Float64 for n in rows.columns if n not in keys
    }
    renamed = source.get("field_mapping", {})
    return FeatureView(
        name=name,
        entities=[SYMBOL],
        ttl=ttl,
        schema=[Field(name=renamed.get(n, n), dtype=kind) for n, kind in kinds.items()],
        source=FileSource(name=name, path=str(path), timestamp_field="event_timestamp", **source),
    )


def opened(folder: Path, objects: list, offline: str = ASOF, known_at: str = "null") -> FeatureStore:
    """A store in `folder` that knows these views and services."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(
        "project: market\nprovider: local\nregistry: registry.db\n"
        f"offline_store:\n  type: {offline}\n"
        + (f"  known_at: {known_at}\n" if offline == ASOF else "")
        + "online_store:\n  type: sqlite\n  path: online.db\n"
        "entity_key_serialization_version: 3\nmaterialization:\n  pull_latest_features: true\n"
    )
    store = FeatureStore(str(folder))
    store.apply([SYMBOL, *objects])
    return store


def retrieved(store: FeatureStore, spine: pd.DataFrame, features, **options) -> pd.DataFrame:
    """The point-in-time rows, in the spine's order."""
    numbered = spine.assign(number=range(len(spine)))
    found = store.get_historical_features(numbered, features, **options).to_df()
    return found.sort_values("number", ignore_index=True).drop(columns="number")


def newest(rows: list[dict], symbol: str, instant: pd.Timestamp, ttl: timedelta | None) -> dict | None:
    """The row a person would have seen last, if it is not stale."""
    best = None
    for row in rows:
        if row["symbol"] != symbol or row["event_timestamp"] > instant:
            continue
        order = (row["event_timestamp"], row.get("created", 0))
        if best is None or order > (best["event_timestamp"], best.get("created", 0)):
            best = row
    if best is None or (ttl and instant - best["event_timestamp"] > ttl):
        return None
    return best


def looked_up(rows: pd.DataFrame, spine: pd.DataFrame, name: str, ttl: timedelta | None) -> list:
    by_symbol = {symbol: own.to_dict("records") for symbol, own in rows.groupby("symbol")}
    pairs = zip(spine["symbol"], spine["event_timestamp"], strict=True)
    found = [newest(by_symbol.get(symbol, []), symbol, instant, ttl) for symbol, instant in pairs]
    return [None if row is None else row[name] for row in found]


def assert_same(ours: pd.Series, expected: list) -> None:
    assert len(ours) == len(expected)
    for i, (value, wanted) in enumerate(zip(ours, expected, strict=True)):
        if isinstance(wanted, np.ndarray):
            assert np.array_equal(value, wanted), i
        elif wanted is None or pd.isna(wanted):
            assert value is None or (np.isscalar(value) and pd.isna(value)), i
        else:
            assert value == wanted, i


def market_rows(seed: int, symbols: int = 6, sessions: int = 40) -> pd.DataFrame:
    """Closes with halts, late listings, delistings and values that are missing."""
    bars = markets.bars(symbols, sessions, seed, gaps=0.2, lives=True)
    rows = bars[["symbol", "close", "volume"]].astype({"symbol": object})
    rows.insert(1, "event_timestamp", session_close(bars["date"]))
    rows.loc[np.random.default_rng(seed).random(len(rows)) < 0.1, "close"] = np.nan
    return rows.sample(frac=1, random_state=seed, ignore_index=True)


def random_spine(seed: int, rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """Instants at, just before, just after, between and far from the rows' own; some rows twice."""
    rng = np.random.default_rng(seed + 1)
    second, day = pd.Timedelta(seconds=1), pd.Timedelta(days=1)
    offsets = [0 * second, -MICROSECOND, MICROSECOND, 7 * 3600 * second, 2.5 * day]
    offsets += [TTL, TTL + MICROSECOND, TTL - MICROSECOND, -400 * day, 400 * day]
    spine = pd.DataFrame(
        {
            "symbol": rng.choice([*(f"S{i:03d}" for i in range(6)), "UNKNOWN"], size),
            "event_timestamp": rng.choice(rows["event_timestamp"], size) + rng.choice(offsets, size),
        }
    )
    spine["event_timestamp"] = pd.DatetimeIndex(spine["event_timestamp"]).as_unit("us")
    return pd.concat([spine, spine.sample(frac=0.1, random_state=seed)], ignore_index=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ttl", [TTL, FOR_EVER, timedelta(0), None])
def test_random_spines_see_what_a_slow_reader_sees(tmp_path, seed, ttl):
    rows = market_rows(seed)
    store = opened(tmp_path, [view("daily", rows, tmp_path, ttl)])
    spine = random_spine(seed, rows, 300)
    found = retrieved(store, spine, ["daily:close", "daily:volume"])
    assert found.columns.tolist() == ["symbol", "event_timestamp", "close", "volume"]
    assert found["symbol"].tolist() == spine["symbol"].tolist()
    assert found["event_timestamp"].tolist() == spine["event_timestamp"].tolist()
    for name in ("close", "volume"):
        assert_same(found[name], looked_up(rows, spine, name, ttl))


def test_a_spine_of_many_blocks_sees_what_a_slow_reader_sees(tmp_path):
    """And rows of many row groups, which several threads read."""
    rows = market_rows(9, symbols=6, sessions=60)
    store = opened(tmp_path, [view("daily", rows, tmp_path, TTL)])
    table = pa.Table.from_pandas(rows)
    pq.write_table(table, tmp_path / "daily.parquet", row_group_size=7, coerce_timestamps="us")
    spine = random_spine(9, rows, 10_000)
    found = retrieved(store, spine, ["daily:close"])
    assert_same(found["close"], looked_up(rows, spine, "close", TTL))


@pytest.mark.parametrize("seed", range(3))
def test_two_views_with_a_ttl_each_come_at_once_under_full_names(tmp_path, seed):
    rows, others = market_rows(seed), market_rows(seed + 100)
    others["close"] = [np.array([value, value + 1], dtype="float32") for value in others["volume"]]
    views = [view("daily", rows, tmp_path, TTL), view("windows", others, tmp_path, FOR_EVER)]
    store = opened(tmp_path, views)
    spine = random_spine(seed, rows, 200)
    features = ["windows:close", "daily:close", "daily:volume"]
    found = retrieved(store, spine, features, full_feature_names=True)
    assert set(found.columns[2:]) == {"windows__close", "daily__close", "daily__volume"}
    assert_same(found["windows__close"], looked_up(others, spine, "close", FOR_EVER))
    assert_same(found["daily__close"], looked_up(rows, spine, "close", TTL))
    assert_same(found["daily__volume"], looked_up(rows, spine, "volume", TTL))


@pytest.mark.parametrize("seed", range(3))
def test_the_answer_is_feasts_own(tmp_path, seed):
    rows, others = market_rows(seed), market_rows(seed + 100)
    rows["created"] = rows["event_timestamp"] + pd.Timedelta(hours=1)
    later = rows.sample(frac=0.3, random_state=seed)
    later = later.assign(close=-later["close"], created=later["created"] + pd.Timedelta(days=1))
    rows = pd.concat([later, rows], ignore_index=True)
    others["volume"] = [np.array([value, value + 1], dtype="float32") for value in others["volume"]]
    spine = random_spine(seed, rows, 200).assign(label=np.arange(220) % 7)
    features = ["daily:close", "daily:volume", "windows:volume"]
    answers = []
    for offline in (ASOF, FEASTS_OWN):
        folder = tmp_path / offline
        daily = view("daily", rows, folder, TTL, created_timestamp_column="created")
        store = opened(folder, [daily, view("windows", others, folder, FOR_EVER)], offline)
        answers.append(retrieved(store, spine, features, full_feature_names=True))
    pd.testing.assert_frame_equal(*answers, check_exact=True)
    assert answers[0]["daily__close"].notna().any()


@pytest.mark.parametrize("seed", range(3))
def test_changing_the_future_moves_nothing_at_or_before_an_instant(tmp_path, seed):
    rows = market_rows(seed)
    instant = rows["event_timestamp"].sort_values().iloc[len(rows) // 2]
    past = rows[rows["event_timestamp"] <= instant]
    future = rows[rows["event_timestamp"] > instant].sample(frac=0.7, random_state=seed)
    future = future.assign(close=-1.0, volume=-1.0)
    soon = past.drop_duplicates("symbol").assign(event_timestamp=instant + MICROSECOND, close=-2.0)
    spine = random_spine(seed, rows, 300)
    spine = pd.concat([spine[spine["event_timestamp"] <= instant], past[["symbol", "event_timestamp"]]])
    features = ["daily:close", "daily:volume"]
    answers = []
    for name, table in (("whole", rows), ("changed", pd.concat([soon, future, past])), ("cut", past)):
        store = opened(tmp_path / name, [view("daily", table, tmp_path / name, FOR_EVER)])
        answers.append(retrieved(store, spine, features))
    pd.testing.assert_frame_equal(answers[0], answers[1], check_exact=True)
    pd.testing.assert_frame_equal(answers[0], answers[2], check_exact=True)


def two_closes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": ["AAPL", "AAPL", "IBM"],
            "event_timestamp": [CLOSE - pd.Timedelta(days=1), CLOSE, CLOSE],
            "close": [1.0, 2.0, 9.0],
        }
    )


def asked(*instants: pd.Timestamp, symbol: str | None = "AAPL") -> pd.DataFrame:
    return pd.DataFrame({"symbol": [symbol] * len(instants), "event_timestamp": instants})


def test_a_bar_is_seen_from_its_close_on_and_not_a_microsecond_before(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, FOR_EVER)])
    found = retrieved(store, asked(CLOSE - MICROSECOND, CLOSE, CLOSE + MICROSECOND), ["daily:close"])
    assert found["close"].tolist() == [1.0, 2.0, 2.0]


def test_a_row_lives_for_its_ttl_and_not_a_microsecond_longer(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, TTL)])
    end = CLOSE + TTL
    found = retrieved(store, asked(end - MICROSECOND, end, end + MICROSECOND), ["daily:close"])
    assert found["close"].tolist()[:2] == [2.0, 2.0]
    assert np.isnan(found["close"][2])


def test_a_spine_row_without_symbol_or_instant_stays_and_sees_nothing(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, FOR_EVER)])
    spine = pd.concat([asked(CLOSE), asked(CLOSE, symbol=None), asked(pd.NaT)])
    assert_same(retrieved(store, spine, ["daily:close"])["close"], [2.0, None, None])


def test_an_empty_spine_has_no_rows(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, FOR_EVER)])
    found = retrieved(store, asked(CLOSE).head(0), ["daily:close"])
    assert found.columns.tolist() == ["symbol", "event_timestamp", "close"]
    assert found.empty


def test_the_spines_instants_may_be_in_any_zone_or_in_utc_without_one(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, FOR_EVER)])
    spine = asked(CLOSE - MICROSECOND, CLOSE)
    clock = spine["event_timestamp"].dt
    new_york = clock.tz_convert("America/New_York")
    mixed = pd.Series([new_york[0], CLOSE], dtype=object)
    for instants in (new_york, mixed, clock.tz_localize(None), clock.as_unit("ns")):
        spine_before = spine.assign(event_timestamp=instants)
        spine_after = spine_before.copy()
        found = retrieved(store, spine_after, ["daily:close"])
        assert found["close"].tolist() == [1.0, 2.0]
        assert found["event_timestamp"].tolist() == [CLOSE - MICROSECOND, CLOSE]
        pd.testing.assert_frame_equal(spine_before, spine_after)


def test_feature_rows_without_a_zone_are_in_utc(tmp_path):
    rows = two_closes()
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_localize(None)
    store = opened(tmp_path, [view("daily", rows, tmp_path, TTL)])
    found = retrieved(store, asked(CLOSE - MICROSECOND, CLOSE, CLOSE + TTL), ["daily:close"])
    assert found["close"].tolist() == [1.0, 2.0, 2.0]


def test_the_instant_may_have_another_name(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, FOR_EVER)])
    spine = asked(CLOSE).rename(columns={"event_timestamp": "as_of"})
    found = retrieved(store, spine, ["daily:close"])
    assert found.values.tolist() == [["AAPL", CLOSE, 2.0]]
    assert found.columns[1] == "as_of"


def corrected() -> pd.DataFrame:
    """AAPL's close of one session as first known, and as known an hour and a day later."""
    rows = pd.concat([asked(CLOSE)] * 3, ignore_index=True)
    delays = [pd.Timedelta(hours=1), pd.Timedelta(days=1), pd.Timedelta(0)]
    return rows.assign(created=[CLOSE + delay for delay in delays], close=[2.1, 2.2, 2.0])


def test_of_two_rows_of_one_instant_the_one_created_later_counts(tmp_path):
    daily = view("daily", corrected(), tmp_path, TTL, created_timestamp_column="created")
    found = retrieved(opened(tmp_path, [daily]), asked(CLOSE, CLOSE + TTL), ["daily:close"])
    assert found["close"].tolist() == [2.2, 2.2]


def test_a_later_instant_beats_a_later_creation(tmp_path):
    rows = two_closes().assign(created=[CLOSE + pd.Timedelta(days=9), CLOSE, CLOSE])
    daily = view("daily", rows, tmp_path, TTL, created_timestamp_column="created")
    assert retrieved(opened(tmp_path, [daily]), asked(CLOSE), ["daily:close"])["close"].tolist() == [2.0]


def test_a_knowledge_cutoff_hides_what_was_created_later(tmp_path):
    daily = view("daily", corrected(), tmp_path, TTL, created_timestamp_column="created")
    instants = [CLOSE + pd.Timedelta(hours=h) for h in (0, 0.99, 1, 23, 24)]
    options = {"filter_by_created_timestamp": True}
    found = retrieved(opened(tmp_path, [daily]), asked(*instants), ["daily:close"], **options)
    assert found["close"].tolist() == [2.0, 2.0, 2.1, 2.1, 2.2]


def test_a_store_with_a_cutoff_sees_what_was_known_then_whatever_it_is_asked(tmp_path):
    daily = view("daily", corrected(), tmp_path, TTL, created_timestamp_column="created")
    cutoffs = {
        "2014-01-03T20:59:59Z": None,
        "2014-01-03T21:00:00Z": 2.0,
        "2014-01-04T02:59:59+05:00": 2.0,
    }
    cutoffs |= {"2014-01-03T17:00:00-05:00": 2.1, "2014-01-04T21:00:00Z": 2.2}
    for number, (known_at, close) in enumerate(cutoffs.items()):
        store = opened(tmp_path / str(number), [daily], known_at=known_at)
        assert_same(retrieved(store, asked(CLOSE + TTL), ["daily:close"])["close"], [close])


def test_a_cutoff_on_a_view_that_does_not_say_when_its_rows_were_created_is_refused(tmp_path):
    store = opened(tmp_path, [view("daily", two_closes(), tmp_path, TTL)], known_at=str(CLOSE))
    with pytest.raises(StoreError, match="created_timestamp_column"):
        retrieved(store, asked(CLOSE), ["daily:close"])


HOUR = pd.Timedelta(hours=1)
HOURS = st.integers(0, 7)
SYMBOLS = ["A", "B", "C", "D", "E"]
VERSIONS = st.dictionaries(  # (symbol, instant, creation): the value then known, or a withdrawal
    st.tuples(st.sampled_from(SYMBOLS), HOURS, HOURS),
    st.one_of(st.none(), st.integers(1, 99)),
    min_size=20,
)


def version_rows(versions: dict) -> pd.DataFrame:
    rows = [(s, CLOSE + e * HOUR, CLOSE + c * HOUR, v) for (s, e, c), v in sorted(versions.items())]
    columns = ["symbol", "event_timestamp", "created", "close"]
    return pd.DataFrame(rows, columns=columns).astype({"close": "float64"})


def standing(rows: pd.DataFrame) -> pd.DataFrame:
    """The version created last of each symbol and instant, if it is no withdrawal."""
    last = rows.sort_values("created").drop_duplicates(["symbol", "event_timestamp"], keep="last")
    return last[last["close"].notna()]


@pytest.fixture(scope="module", params=[ASOF, FEASTS_OWN])
def version_store(request, tmp_path_factory):
    """A store of versions under a short and a long ttl, and the file they are in."""
    folder = tmp_path_factory.mktemp("versions")
    rows = version_rows({("A", 0, 0): 1})
    stale = view("stale", rows, folder, timedelta(hours=3), created_timestamp_column="created")
    daily = view("daily", rows, folder, FOR_EVER, created_timestamp_column="created")
    return opened(folder, [stale, daily], request.param), folder


@given(VERSIONS, HOURS)
@settings(deadline=None, max_examples=12)
def test_versions_are_seen_as_a_slow_reader_sees_them(version_store, versions, cutoff):
    store, folder = version_store
    rows = version_rows(versions)
    for name in ("stale", "daily"):
        write_parquet(rows, folder / f"{name}.parquet")
    wanted = itertools.product([*SYMBOLS, "UNKNOWN"], [CLOSE + hour * HOUR for hour in range(-1, 9)])
    spine = pd.DataFrame(wanted, columns=["symbol", "event_timestamp"])
    ours = type(store.config.offline_store).__name__ == "AsofDuckDBOfflineStoreConfig"
    for known_at, strict in itertools.product(
        [None, CLOSE + cutoff * HOUR] if ours else [None], [True, False]
    ):
        if ours:
            store.config.offline_store.known_at = known_at
        features = ["stale:close", "daily:close"]
        options = {"full_feature_names": True, "filter_by_created_timestamp": strict}
        found = retrieved(store, spine, features, **options)
        by_then = rows if known_at is None else rows[rows["created"] <= known_at]
        for name, ttl in (("stale", timedelta(hours=3)), ("daily", FOR_EVER)):
            for instant, at_once in found.groupby("event_timestamp"):
                seen = by_then[by_then["created"] <= instant] if strict else by_then
                seen = standing(seen) if ours else seen  # Feast has no withdrawals: a row of nothing
                expected = looked_up(seen, at_once, "close", ttl)
                assert_same(at_once[f"{name}__close"], expected)


@given(VERSIONS, HOURS)
@settings(deadline=None, max_examples=12)
def test_under_a_cutoff_feast_and_the_table_known_then_agree(asof_versions, versions, cutoff):
    store, folder = asof_versions
    history = version_rows(versions)
    write_parquet(history, folder / "daily.parquet")
    for known_at in (None, CLOSE + cutoff * HOUR):
        store.config.offline_store.known_at = known_at
        table = known(history.rename(columns={"created": "created_timestamp"}), known_at)
        found = retrieved(store, table[["symbol", "event_timestamp"]], ["daily:close"])
        assert found["close"].tolist() == table["close"].tolist()


@pytest.fixture(scope="module")
def asof_versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    rows = version_rows({("A", 0, 0): 1})
    daily = view("daily", rows, folder, FOR_EVER, created_timestamp_column="created")
    return opened(folder, [daily]), folder


def withdrawn() -> pd.DataFrame:
    """Closes 1, 2, 3 of three days; the last two are withdrawn hours later, the second comes back."""
    versions = [(0, 0, 1.0), (24, 24, 2.0), (48, 48, 3.0), (48, 50, None), (24, 52, None), (24, 60, 2.5)]
    rows = [("A", CLOSE + own * HOUR, CLOSE + created * HOUR, close) for own, created, close in versions]
    columns = ["symbol", "event_timestamp", "created", "close"]
    return pd.DataFrame(rows, columns=columns).astype({"close": "float64"})


def test_from_its_withdrawal_on_a_bar_has_never_been(tmp_path):
    daily = view("daily", withdrawn(), tmp_path, FOR_EVER, created_timestamp_column="created")
    store = opened(tmp_path, [daily])
    hours = [0, 23, 24, 48, 49, 50, 51, 52, 59, 60, 99]
    spine = asked(*(CLOSE + hour * HOUR for hour in hours), symbol="A")
    options = {"filter_by_created_timestamp": True}
    as_then = retrieved(store, spine, ["daily:close"], **options)["close"].tolist()
    assert as_then == [1.0, 1.0, 2.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 2.5, 2.5]
    now = retrieved(store, spine, ["daily:close"])["close"].tolist()
    assert now == [1.0, 1.0, *[2.5] * 9]
    store.materialize(CLOSE - HOUR, CLOSE + 99 * HOUR)
    assert store.get_online_features(["daily:close"], [{"symbol": "A"}]).to_dict()["close"] == [2.5]
    for hour, close in ((49, 3.0), (51, 2.0), (55, 1.0)):
        store.config.offline_store.known_at = CLOSE + hour * HOUR
        assert retrieved(store, spine.tail(1), ["daily:close"])["close"].tolist() == [close]
        store.materialize(CLOSE - HOUR, CLOSE + 99 * HOUR)
        online = store.get_online_features(["daily:close"], [{"symbol": "A"}]).to_dict()
        assert online["close"] == [close]


def test_a_bar_that_was_withdrawn_before_it_was_first_known_was_never_seen(tmp_path):
    rows = withdrawn().iloc[[0, 2, 3]].assign(created=[CLOSE, CLOSE + 51 * HOUR, CLOSE + 51 * HOUR])
    rows.loc[3, "created"] += MICROSECOND
    daily = view("daily", rows, tmp_path, FOR_EVER, created_timestamp_column="created")
    spine = asked(*(CLOSE + hour * HOUR for hour in (50, 51, 52)), symbol="A")
    options = {"filter_by_created_timestamp": True}
    found = retrieved(opened(tmp_path, [daily]), spine, ["daily:close"], **options)
    assert found["close"].tolist() == [1.0, 3.0, 1.0]


def test_the_only_bar_withdrawn_leaves_nothing(tmp_path):
    rows = withdrawn().iloc[[2, 3]]
    daily = view("daily", rows, tmp_path, FOR_EVER, created_timestamp_column="created")
    store = opened(tmp_path, [daily])
    spine = asked(CLOSE + 49 * HOUR, CLOSE + 50 * HOUR, symbol="A")
    options = {"filter_by_created_timestamp": True}
    assert_same(retrieved(store, spine, ["daily:close"], **options)["close"], [3.0, None])
    assert_same(retrieved(store, spine, ["daily:close"])["close"], [None, None])


def test_a_row_that_lacks_one_feature_stands(tmp_path):
    rows = withdrawn().head(2).assign(volume=[7.0, 8.0])
    rows.loc[1, "close"] = np.nan
    daily = view("daily", rows, tmp_path, FOR_EVER, created_timestamp_column="created")
    spine = asked(CLOSE + 30 * HOUR, symbol="A")
    for options in ({}, {"filter_by_created_timestamp": True}):
        found = retrieved(opened(tmp_path, [daily]), spine, ["daily:close"], **options)
        assert_same(found["close"], [None])


def test_materialize_puts_the_version_created_last_online(tmp_path):
    rows = pd.concat([corrected().iloc[[1, 0, 2]], two_closes().assign(created=CLOSE)])
    daily = view("daily", rows, tmp_path, FOR_EVER, created_timestamp_column="created")
    store = opened(tmp_path, [daily])
    store.materialize(CLOSE - pd.Timedelta(days=2), CLOSE)
    online = store.get_online_features(
        ["daily:close"], [{"symbol": "AAPL"}, {"symbol": "IBM"}]
    ).to_dict()
    assert online["close"] == [2.2, 9.0]


def test_a_renamed_source_column_is_found_under_its_feature_name(tmp_path):
    rows = two_closes().rename(columns={"close": "px_last"})
    daily = view("daily", rows, tmp_path, TTL, field_mapping={"px_last": "close"})
    assert retrieved(opened(tmp_path, [daily]), asked(CLOSE), ["daily:close"])["close"].tolist() == [2.0]


def test_a_view_may_be_joined_twice_on_different_columns_of_the_spine(tmp_path):
    daily = view("daily", two_closes(), tmp_path, TTL)
    own, peer = daily.with_name("own"), daily.with_name("peer").with_join_key_map({"symbol": "rival"})
    store = opened(tmp_path, [daily, FeatureService(name="pair", features=[own, peer])])
    spine = asked(CLOSE).assign(rival="IBM")
    found = retrieved(store, spine, store.get_feature_service("pair"), full_feature_names=True)
    assert found.iloc[0].to_dict() == {
        "symbol": "AAPL",
        "event_timestamp": CLOSE,
        "rival": "IBM",
        "own__close": 2.0,
        "peer__close": 9.0,
    }


@pytest.mark.parametrize(("known_at", "worth"), [("null", 22.0), ("2014-01-04T20:59:59Z", 21.0)])
def test_an_on_demand_view_is_computed_from_the_point_in_time_rows(tmp_path, known_at, worth):
    daily = view("daily", corrected(), tmp_path, TTL, created_timestamp_column="created")
    request = RequestSource(name="order", schema=[Field(name="shares", dtype=Float64)])

    @on_demand_feature_view(sources=[daily, request], schema=[Field(name="worth", dtype=Float64)])
    def order_worth(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"worth": rows["close"] * rows["shares"]})

    store = opened(tmp_path, [daily, order_worth], known_at=known_at)
    spine = asked(CLOSE - MICROSECOND, CLOSE).assign(shares=[10.0, 10.0])
    found = retrieved(store, spine, ["daily:close", "order_worth:worth"])
    assert_same(found["worth"], [None, worth])


def test_feasts_fields_are_the_table_of_features():
    daily, windows = definitions.daily, definitions.windows
    assert [(f.name, f.dtype) for f in daily.features] == [(name, Float64) for name in NAMES]
    assert [(f.name, f.dtype) for f in windows.features] == [("window", Bytes)]
    assert windows.tags["features"].split(",") == NAMES
    for each in (daily, windows):
        assert each.entities == ["symbol"]
        assert each.stream_source.name == f"{each.name}_push"
        assert each.batch_source.created_timestamp_column == "created_timestamp"


def test_every_module_but_the_definitions_is_hidden_from_feast_apply():
    folder = Path(definitions.__file__).parent
    ignored = set((folder / ".feastignore").read_text().splitlines())
    assert {path.name for path in folder.glob("*.py")} - ignored == {"definitions.py"}
