"""Landings: what was delivered, when and by whom, in files that are written once and never changed.

They are the one truth that a workspace stands on. Bar versions, and all that comes after them, are
computed from these files and from nothing else.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pitwise.bars.actions import FEED, TYPES
from pitwise.bars.calendar import session_close
from pitwise.bars.schema import COLUMNS, NUMBERS
from pitwise.errors import DataError
from pitwise.workspace import Workspace, replacing

Basis = Literal["traded", "split_adjusted"]
History = Literal["assumed", "observed"]
Read = Callable[[Path], pa.Table]
META = b"pitwise.landing"
BARS = "bars"
STAMP = "%Y%m%dT%H%M%S%fZ"
GROUP = 2**17
"""Rows of a row group. Those of a larger delivery lie by symbol, each symbol's as they came, so that a
range of symbols is read without the rest."""


@dataclass(frozen=True)
class Landing:
    """One delivery."""

    rows: pd.DataFrame
    """(n,) as delivered: `symbol`, `date`, the numbers of `pitwise.bars.schema` and, where the source
    has it, `adj_close`; optional are `known_at` (UTC, of each row alone) and `withdrawn` (bool)."""
    source: str
    received_at: pd.Timestamp
    """UTC."""
    basis: Basis = "traded"
    """Prices and volumes as traded, or on the share basis of the day of delivery."""
    history: History = "observed"
    """When each bar became known. `assumed`: as its session closed, which is what is taken for true of a
    history that is loaded long after; `observed`: as it was received."""
    covers: dict[str, tuple[date, date]] = field(default_factory=dict)
    """First and last day that the delivery holds whole, by symbol. Inside, and nowhere else, a bar that
    is absent and that the same source delivered before is withdrawn."""
    seals: tuple[date, ...] = ()
    """Sessions that a person declares complete."""
    name: str = ""
    """Of the file, once it is written."""
    actions: pd.DataFrame | None = None
    """Corporate actions, see `pitwise.bars.actions.TYPES`. They land in a file of their own: `rows` are
    none, and `covers` are the days whose actions the delivery holds whole."""


def no_bars() -> pd.DataFrame:
    """The rows of a landing that says nothing of bars."""
    kinds = {"symbol": "string", "date": "datetime64[us]", **dict.fromkeys(NUMBERS, "float64")}
    return pd.DataFrame(columns=COLUMNS).astype(kinds)


def sealing(day: date, received_at: pd.Timestamp) -> Landing:
    """That a session is complete, from a person: no bar, and the session's seal."""
    return Landing(no_bars(), "seal", received_at, seals=(day,))


def first_to_last(rows: pd.DataFrame) -> dict[str, tuple[date, date]]:
    """Each symbol's first and last day in a delivery: what a file of whole histories covers."""
    days = rows["date"].groupby(rows["symbol"], observed=True).agg(["min", "max"]).dropna()
    return {
        str(symbol): (first.date(), last.date())
        for symbol, first, last in zip(days.index, days["min"], days["max"], strict=True)
    }


def newest_close(rows: pd.DataFrame) -> pd.Timestamp:
    """The close (UTC) of the newest session in a delivery: when a made or packed market was received.

    Raises:
        DataError: no row is of a session.
    """
    newest = session_close(pd.Series(rows["date"].dropna().unique())).max()
    if pd.isna(newest):
        raise DataError("The bars are of no session of the exchange.")
    return cast(pd.Timestamp, newest)


def land(workspace: Workspace, landing: Landing) -> Path:
    """Write a landing; the file is on the disk when this returns.

    What the source's newest landing holds already is not written again, whenever it is received.

    Returns:
        the landing's file, new or there before.

    Raises:
        StoreError: it cannot be written.
        DataError: a landing of the same source was received later: what it said is not to be rewritten.
    """
    content = _content(landing)
    earlier = landings_of(workspace, landing.source)
    if earlier and earlier[-1].stem.endswith(content):
        return earlier[-1]
    stamp = landing.received_at.tz_convert("UTC").strftime(STAMP)
    path = workspace.landing / f"{stamp}-{_word(landing.source)}-{content}.parquet"
    if path.exists():
        return path
    if earlier and earlier[-1].name.split("-")[0] >= stamp:
        raise DataError(
            f"{earlier[-1]}: was received no earlier than {landing.received_at}. Another delivery of "
            f"{landing.source} cannot be put before it: give a later instant, or use a new workspace."
        )
    meta = json.dumps(_meta(landing), sort_keys=True).encode()
    rows = _table(landing).astype({"symbol": "string"})
    if len(rows) > GROUP:
        rows = _by_symbol(rows)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata((table.schema.metadata or {}) | {META: meta})
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=GROUP,
            coerce_timestamps="us",
            allow_truncated_timestamps=True,
        )
    return path


def _by_symbol(rows: pd.DataFrame) -> pd.DataFrame:
    code = rows["symbol"].astype("category").cat.codes.to_numpy()
    if (code[1:] >= code[:-1]).all():
        return rows
    return rows.take(np.argsort(code, kind="stable"))


def landing_files(workspace: Workspace) -> list[Path]:
    """The files of a workspace's landings, in the order in which they were received."""
    return sorted(workspace.landing.glob("*.parquet"))


def landings_of(workspace: Workspace, source: str) -> list[Path]:
    """The files of a source's landings, in the order in which they were received."""
    return [path for path in landing_files(workspace) if _source_of(path) == _word(source)]


def has_bars(workspace: Workspace) -> bool:
    """Whether any landing is of bars, not of corporate actions."""
    return any(not _source_of(path).endswith(FEED) for path in landing_files(workspace))


def landings(workspace: Workspace) -> list[Landing]:
    """All landings of a workspace, in the order in which they were received."""
    return [
        replace(landing, rows=landing.rows.astype({"symbol": "string"}))
        for landing in each_landing(workspace)
    ]


def each_landing(workspace: Workspace, read: Read | None = None) -> Iterator[Landing]:
    """The landings of a workspace in the order in which they were received, one in memory at a time.

    Their symbols are categories, which take an eighth of the memory.

    Args:
        read: as of `read_landing`.
    """
    return (read_landing(path, read) for path in landing_files(workspace))


def read_landing(path: Path, read: Read | None = None) -> Landing:
    """Read a landing.

    Args:
        read: what of the file's table is wanted; all of it if not given.

    Raises:
        DataError: it cannot be read, or is none.
    """
    with as_landing(path):
        # Symbols stand once in memory, not once a row.
        table = read(path) if read else pq.read_table(path, read_dictionary=["symbol"])
        meta = json.loads(table.schema.metadata[META])
    rows = table.replace_schema_metadata().to_pandas()
    rows["symbol"] = rows["symbol"].astype("category").cat.rename_categories(str)
    is_bars = meta.get("table", BARS) == BARS
    return Landing(
        rows=rows if is_bars else no_bars(),
        source=meta["source"],
        received_at=pd.Timestamp(meta["received_at"]),
        basis=meta["basis"],
        history=meta["history"],
        covers={
            symbol: (date.fromisoformat(first), date.fromisoformat(last))
            for symbol, (first, last) in meta["covers"].items()
        },
        seals=tuple(date.fromisoformat(day) for day in meta["seals"]),
        name=path.name,
        actions=None if is_bars else rows.astype(TYPES),
    )


@contextmanager
def as_landing(path: Path) -> Iterator[None]:
    """DataError where the block cannot read a landing's file."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a landing ({error}). `dvc checkout` brings back the one that "
            "DVC saw."
        ) from error


def _table(landing: Landing) -> pd.DataFrame:
    """What the landing's file holds."""
    return landing.rows if landing.actions is None else landing.actions


def _meta(landing: Landing) -> dict:
    table = {} if landing.actions is None else {"table": FEED}
    return table | {
        "source": landing.source,
        "received_at": landing.received_at.tz_convert("UTC").isoformat(),
        "basis": landing.basis,
        "history": landing.history,
        "covers": {symbol: [str(day) for day in days] for symbol, days in landing.covers.items()},
        "seals": [str(day) for day in landing.seals],
    }


def _content(landing: Landing) -> str:
    """A hash of what was said, whenever it was received and whatever was assumed of it."""
    said = {k: v for k, v in _meta(landing).items() if k not in ("received_at", "history")}
    rows = _table(landing)
    digest = hashlib.sha256(json.dumps([said, list(rows.columns)], sort_keys=True).encode())
    for name in rows:
        column = rows[name]
        if column.dtype.kind == "M":
            column = column.dt.as_unit("us")
        if column.dtype == "string" or name == "symbol":
            column = column.astype(object).where(column.notna(), None)
        digest.update(pd.util.hash_pandas_object(column, index=False).to_numpy("uint64").tobytes())
    return digest.hexdigest()[:12]


def _word(source: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", source.lower())


def _source_of(path: Path) -> str:
    parts = path.stem.split("-")
    if len(parts) != 3:
        raise DataError(
            f"{path}: is no landing. Move it out of the folder, and `pitwise load` its bars."
        )
    return parts[1]
