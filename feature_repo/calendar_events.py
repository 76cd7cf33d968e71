"""The calendar's last events out of Feast, offline and online, as the numbers of `at_sessions`."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from feature_repo.store import CALENDAR_VIEW
from pitwise.errors import StoreError
from pitwise.features.calendar_events import SAID, at_sessions
from pitwise.features.history import KEYS
from pitwise.workspace import Workspace, read_parquet

SERVICE = "calendar_v1"


def calendar_kinds(workspace: Workspace) -> list[str]:
    """The kinds of the published calendar's events, sorted; none where there is no calendar."""
    path = workspace.calendar_features
    return sorted(read_parquet(path, ["kind"])["kind"].unique()) if path.exists() else []


def point_in_time_events(store: Any, spine: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """The last event of each kind that was known at each instant of the spine.

    Args:
        store: a `feast.FeatureStore` that has a calendar.
        spine: (n,) `symbol` and `event_timestamp`, the closes of sessions.

    Returns:
        (n,) float64 `<kind>_<column>`, the columns of `at_sessions`, on the index of the spine; NaN
        where nothing had been known.
    """
    number = pd.RangeIndex(len(spine))
    asked = pd.concat([spine[KEYS].assign(kind=kind, number=number) for kind in kinds])
    service = store.get_feature_service(SERVICE)
    found = store.get_historical_features(entity_df=asked, features=service).to_df()
    parts = []
    for kind in kinds:
        of_kind = found[found["kind"] == kind].set_index("number").sort_index()
        values = at_sessions(of_kind[SAID], of_kind["event_timestamp"])
        parts.append(values.add_prefix(f"{kind}_"))
    return pd.concat(parts, axis=1).set_axis(spine.index)


def online_events(
    store: Any, symbols: Sequence[str], kinds: Sequence[str], close: pd.Timestamp
) -> pd.DataFrame:
    """The last event of each kind that the online store has, at the close of a session.

    Online are the events that were known at the newest session that is published.

    Args:
        close: UTC, of that session or a later one.

    Returns:
        (len(symbols),) float64 as `point_in_time_events`, by symbol.

    Raises:
        StoreError: there is no calendar.
    """
    if CALENDAR_VIEW not in {view.name for view in store.list_feature_views()}:
        raise StoreError(
            "calendar.path: the store has no calendar. Name the file, then `dvc repro publish`."
        )
    rows = [{"symbol": symbol, "kind": kind} for kind in kinds for symbol in symbols]
    answer = store.get_online_features(features=store.get_feature_service(SERVICE), entity_rows=rows)
    found = pd.DataFrame({name: answer.to_dict()[name] for name in (*SAID, "kind")})
    closes = pd.Series(close, found.index)
    values = at_sessions(found, closes)
    parts = [values[found["kind"] == kind].add_prefix(f"{kind}_").set_axis(symbols) for kind in kinds]
    return pd.concat(parts, axis=1)
