"""What Feast knows of the market: one entity, two feature views, a versioned service each."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bytes, Float64

from feature_repo.artifacts import DAILY_FEATURES, WINDOW_FEATURES
from feature_repo.indicators import FEATURES, NAMES

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


def feature_views(root: Path) -> tuple[FeatureView, FeatureView]:
    """The views of a project in `root`: daily values, and windows of them.

    Each takes rows from a file that a stage writes, and live ones from its push source.
    """
    files = {"daily": root / DAILY_FEATURES, "windows": root / WINDOW_FEATURES}
    sources = {
        name: PushSource(
            name=f"{name}_push",
            batch_source=FileSource(
                name=f"{name}_features",
                path=str(path),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for name, path in files.items()
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
            Field(name="window", dtype=Bytes, description="float32, sessions x features, oldest first")
        ],
        source=sources["windows"],
        tags={"features": ",".join(NAMES)},
    )
    return daily, windows


daily, windows = feature_views(ROOT)
daily_v1 = FeatureService(name="daily_v1", features=[daily])
windows_v1 = FeatureService(name="windows_v1", features=[windows])

OBJECTS: list[Any] = [symbol, daily, daily_v1, windows, windows_v1]
