"""The features' history against its definition: at any instant, what the bars known then make."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from support import markets

from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import BarVersions, bar_versions, known_bars, write_versions
from pitwise.cleaning import as_of
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.engine import EngineParams
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, known, revisions
from pitwise.features.indicators import NAMES
from pitwise.features.versions import feature_history, write_feature_versions
from pitwise.stage import load_params
from pitwise.workspace import Workspace, write_parquet

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
ALONE = EngineParams(kind="local", n_jobs=1, address=None)
RECURSIVE = ["rsi_14", "macd", "macd_signal", "atr_14", "adx_14"]


@pytest.fixture(scope="module")
def params() -> CleanParams:
    from support.project import PROJECT

    found = load_params(PROJECT, "clean", CleanParams)
    return found.model_copy(update={"verdicts": "off", "min_history": 5})


def market(symbols: int = 3, sessions: int = 60) -> pd.DataFrame:
    return markets.bars(symbols, sessions, seed=5)[COLUMNS]


def closes(bars: pd.DataFrame) -> list[pd.Timestamp]:
    return session_close(pd.Series(sorted(bars["date"].unique()))).tolist()


def deliveries() -> list[Landing]:
    """A history of 50 sessions, then a session at a time; on the way a correction, a late bar, a
    withdrawal and a dividend that the adjusted close shows two sessions after."""
    bars = market()
    days = sorted(bars["date"].unique())
    bars["adj_close"] = bars["close"]
    late = (bars["symbol"] == "S001") & (bars["date"] == days[52])
    landings = []
    for i in range(49, 60):
        seen = bars[(bars["date"] <= days[i]) & ~(late & (i < 55))].copy()
        if i >= 53:
            seen.loc[(seen["symbol"] == "S000") & (seen["date"] == days[50]), "close"] *= 1.001
            seen.loc[(seen["symbol"] == "S000") & (seen["date"] == days[50]), "adj_close"] *= 1.001
        if i >= 54:
            paid = (seen["symbol"] == "S002") & (seen["date"] < days[52])
            seen.loc[paid, "adj_close"] *= 0.98
        if i >= 56:
            seen = seen[~((seen["symbol"] == "S000") & (seen["date"] == days[54]))]
        received = session_close(pd.Series([days[i]]))[0] + (HOUR if i > 49 else 0 * HOUR)
        span = {s: (days[0].date(), days[i].date()) for s in ("S000", "S001", "S002")}
        history = "assumed" if i == 49 else "observed"
        landings.append(Landing(seen, "csv", received, history=history, covers=span))
    return landings


def made(landings: list[Landing], params: CleanParams) -> tuple[BarVersions, pd.DataFrame]:
    versions = bar_versions(landings, 0.95)
    return versions, feature_history(versions, params)[1]


def test_at_every_instant_it_is_what_the_bars_known_then_make(params):
    landings = deliveries()
    versions, history = made(landings, params)
    assert history.equals(history.sort_values([*KEYS, CREATED], ignore_index=True))
    instants = [*closes(landings[0].rows)[4::5], *(each.received_at for each in landings)]
    for at in [t + d for t in instants for d in (0 * HOUR, 2 * HOUR)]:
        expected = daily_features(clean(known_bars(versions, at), params).bars)
        found = known(history, at)
        assert found[KEYS].equals(expected[KEYS])
        exact = [name for name in expected if name not in RECURSIVE]
        assert_frame_equal(found[exact], expected[exact], check_exact=True)
        assert np.allclose(found[RECURSIVE], expected[RECURSIVE], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_what_came_in_order_has_one_version_and_what_did_not_says_why(params):
    landings = deliveries()
    _, history = made(landings, params)
    days = sorted(landings[-1].rows["date"].unique())
    found = revisions(history)
    found = found.assign(
        session=[int(np.searchsorted(days, np.datetime64(t.date()))) for t in found["event_timestamp"]]
    )
    bars = found[found["bar_changed"]]
    assert list(zip(bars["symbol"], bars["session"], bars["kind"], strict=True)) == [
        ("S000", 50, "changed"),
        ("S000", 54, "withdrawn"),
        ("S001", 52, "late"),
    ]
    # The dividend moves what is from it on, and none of the sessions before.
    assert found.loc[found["symbol"] == "S002", "session"].tolist() == [52, 53]
    assert found.loc[found["symbol"] == "S001", "session"].min() == 52


def test_bars_that_no_later_delivery_touches_are_known_as_they_came(params):
    bars = market()
    received = closes(bars)[-1] + 99 * DAY
    _, history = made([Landing(bars, "csv", received, history="assumed")], params)
    assert len(history) == len(bars)
    own = history.groupby("symbol").cumcount()
    assert (history[CREATED] == history["event_timestamp"])[own >= 4].all()
    # With fewer than five bars a symbol had no clean ones.
    assert history.loc[own < 4, CREATED].unique().tolist() == [closes(bars)[4]]
    _, observed = made([Landing(bars, "csv", received)], params)
    assert observed[CREATED].unique().tolist() == [received]
    assert_frame_equal(observed.drop(columns=CREATED), history.drop(columns=CREATED))


@pytest.mark.parametrize("rows", [1, 61, 130, 10_000])
def test_a_history_written_in_shards_is_the_history_made_at_once(tmp_path, params, rows):
    workspace = Workspace(tmp_path)
    versions, history = made(deliveries(), params)
    write_versions(workspace, versions)
    cleaned, changes, _ = as_of.history(versions, params)
    tables = (workspace.clean_bars, workspace.quarantine, workspace.events, workspace.changes)
    for table, path in zip((*cleaned, changes), tables, strict=True):
        write_parquet(table, path)
    summary = write_feature_versions(workspace, params, ALONE, shard_rows=rows)
    assert f"{len(cleaned.bars)} rows of {len(NAMES)} features for 3 symbols" in summary
    assert "3 bars revised (1 changed, 1 withdrawn, 1 late) of S000, S001" in summary
    assert_frame_equal(pd.read_parquet(workspace.daily_features), history)
    found = pd.read_parquet(workspace.revisions)
    assert_frame_equal(found, revisions(history).reset_index(drop=True), check_dtype=False)


def test_rows_of_no_session_are_no_bars_and_stop_nothing(params):
    bars = market()
    misdated = bars.groupby("symbol").head(2).copy()
    misdated["date"] = pd.to_datetime(["2014-01-20", "2014-02-17"] * 3)  # holidays
    received = closes(bars)[-1] + DAY
    _, history = made([Landing(bars, "csv", received)], params)
    _, with_them = made([Landing(pd.concat([bars, misdated]), "csv", received)], params)
    assert_frame_equal(with_them, history)
