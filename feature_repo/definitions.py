"""The market in Feast: two feature views of symbols, one of their calendar, a versioned service each."""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bytes, Float64, UnixTimestamp

from pitwise.features.indicators import FEATURES, NAMES

FEATURES_FOLDER = "../data/features"
"""Relative to the folder of `feature_store.yaml`, so that a workspace may be moved."""

# Old prices stay readable, and a first `materialize-incremental` reaches back to all of them:
# Feast starts it at now - ttl. How fresh is fresh enough is for serving to judge, by the calendar.
TTL = timedelta(days=365 * 100)

symbol = Entity(
    name="symbol",
    join_keys=["symbol"],
    value_type=ValueType.STRING,
    description="Ticker of a listed stock",
)
kind = Entity(
    name="kind",
    join_keys=["kind"],
    value_type=ValueType.STRING,
    description="Kind of a calendar's events, such as earnings",
)


def feature_views(folder: str = FEATURES_FOLDER) -> tuple[FeatureView, FeatureView]:
    """The views: daily values, and windows of them.

    Each takes rows from a file that a stage writes, and live ones from its push source.

    Args:
        folder: of the files; a relative one is resolved by our offline store.
    """
    sources = {
        name: PushSource(
            name=f"{name}_push",
            batch_source=FileSource(
                name=f"{name}_features",
                path=f"{folder}/{name}.parquet",
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for name in ("daily", "windows")
    }
    daily = FeatureView(
        name="daily",
        description="The bar and its indicators at each session's close",
        entities=[symbol],
        ttl=TTL,
        schema=[Field(name=f.name, dtype=Float64, description=f.text) for f in FEATURES],
        source=sources["daily"],
    )
    windows = FeatureView(
        name="windows",
        description="The last sessions' daily values in one piece: a whole model input",
        entities=[symbol],
        ttl=TTL,
        # One value and not an array a feature: a lookup of 500 symbols is 500 values, not 16,000, and
        # numpy reads them as they are.
        schema=[
            Field(
                name="window",
                dtype=Bytes,
                description="which features, and float32, sessions x features, oldest first",
            )
        ],
        source=sources["windows"],
        tags={"features": ",".join(NAMES)},
    )
    return daily, windows


daily, windows = feature_views()
daily_v1 = FeatureService(name="daily_v1", features=[daily])
windows_v1 = FeatureService(name="windows_v1", features=[windows])

OBJECTS: list[Any] = [symbol, daily, daily_v1, windows, windows_v1]

calendar = FeatureView(
    name="calendar",
    description="The last event of a symbol and kind that was known, from the instant it was known",
    entities=[symbol, kind],
    ttl=TTL,
    schema=[
        Field(name="session", dtype=UnixTimestamp, description="close of the event's session"),
        Field(name="value", dtype=Float64, description="what it said; may be missing"),
        Field(name="known_at", dtype=UnixTimestamp, description="instant from which it was known"),
    ],
    source=FileSource(
        name="calendar_events",
        path=f"{FEATURES_FOLDER}/calendar.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    ),
)
calendar_v1 = FeatureService(name="calendar_v1", features=[calendar])

CALENDAR: list[Any] = [kind, calendar, calendar_v1]
"""Where there is a calendar."""
