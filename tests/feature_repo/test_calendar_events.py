"""A calendar with a publication lag: joined point in time offline, online and into the data set."""

import shutil

import numpy as np
import pandas as pd
import pytest
from support import small_runs as small
from support.once import once

from feature_repo import publish
from feature_repo.calendar_events import online_events, point_in_time_events
from feature_repo.store import open_store
from pitwise.bars.calendar import session_close
from pitwise.errors import DataError, ParamsError, StoreError
from pitwise.workspace import Workspace
from training.dataset import DatasetParams, groups

HEAD = "symbol,date,kind,value,known_at\n"
DAYS = np.sort(small.market(1, 120, seed=21)["date"].unique())
CLOSES = session_close(pd.Series(DAYS))
KINDS = ["earnings", "guidance"]


def day(i: int) -> str:
    return str(DAYS[i])[:10]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Earnings of S000's session 60 are known three sessions later and mended after ten; the next ones
    are announced ahead."""
    made = once(tmp_path_factory, "published", small.published_workspace)
    workspace = Workspace(shutil.copytree(made, tmp_path_factory.mktemp("calendar") / "workspace"))
    (workspace.root / "universe").mkdir()
    (workspace.root / "universe/calendar.csv").write_text(
        HEAD
        + f"S000,{day(60)},earnings,1.5,{CLOSES[63].isoformat()}\n"
        + f"S000,{day(60)},earnings,1.75,{day(70)}\n"
        + f"S000,{day(80)},earnings,2,{day(75)}\n"
        + f"S001,{day(90)},guidance,,{day(90)}\n"
    )
    small.change_params(workspace, calendar={"path": "universe/calendar.csv"})
    publish.main(workspace)
    return workspace


def test_a_row_of_the_data_set_has_the_event_that_was_known_at_its_close(workspace):
    rows = pd.concat([rows for rows, _ in groups(workspace, DatasetParams(**small.SPLIT), 10, 1)])
    said = rows.set_index(["symbol", "event_timestamp"])

    def earnings(i: int) -> list:
        since, value, _ = said.filter(like="earnings_").loc["S000", CLOSES[i]]
        return [since, value]

    assert [earnings(i) for i in (63, 70, 71)] == [[3, 1.5], [10, 1.5], [11, 1.75]]
    assert [earnings(i) for i in (79, 80, 119)] == [[19, 1.75], [0, 2], [39, 2]]
    assert np.isnan(earnings(62)).all()
    assert said.loc["S001"].filter(like="earnings_").isna().all(axis=None)
    assert said.loc["S000", "earnings_age_days"][CLOSES[63]] == 0
    # A day alone is over at midnight in UTC, after the close: the row is known in the next session.
    assert said.loc["S001", "guidance_sessions_since"].dropna().tolist() == [*range(1, 30)]
    assert said["guidance_value"].isna().all()


def test_online_is_what_offline_is_at_the_newest_session(workspace):
    store = open_store(workspace)
    symbols = ["S001", "S000", "S004"]
    online = online_events(store, symbols, KINDS, CLOSES[119])
    spine = pd.DataFrame({"symbol": symbols, "event_timestamp": CLOSES[119]})
    offline = point_in_time_events(store, spine, KINDS).set_axis(symbols)
    pd.testing.assert_frame_equal(online, offline)
    assert online.loc["S000", "earnings_value"] == 2
    assert online.loc["S004"].isna().all()


def test_a_calendar_that_cannot_be_used_is_refused(workspace, tmp_path):
    with pytest.raises(ParamsError, match=r"calendar\.path.*universe"):
        publish.calendar_table(workspace, tmp_path / "calendar.csv")
    with pytest.raises(DataError, match=r"nothing\.csv: there is no such file"):
        publish.calendar_table(workspace, "universe/nothing.csv")


def test_an_event_that_left_the_file_leaves_the_store(workspace):
    """The last test, for it takes an event away."""
    file = workspace.root / "universe/calendar.csv"
    file.write_text(HEAD + f"S001,{day(90)},guidance,3,{day(90)}\n")
    publish.main(workspace)
    online = online_events(open_store(workspace), ["S000", "S001"], KINDS, CLOSES[119])
    assert online.loc["S000"].isna().all()
    assert online.loc["S001", "guidance_value"] == 3


def test_without_a_calendar_the_store_has_none(tmp_path_factory):
    plain = Workspace(once(tmp_path_factory, "published", small.published_workspace))
    with pytest.raises(StoreError, match="no calendar"):
        online_events(open_store(plain), ["S000"], KINDS, CLOSES[119])
