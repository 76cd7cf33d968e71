"""Feast's Redis online store, with a key space for each workspace, and writes that compare instants.

Feast 0.67 keys a row by entity and project alone, so two workspaces on one Redis overwrite each other.
Its writes either replace whatever is there or, comparing event timestamps in two steps, drop a corrected
row of the same instant and let two writers pass each other. Here each batch is one script on the server:

- The keys end in `:<project>.<workspace>`, and `<project>.<workspace>:owner` says which folder that is.
  Rows of another one are refused.
- A row replaces what was known no later than it: by `created_timestamp`, then by event timestamp. One
  that comes too late and says otherwise is an error, and nothing of its batch is written.
- What is materialized replaces whatever is there, and counts as known at an instant of its own.

SQLite needs none of this: its file belongs to one workspace on one host, whose lock of online writers
lets one write at a time, and whose lock of live bars lets no second service near it.
"""

import asyncio
import hashlib
import json
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from feast import Entity, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key_prefix
from feast.infra.online_stores.redis import (
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    RedisType,
    _versioned_fv_name,
)
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AwareDatetime, Field, field_validator

from pitwise.errors import ParamsError
from pitwise.features.errors import ForeignStoreError, StaleWriteError

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""An entity, its values, the instant that they are of and the one that they are known since."""
ROWS = 1000
"""Rows that one script writes; while it runs, a few milliseconds, Redis does nothing else."""
OWNER_FILE = "data/feast/online_owner.json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

WRITE = """
-- KEYS: the owner's key, then a key for each row.
-- ARGV: the owner's id, host and path; 'compare' or 'replace'; the field of the instants; how many
-- fields a row has, and their names; then of each row since when it is known, what instant it is of, and
-- its values. Instants are whole microseconds, which Lua's numbers hold exactly.
local held = redis.call('HMGET', KEYS[1], 'id', 'host', 'path')
if held[1] and held[1] ~= ARGV[1] and (held[2] ~= ARGV[2] or held[3] ~= ARGV[3]) then
  return {'foreign', held[2], held[3]}
end
local instants, width = ARGV[5], tonumber(ARGV[6])
local fields = {unpack(ARGV, 7, 6 + width)}
local to_write = {}
for row = 2, #KEYS do
  local first = 7 + width + (row - 2) * (width + 2)
  local is_older = false
  local last = ARGV[4] == 'compare' and redis.call('HGET', KEYS[row], instants)
  if last then
    local known, instant = last:match('^(%S+) (%S+)$')
    local later_by = tonumber(ARGV[first]) - tonumber(known)
    is_older = later_by < 0 or (later_by == 0 and tonumber(ARGV[first + 1]) < tonumber(instant))
  end
  if is_older then
    local values = redis.call('HMGET', KEYS[row], unpack(fields))
    for i = 1, width do
      if values[i] ~= ARGV[first + 1 + i] then return {'older', row - 1, last} end
    end
  else
    to_write[#to_write + 1] = row
  end
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'host', ARGV[2], 'path', ARGV[3])
for _, row in ipairs(to_write) do
  local first = 7 + width + (row - 2) * (width + 2)
  local pairs_of_row = {instants, ARGV[first] .. ' ' .. ARGV[first + 1]}
  for i = 1, width do
    pairs_of_row[2 * i + 1], pairs_of_row[2 * i + 2] = fields[i], ARGV[first + 1 + i]
  end
  redis.call('HSET', KEYS[row], unpack(pairs_of_row))
end
return {'written', #to_write}
"""


class WorkspaceRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's settings of Redis, without what the script of a write cannot keep, and two more.

    `skip_dedup` means nothing here.
    """

    type: Literal["feature_repo.online_store.WorkspaceRedisOnlineStore"] = (
        "feature_repo.online_store.WorkspaceRedisOnlineStore"  # type: ignore[assignment]
    )
    workspace: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    """The workspace's part of the keys. By default the name of its folder and 8 hex digits of a hash of
    the folder's path, so a moved folder gets a key space of its own."""
    materialized_at: AwareDatetime | None = None
    """Set while published rows are materialized: they replace whatever is there, and count as known
    since then or since their own creation, whichever is later."""

    @field_validator("redis_type")
    @classmethod
    def _one_server(cls, value: RedisType) -> RedisType:
        if value == RedisType.redis_cluster:
            raise ValueError("a cluster cannot write rows of several keys at once; use one server")
        return value

    @field_validator("key_ttl_seconds")
    @classmethod
    def _no_expiry(cls, value: int | None) -> int | None:
        if value is not None:
            raise ValueError("rows must not expire: how fresh is fresh enough is for serving to judge")
        return value


class Owner(NamedTuple):
    """The workspace that a key space belongs to: it has the id, or lies where that one lay."""

    id: str
    """Stays when a container gets another host name; not when the folder is copied to another path."""
    host: str
    path: str


class WorkspaceRedisOnlineStore(RedisOnlineStore):
    """Rows in Redis, in the key space of one workspace."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that are known no earlier than those there, `ROWS` at a time: all or none.

        Raises:
            ForeignStoreError: the key space belongs to another workspace.
            StaleWriteError: what is there was known later than one of the rows, and says otherwise.
        """
        space, owner = key_space(config), _owner(config)
        write = self._get_client(config.online_store).register_script(WRITE)
        view = _versioned_fv_name(table, config)
        since = config.online_store.materialized_at
        mode = "compare" if since is None else "replace"
        rows = list(_newest_of_each(config, data, since).items())
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            names = list(some[0][1].values)
            arguments: list[Any] = [*owner, mode, f"_known:{view}", len(names) + 1]
            arguments += [f"_ts:{view}", *(_mmh3(f"{view}:{name}") for name in names)]
            for _, row in some:
                arguments += [row.known, row.instant, _timestamp(row.instant)]
                arguments += [row.values[name].SerializeToString() for name in names]
            outcome, *rest = write([_owner_key(space), *(key for key, _ in some)], arguments)
            if outcome == b"foreign":
                raise _foreign(config, *(text.decode() for text in rest))
            if outcome == b"older":
                (symbol,) = (value.string_val for value in some[rest[0] - 1][1].entity.entity_values)
                known = EPOCH + timedelta(microseconds=int(rest[1].split()[0]))
                raise StaleWriteError(
                    f"Redis at {_address(config)}: what view '{view}' has of {symbol} is known since "
                    f"{known:%Y-%m-%d %H:%M:%S} UTC, later than the row that was to replace it. No row "
                    "was written. Another process writes for this workspace, or the clock was put back."
                )
            if progress:
                progress(len(some))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Delete the rows of views that are no longer defined."""
        if tables_to_delete:
            self.published(config)
            for table in tables_to_delete:
                self.delete_table(config, table)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        client = self._get_client(config.online_store)
        spaced = _in_space(config)
        keys = list(
            client.scan_iter(_redis_key_prefix(table.join_keys) + b"*" + spaced.project.encode())
        )
        super().delete_table(spaced, table)
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hdel(key, f"_known:{_versioned_fv_name(table, config)}")
            pipe.execute()

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        super().delete_entity_values(_in_space(config), join_keys)

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the workspace's rows, and give up its key space."""
        self.published(config)
        super().teardown(config, tables, entities)
        self._get_client(config.online_store).delete(_owner_key(key_space(config)))

    def published(self, config: RepoConfig) -> str | None:
        """The publication that the key space holds, as `mark` was told; None of an empty one.

        Raises:
            ForeignStoreError: the key space belongs to another workspace.
        """
        client = self._get_client(config.online_store)
        held = client.hmget(_owner_key(key_space(config)), ["id", "host", "path", "published"])
        held = [None if text is None else text.decode() for text in held]
        ours = _owner(config, make_id=False)
        if held[0] not in (None, ours.id) and held[1:3] != [ours.host, ours.path]:
            raise _foreign(config, *held[1:3])
        return held[3]

    def mark(self, config: RepoConfig, published: str) -> None:
        """Note what has been materialized; it is lost with the rows where Redis loses its data."""
        self.published(config)
        client = self._get_client(config.online_store)
        client.hset(
            _owner_key(key_space(config)), mapping=_owner(config)._asdict() | {"published": published}
        )

    def disconnect(self) -> None:
        """The next use connects again."""
        if self._client:
            self._client.close()
            self._client = None

    def _generate_redis_keys_for_entities(
        self, config: RepoConfig, entity_keys: list[EntityKey]
    ) -> list[bytes]:
        return super()._generate_redis_keys_for_entities(_in_space(config), entity_keys)


class _Row(NamedTuple):
    known: int
    """Microseconds since 1970, as `instant`."""
    instant: int
    entity: EntityKey
    values: dict[str, Value]


def _newest_of_each(config: RepoConfig, data: list[Row], since: datetime | None) -> dict[bytes, _Row]:
    """Key in Redis to the newest of its rows."""
    space, version = _in_space(config).project.encode(), config.entity_key_serialization_version
    newest: dict[bytes, _Row] = {}
    for entity, values, instant, created in data:
        known = max(filter(None, (created or instant, since)), key=_microseconds)
        row = _Row(_microseconds(known), _microseconds(instant), entity, values)
        key = serialize_entity_key(entity, version) + space
        if key not in newest or row[:2] >= newest[key][:2]:
            newest[key] = row
    return newest


def _microseconds(instant: datetime) -> int:
    return (make_tzaware(instant) - EPOCH) // timedelta(microseconds=1)


@lru_cache(16)
def _timestamp(microseconds: int) -> bytes:
    """An instant as Feast's reader wants it."""
    return Timestamp(
        seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000
    ).SerializeToString()


def key_space(config: RepoConfig) -> str:
    """What the keys of the workspace's rows end in, see `WorkspaceRedisOnlineStoreConfig.workspace`."""
    name = config.online_store.workspace or _default_name(_root(config))
    return f"{config.project}.{name}"


@lru_cache
def _default_name(root: Path) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", root.name) or "root"
    return f"{plain}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def _root(config: RepoConfig) -> Path:
    """The workspace's folder: the one that Feast's folder lies in."""
    if config.repo_path is None:
        raise ParamsError("Feast's settings have no folder, so whose rows go to Redis is not known.")
    return _resolved(config.repo_path)


@lru_cache
def _resolved(repo_path: Path) -> Path:
    return repo_path.resolve().parent


def _in_space(config: RepoConfig) -> RepoConfig:
    """The settings with the key space for a project, which Feast's own methods put into the keys."""
    # The colon, for a key is found by its end: that of `pitwise.a` must not be that of `my_pitwise.a`.
    return config.model_copy(update={"project": f":{key_space(config)}"})


def _owner_key(space: str) -> str:
    return f"{space}:owner"


def _owner(config: RepoConfig, make_id: bool = True) -> Owner:
    """This workspace; who only reads has no need of an id, and may have no right to keep one."""
    root = _root(config)
    path = root / OWNER_FILE
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        noted = {}
    if noted.get("path") != str(root):  # a copy of the folder is another workspace
        noted = {"id": secrets.token_hex(8) if make_id else "", "path": str(root)}
        if make_id:
            # By a name of its own: of several that come first at once, one note stays.
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{noted['id']}.{path.name}")
            temporary.write_text(json.dumps(noted))
            temporary.replace(path)
    return Owner(noted["id"], socket.gethostname(), noted["path"])


def _address(config: RepoConfig) -> str:
    """Host and port, without a password."""
    parts = config.online_store.connection_string.split(",")
    return ",".join(part for part in parts if "=" not in part)


def _foreign(config: RepoConfig, host: str, path: str) -> ForeignStoreError:
    space = key_space(config)
    return ForeignStoreError(
        f"Redis at {_address(config)}: key space '{space}' belongs to the workspace {path} on {host}. "
        "Give this one a name of its own, as `workspace:` under `online_store:` in Feast's settings. If "
        f"that one is gone or was moved to here, `redis-cli DEL {_owner_key(space)}` gives up its place."
    )
