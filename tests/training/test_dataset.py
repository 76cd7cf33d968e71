import math

import numpy as np
import pandas as pd
import pytest
from support import small_runs as small
from support.project import with_params

from pitwise.bars.calendar import session_close
from pitwise.errors import DataError, ParamsError, StoreError
from pitwise.evaluation.labels import LabelParams, labels
from pitwise.features.daily import daily_features
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.stage import load_params
from pitwise.workspace import Workspace, write_json, write_parquet
from training import dataset
from training.dataset import DatasetParams, build

DAYS = ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05")


def closes(*rows: tuple[str, str, float], segment: int | list[int] = 0) -> pd.DataFrame:
    bars = pd.DataFrame(rows, columns=["symbol", "date", "close"])
    instants = session_close(pd.to_datetime(bars.pop("date")))
    return bars.assign(event_timestamp=instants, open=bars["close"], price_factor=1.0, segment=segment)


def made(bars: pd.DataFrame, window: int = small.WINDOW) -> pd.DataFrame:
    """What the stage makes of the bars, without a feature store between."""
    daily = daily_features(bars)
    answers = daily[[*KEYS, "open", "close", "price_factor", "segment"]]
    return build(daily[[*KEYS, *NAMES]], answers, DatasetParams(**small.SPLIT), window)


@pytest.fixture(scope="module")
def halted() -> pd.DataFrame:
    """A market in which each symbol misses sessions at random, and one trades in a few only."""
    bars = small.market(6, 200, seed=2)
    kept = np.random.default_rng(2).random(len(bars)) > 0.05
    late = (bars["symbol"] == "S005") & (bars["date"] < bars["date"].iloc[170])
    return bars[kept & ~late].reset_index(drop=True)


@pytest.fixture(scope="module")
def rows(halted) -> pd.DataFrame:
    return made(halted)


def test_labels_look_one_session_ahead_of_one_symbol():
    bars = closes(
        ("A", "2024-01-02", 100),
        ("A", "2024-01-03", 110),  # halted on the 4th
        ("A", "2024-01-05", 121),  # a Friday
        ("A", "2024-01-08", 60.5),
        ("B", "2024-01-09", 10),  # the session after A's last one
        ("B", "2024-01-10", 20),
    )
    answer = labels(bars, 1)
    nan = math.nan
    np.testing.assert_array_equal(answer["next_close"], [110, nan, 60.5, nan, 20, nan])
    expected = [math.log(1.1), nan, math.log(0.5), nan, math.log(2), nan]
    np.testing.assert_allclose(answer["label"], expected)


def test_labels_cross_a_holiday_that_is_no_session():
    answer = labels(closes(("A", "2024-01-12", 1), ("A", "2024-01-16", math.e)), 1)
    assert answer["label"].iloc[0] == pytest.approx(1)


def test_labels_cross_a_session_that_closed_early():
    days = ("2024-11-27", "2024-11-29", "2024-12-02")  # the 28th is a holiday, the 29th half a day
    answer = labels(closes(*(("A", day, math.e**i) for i, day in enumerate(days))), 1)
    np.testing.assert_allclose(answer["label"], [1, 1, math.nan])


def test_no_label_crosses_a_segment():
    answer = labels(closes(*(("A", day, 2.0) for day in DAYS), segment=[0, 0, 1, 2]), 1)
    np.testing.assert_array_equal(answer["label"], [0, math.nan, math.nan, math.nan])


def test_a_label_is_on_one_basis_across_a_split():
    """2:1 at the third session: 52 of then are 104 of the session before."""
    bars = closes(*(("A", day, close) for day, close in zip(DAYS, [99.0, 100, 52, 26], strict=True)))
    answer = labels(bars.assign(price_factor=[1.0, 1, 2, 2]), 1)
    np.testing.assert_array_equal(answer["next_close"], [100, 104, 26, math.nan])
    expected = [math.log(100 / 99), math.log(1.04), math.log(0.5), math.nan]
    np.testing.assert_allclose(answer["label"], expected)


NINE = (*DAYS, "2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11", "2024-01-12")
"""Nine sessions, one after the other."""


def nine(**columns: list) -> pd.DataFrame:
    """Prices by hand; 2:1 at the fourth session, so that 55 of then are 110 of the day before."""
    bars = closes(*(("A", day, 0.0) for day in NINE))
    prices = {
        "open": [100.0, 102, 104, 53, 54, 55, 56, 60, 58],
        "close": [101.0, 103, 106, 55, 52, 50.5, 56.65, 53, 44],
        "price_factor": [1.0, 1, 1, 2, 2, 2, 2, 2, 2],
    }
    return bars.assign(**prices | columns)


def test_labels_five_sessions_ahead_across_a_split():
    answer = labels(nine(), 5)
    nan = math.nan
    # The first: 50.5 five sessions later are 101 of its own shares. The fourth is on the new basis.
    np.testing.assert_allclose(answer["next_close"], [101, 113.3, 106, 44, nan, nan, nan, nan, nan])
    expected = [0, math.log(113.3 / 103), 0, math.log(44 / 55), nan, nan, nan, nan, nan]
    np.testing.assert_allclose(answer["label"], expected, atol=1e-15)
    # From the open of the next session to the open five after: 102 to 2 x 56, 104 to 2 x 60, 53 to 58.
    expected = [math.log(112 / 102), math.log(120 / 104), math.log(58 / 53), *[nan] * 6]
    np.testing.assert_allclose(answer["label_open"], expected)


def test_open_labels_one_session_ahead_start_at_the_next_open():
    answer = labels(nine().iloc[:5], 1)
    opens = [math.log(104 / 102), math.log(106 / 104), math.log(54 / 53), math.nan, math.nan]
    np.testing.assert_allclose(answer["label_open"], opens)
    assert answer["label"].notna().tolist() == [True, True, True, True, False]


def test_no_label_over_five_sessions_crosses_a_halt_or_a_segment():
    halted = labels(nine().drop(index=5), 5)  # nobody traded in the sixth session
    assert halted.isna().all().all()
    apart = labels(nine(segment=[0, 0, 0, 0, 0, 0, 1, 1, 1]), 5)
    assert apart["label"].notna().tolist() == [True, *[False] * 8]
    assert apart["label_open"].isna().all()


def test_a_longer_horizon_has_fewer_labels_and_a_wider_gap_before_each_part(halted):
    daily = daily_features(halted)
    params = DatasetParams(**small.SPLIT)
    whole = build(daily.drop(columns="segment"), daily, params, small.WINDOW, 5)
    number = pd.Series(pd.DatetimeIndex(whole["event_timestamp"].unique()).sort_values())
    for before, after in (("train", "validation"), ("validation", "test")):
        last = whole.loc[whole["split"] == before, "event_timestamp"].max()
        first = whole.loc[whole["split"] == after, "event_timestamp"].min()
        assert (number == first).argmax() - (number == last).argmax() > 5 + params.embargo_sessions


def test_a_horizon_that_is_none_is_refused_by_name(tmp_path):
    workspace = with_params(tmp_path, label={"horizon": 2})
    with pytest.raises(ParamsError, match=r"label\.horizon.*1, 5 or 20"):
        load_params(workspace, "label", LabelParams)


def test_labels_do_not_pass_through_the_features(halted, rows):
    daily = daily_features(halted)
    other = daily[[*KEYS, *NAMES]].assign(close=daily["close"] * 2 + 1)
    answers = daily[[*KEYS, "open", "close", "price_factor", "segment"]]
    found = build(other, answers, DatasetParams(**small.SPLIT), small.WINDOW)
    np.testing.assert_array_equal(found["label"], rows["label"])
    np.testing.assert_array_equal(found["next_close"], rows["next_close"])


def test_a_split_marks_only_rows_that_end_a_window_and_have_a_label(rows):
    marked = rows["split"] != ""
    assert set(rows["split"]) == {"train", "validation", "test", ""}
    assert rows.loc[marked, "ends_window"].all()
    assert rows.loc[marked, "label"].notna().all()
    assert not rows["ends_window"].all()
    assert rows.loc[rows["ends_window"], "label"].isna().any()


def test_every_usable_row_of_a_splits_sessions_is_marked(rows):
    usable = rows["ends_window"] & rows["label"].notna()
    for _, of_session in rows[usable].groupby("event_timestamp"):
        assert of_session["split"].nunique() == 1


def test_a_window_ends_where_a_symbol_has_that_many_complete_rows(rows):
    for _, of_symbol in rows.groupby("symbol"):
        complete = of_symbol[NAMES].notna().all(axis=1)
        expected = complete.rolling(small.WINDOW).sum() == small.WINDOW
        assert (of_symbol["ends_window"] == expected).all()


def test_parts_stand_in_order_of_time(rows):
    span = rows[rows["split"] != ""].groupby("split")["event_timestamp"].agg(["min", "max"])
    assert span.loc["train", "max"] < span.loc["validation", "min"]
    assert span.loc["validation", "max"] < span.loc["test", "min"]


def test_labels_meet_the_rows_of_their_own_symbol_and_session(halted, rows):
    answers = halted.join(labels(daily_features(halted), 1))
    assert (rows["symbol"].to_numpy() == answers["symbol"].to_numpy()).all()
    np.testing.assert_array_equal(rows["close"], answers["close"])
    np.testing.assert_array_equal(rows["label"], answers["label"])
    np.testing.assert_array_equal(rows["next_close"], answers["next_close"])


def test_a_window_longer_than_the_history_is_refused(halted):
    with pytest.raises(DataError, match=r"publish\.window.*250"):
        made(halted, window=250)


def test_bars_of_which_no_two_are_of_adjacent_sessions_are_refused():
    bars = small.market(3, 400, seed=3)
    weekly = bars[bars.groupby("symbol").cumcount() % 5 == 0].reset_index(drop=True)
    with pytest.raises(DataError):
        made(weekly)


@pytest.mark.parametrize(
    ("key", "value"),
    [("test_fraction", 0), ("validation_fraction", 0.5), ("embargo_sessions", -1), ("window", 30)],
)
def test_impossible_splits_are_refused_by_name(tmp_path, key, value):
    workspace = with_params(tmp_path, dataset={**small.SPLIT, key: value})
    with pytest.raises(ParamsError, match=rf"dataset\.{key}"):
        load_params(workspace, "dataset", DatasetParams)


@pytest.mark.parametrize("known_at", ["2024-06-03 22:00", "yesterday", "2024-06-03"])
def test_a_cutoff_without_a_zone_is_refused_by_name(tmp_path, known_at):
    workspace = with_params(tmp_path, dataset=small.SPLIT)
    with workspace.params.open("a") as file:
        file.write(f"  known_at: {known_at}\n")
    with pytest.raises(ParamsError, match=r"dataset\.known_at"):
        load_params(workspace, "dataset", DatasetParams)


def test_a_cutoff_before_the_first_bar_is_refused(tmp_path):
    cutoff = {"known_at": "1999-12-31T00:00:00+00:00"}
    workspace = small.new_workspace(tmp_path / "run", dataset=small.SPLIT | cutoff)
    bars = small.market(1, 60, seed=1)
    write_parquet(small.known_at_their_close(daily_features(bars)), workspace.daily_features)
    write_parquet(small.sealed_at_their_close(bars), workspace.seals)
    write_json({"window": small.WINDOW}, workspace.published)
    with pytest.raises(DataError, match=r"dataset\.known_at: no bar was known at 1999-12-31"):
        dataset.main(workspace)


def test_a_cutoff_that_the_offline_store_cannot_keep_is_refused(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.feast_repo.mkdir()
    (workspace.feast_repo / "feature_store.yaml").write_text(
        "project: market\nprovider: local\nregistry: registry.db\noffline_store:\n  type: duckdb\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    cutoff = pd.Timestamp("2024-06-03", tz="UTC")
    with pytest.raises(StoreError, match=r"dataset\.known_at"):
        dataset.open_as_known(workspace, cutoff)
