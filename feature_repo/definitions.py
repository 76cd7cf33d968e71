"""What Feast knows of the market: one entity, two feature views, a versioned service each."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Float64

from feature_repo.indicators import FEATURES

ROOT = Path(__file__).resolve().parent.parent

# Old prices stay readable, and a first `materialize-incremental` reaches back to all of them:
# Feast starts it at now - ttl. How fresh is fresh enough is for serving to judge, by the calendar.
TTL = timedelta(days=365 * 100)

symbol = Entity(
    name="symbol",
    join_keys=["symbol"],
    value_type=ValueType.STRING,
    description="Ticker of a listed stock",
)

daily_source = FileSource(
    name="daily_features",
    path=str(ROOT / "data/features/daily.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
)
daily = FeatureView(
    name="daily",
    description="The bar and its indicators at each session's close",
    entities=[symbol],
    ttl=TTL,
    schema=[Field(name=f.name, dtype=Float64, description=f.text) for f in FEATURES],
    source=daily_source,
)
daily_v1 = FeatureService(name="daily_v1", features=[daily])

windows_source = FileSource(
    name="window_features",
    path=str(ROOT / "data/features/windows.parquet"),
    timestamp_field="event_timestamp",
)
windows = FeatureView(
    name="windows",
    description="The last sessions' daily values as arrays, oldest first: a whole model input",
    entities=[symbol],
    ttl=TTL,
    schema=[Field(name=f.name, dtype=Array(Float32), description=f.text) for f in FEATURES],
    source=windows_source,
)
windows_v1 = FeatureService(name="windows_v1", features=[windows])

OBJECTS: list[Any] = [symbol, daily_source, daily, daily_v1, windows_source, windows, windows_v1]
