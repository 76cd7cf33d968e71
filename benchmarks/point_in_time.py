"""Point-in-time retrieval of every row through Feast, against the same ASOF join in DuckDB directly.

With `--plain`, Feast's own DuckDB store too. Its ttl is set to five days for that: with a long ttl it
pairs each row with all earlier ones and asks for more than 20 GB.
"""

import argparse
import statistics
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
from feast import FeatureStore, FeatureView, FileSource
from feast.repo_config import RepoConfig
from market import clean_bars, compare, seconds

from feature_repo.definitions import daily, daily_v1, symbol
from pitwise.features.daily import daily_features
from pitwise.workspace import write_parquet


def store_in(folder: Path, offline: str, ttl: timedelta) -> FeatureStore:
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / f"{offline.split('.')[-1]}.db"),
            offline_store={"type": offline},
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    source = FileSource(
        name="daily_features", path=str(folder / "daily.parquet"), timestamp_field="event_timestamp"
    )
    view = FeatureView(name="daily", entities=[symbol], ttl=ttl, schema=daily.schema, source=source)
    store.apply([symbol, source, view])
    return store


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plain", action="store_true", help="time Feast's own DuckDB store as well")
    plain = parser.parse_args().plain
    table = daily_features(clean_bars())
    refs = [f"daily:{f.name}" for f in daily_v1.feature_view_projections[0].features]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parquet(table, folder / "daily.parquet")
        spine = table[["symbol", "event_timestamp"]].copy()
        spine["symbol"] = spine["symbol"].astype(object)
        connection = duckdb.connect()
        connection.register("spine", spine)

        def directly():
            return connection.execute(
                "SELECT spine.*, rows.* EXCLUDE (symbol, event_timestamp) "
                f"FROM spine ASOF LEFT JOIN '{folder / 'daily.parquet'}' AS rows "
                "ON spine.symbol = rows.symbol AND spine.event_timestamp >= rows.event_timestamp"
            ).fetch_arrow_table()

        def through(store):
            return lambda: store.get_historical_features(entity_df=spine, features=refs).to_arrow()

        asof = "feature_repo.offline_store.AsofDuckDBOfflineStore"
        ours = through(store_in(folder, asof, timedelta(days=36500)))
        assert ours().num_rows == directly().num_rows == len(spine)
        work = f"{len(spine):,} rows x {len(refs)} features through Feast"
        compare(work, ours, "ASOF join in DuckDB", directly, runs=7)
        if plain:
            theirs = through(store_in(folder, "duckdb", timedelta(days=5)))
            times = statistics.median(seconds(theirs) for _ in range(3))
            print(f"Feast's own DuckDB store, ttl cut to 5 days: {times:.2f} s (median of 3)")
