"""Feast's SQLite online store with one row an entity, where Feast's own has one a value.

A session of live bars writes some twenty thousand values: as rows of their own, each with its place in
an index, they take most of the time of a push. Of a view whose rows are always written whole, one row is
enough. Tables have names of their own, so a file that Feast's store has filled is not misread.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.infra_object import InfraObject
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import (
    SqliteOnlineStore,
    SqliteOnlineStoreConfig,
    _quote_id,
    _table_id,
)
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.utils import to_naive_utc

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""An entity, its values, the instant that they are of and the one that they are known since."""


class WholeRowSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Feast's settings of SQLite; those of vectors and of text search mean nothing here."""

    type: Literal["feature_repo.sqlite_store.WholeRowSqliteOnlineStore"] = (
        "feature_repo.sqlite_store.WholeRowSqliteOnlineStore"  # type: ignore[assignment]
    )


class WholeRowSqliteOnlineStore(SqliteOnlineStore):
    """Each entity's values in one row; what is written takes the place of the whole row."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        rows = []
        for entity, values, instant, created in data:
            known = None if created is None else to_naive_utc(created)
            packed = RepeatedValue(val=values.values()).SerializeToString()
            rows.append((_key(config, entity), "\n".join(values), packed, to_naive_utc(instant), known))
        with self._get_conn(config) as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO {_table(config, table)} VALUES (?, ?, ?, ?, ?)", rows
            )
        if progress:
            progress(len(rows))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        keys = [_key(config, entity) for entity in entity_keys]
        found = self._get_conn(config).execute(
            f"SELECT entity_key, names, packed, event_ts FROM {_table(config, table)} "
            f"WHERE entity_key IN ({', '.join('?' * len(keys))})",
            keys,
        )
        rows: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for key, names, packed, instant in found:
            values = zip(names.split("\n"), RepeatedValue.FromString(packed).val, strict=True)
            rows[key] = (instant.replace(tzinfo=UTC), dict(values))
        return [rows.get(key, (None, None)) for key in keys]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        with self._get_conn(config) as connection:
            for table in tables_to_keep:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {_table(config, table)} (entity_key BLOB PRIMARY KEY, "
                    "names TEXT, packed BLOB, event_ts timestamp, created_ts timestamp)"
                )
            for table in tables_to_delete:
                connection.execute(f"DROP TABLE IF EXISTS {_table(config, table)}")

    def plan(self, config: RepoConfig, desired_registry_proto: Registry) -> list[InfraObject]:
        """Nothing: what Feast would plan are its own tables; `update` makes ours."""
        return []


def _key(config: RepoConfig, entity: EntityKey) -> bytes:
    return serialize_entity_key(entity, config.entity_key_serialization_version)


def _table(config: RepoConfig, table: FeatureView) -> str:
    name = _table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
    return _quote_id(f"{name}_rows")
