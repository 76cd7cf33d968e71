import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from support import markets

from pitwise.errors import DataError
from pitwise.features import __main__ as stage
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, covered_before, known, merge, revisions
from pitwise.features.indicators import NAMES
from pitwise.features.load import load_bars, symbol_groups
from pitwise.workspace import Workspace, write_parquet

DAY = pd.Timedelta(days=1)
NOW = pd.Timestamp("2024-06-03 22:00", tz="UTC")


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def market(symbols: int = 4, sessions: int = 60) -> pd.DataFrame:
    return markets.bars(symbols, sessions, seed=5).assign(segment=np.int32(0))


def revised(bars: pd.DataFrame) -> pd.DataFrame:
    """One bar corrected, one withdrawn; one is late and two sessions are new, missing in `held`."""
    changed = bars.drop(index=100).reset_index(drop=True)
    changed.loc[45, "close"] *= 1.001
    return changed


def held(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.groupby("symbol").head(58).drop(index=150).reset_index(drop=True)


def files(workspace: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in (workspace.daily_features, workspace.revisions)]


def test_a_first_load_takes_each_bar_as_known_at_its_close_whenever_it_runs(workspace):
    bars = market()
    assert load_bars(workspace, bars, NOW) == f"240 rows of {len(NAMES)} features for 4 symbols"
    before = files(workspace)
    history = pd.read_parquet(workspace.daily_features)
    assert history.columns.tolist() == [*KEYS, CREATED, *NAMES, "segment"]
    assert (history[CREATED] == history["event_timestamp"]).all()
    assert_frame_equal(history.drop(columns=CREATED), daily_features(bars))
    assert pd.read_parquet(workspace.revisions).empty
    workspace.daily_features.unlink()
    load_bars(workspace, bars, NOW + 99 * DAY)
    assert files(workspace) == before


def test_the_same_bars_again_change_no_byte(workspace):
    bars = market()
    load_bars(workspace, held(bars), NOW)
    load_bars(workspace, revised(bars), NOW + DAY)
    before = files(workspace)
    assert (
        load_bars(workspace, revised(bars), NOW + 2 * DAY)
        == f"239 rows of {len(NAMES)} features for 4 symbols"
    )
    assert files(workspace) == before


def test_the_summary_of_a_load_names_what_it_changed_and_where(workspace):
    bars = market()
    load_bars(workspace, held(bars), NOW)
    summary = load_bars(workspace, revised(bars), NOW + DAY)
    assert "3 bars revised (1 changed, 1 withdrawn, 1 late) of S000, S001, S002" in summary
    found = pd.read_parquet(workspace.revisions)
    first, last = (f"{getattr(found['event_timestamp'], side)():%Y-%m-%d}" for side in ("min", "max"))
    assert f"features moved in {len(found):,} rows, sessions {first} to {last}" in summary
    dates = found.loc[found["bar_changed"], ["symbol", "event_timestamp", "kind"]]
    wanted = bars.loc[[45, 100, 150], "symbol"].tolist()
    assert dates["symbol"].tolist() == wanted
    days = dates["event_timestamp"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    assert days.tolist() == bars.loc[[45, 100, 150], "date"].dt.strftime("%Y-%m-%d").tolist()


@pytest.mark.parametrize("rows", [1, 61, 130, 10_000])
def test_a_history_written_in_groups_is_the_history_written_at_once(workspace, rows):
    bars = market()
    loads = [held(bars), revised(bars), revised(bars)[lambda b: ~b["symbol"].isin(["S000", "S003"])]]
    history = None
    for i, each in enumerate(loads):
        load_bars(workspace, each.reset_index(drop=True), NOW + i * DAY, group_rows=rows)
        history = merge(history, daily_features(each.reset_index(drop=True)), NOW + i * DAY)
    assert_frame_equal(pd.read_parquet(workspace.daily_features), history)
    expected = revisions(history, covered_before(history))
    assert_frame_equal(
        pd.read_parquet(workspace.revisions), expected.reset_index(drop=True), check_dtype=False
    )


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


def test_a_clock_put_back_does_not_reorder_what_was_known(workspace):
    bars = market()
    load_bars(workspace, held(bars), NOW)
    load_bars(workspace, revised(bars), NOW + DAY)
    load_bars(workspace, held(bars), NOW - DAY)
    history = pd.read_parquet(workspace.daily_features)
    for at, expected in ((NOW, held(bars)), (NOW + DAY, revised(bars)), (None, held(bars))):
        assert_frame_equal(known(history, at).drop(columns=CREATED), daily_features(expected))


@pytest.mark.parametrize("other", ["symbols", "sessions", "features"])
def test_another_market_or_feature_set_begins_anew_with_a_message(workspace, other):
    bars = market()
    if other == "features":
        write_parquet(daily_features(bars), workspace.daily_features)
    else:
        load_bars(workspace, bars, NOW)
    if other == "symbols":
        bars["symbol"] = "X" + bars["symbol"]
    if other == "sessions":
        bars = markets.bars(4, 60, seed=5, start="2019-01-02").assign(segment=np.int32(0))
    assert "begins anew" in load_bars(workspace, bars, NOW + DAY)
    history = pd.read_parquet(workspace.daily_features)
    assert (history[CREATED] == history["event_timestamp"]).all()
    assert_frame_equal(history.drop(columns=CREATED), daily_features(bars))


def test_a_broken_history_is_one_clear_message_and_stays(workspace):
    workspace.daily_features.parent.mkdir(parents=True)
    workspace.daily_features.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"daily\.parquet: cannot be read.*dvc checkout"):
        load_bars(workspace, market(), NOW)
    assert workspace.daily_features.read_bytes() == b"PAR1 no more"


def test_the_stage_loads_the_clean_bars(workspace, capsys):
    write_parquet(market(2, 40), workspace.clean_bars)
    stage.main(workspace)
    assert capsys.readouterr().out == f"80 rows of {len(NAMES)} features for 2 symbols\n"
    history = pd.read_parquet(workspace.daily_features)
    assert_frame_equal(history.drop(columns=CREATED), daily_features(market(2, 40)))
