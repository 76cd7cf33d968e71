"""Live bars: kept, checked, computed and pushed through Feast, before they are acknowledged."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from threading import Event, RLock, Thread
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pitwise.bars.schema import BAR_KEY
from pitwise.cleaning.clean import CleanParams
from pitwise.errors import DataError, StoreError
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.incremental import LiveMarket, Outcome, State, Versions
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_json, read_parquet
from serving.live.journal import Journal
from serving.lock import acquired_lock

LOG = logging.getLogger("pitwise.serving")
SESSIONS_AT_ONCE = 30
"""How many sessions of the journal are caught up with at a time: fewer than a check looks back."""


class PushStore(Protocol):
    """What live bars need of a `feast.FeatureStore`."""

    def push(self, push_source_name: str, df: pd.DataFrame, *, to: Any) -> None: ...


class LiveBars:
    """The one place that takes live bars of a workspace.

    Args:
        store: of this object alone, for writing.
        correction_sessions: how many sessions back a live bar may lie.
        refresh_seconds: between two checks for a new run of the pipeline, or for a store that is back.

    Raises:
        StoreError: another process takes this workspace's bars.
        DataError: the pipeline has not run.
    """

    def __init__(
        self,
        workspace: Workspace,
        store: PushStore,
        correction_sessions: int,
        refresh_seconds: float = 5,
    ):
        lock = workspace.live_bars.with_suffix(".lock")
        self._service = acquired_lock(
            lock,
            f"{lock}: another service takes live bars here. Stop it first, or run this one in a "
            "workspace of its own.",
        )
        self._workspace = workspace
        self._store = store
        self._correction_sessions = correction_sessions
        self._journal = Journal(workspace.live_bars)
        self._lock = RLock()
        self._behind: set[str] = set()
        """Symbols whose bars are kept, but not yet in the store."""
        try:
            self._load()
        except BaseException:
            self._service.release()
            raise
        self._stop = Event()
        self._thread = Thread(target=self._watch, args=(refresh_seconds,), daemon=True)
        self._thread.start()

    @property
    def newest(self) -> np.datetime64:
        """Close of the newest session of any symbol, UTC."""
        return self._market.newest.to_datetime64()

    def take(self, bars: pd.DataFrame) -> list[Outcome]:
        """Take live bars; on return their windows are online and they survive a kill.

        Args:
            bars: symbol, date, open, high, low, close, volume and, optionally, adj_close.

        Returns:
            what became of each, in their order.

        Raises:
            StoreError: nothing was taken, or it waits in the journal for the store to be back.
        """
        with self._lock:
            self._refresh()
            outcomes, taken = self._market.judge(bars)
            if taken.empty:
                return outcomes
            self._journal.add(taken, pd.Timestamp.now("UTC"))
            self._market.take(taken)
            self._behind |= set(taken["symbol"])
            aside = self._catch_up()
        return [
            replace(o, outcome="quarantined", reason=aside[o.symbol, pd.Timestamp(o.date)])
            if o.outcome in ("new", "late", "corrected") and (o.symbol, pd.Timestamp(o.date)) in aside
            else o
            for o in outcomes
        ]

    def close(self) -> None:
        """Finish what is under way, and let another service take over."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._service.release()

    def _load(self) -> None:
        """The market as the pipeline left it, and the live bars that it does not have yet."""
        workspace = self._workspace
        run = _published_at(workspace)
        published = read_json(workspace.published)
        raw, bars = read_parquet(workspace.raw_bars), read_parquet(workspace.clean_bars)
        recent = pd.Timestamp(published["last_event_timestamp"]) - pd.Timedelta(days=400)
        state = State(bars, known(_history(workspace, recent)))
        params = load_params(workspace, "clean", CleanParams)
        self._market = LiveMarket(raw, state, params, published["window"], self._correction_sessions)
        windows = workspace.window_features
        files = [windows, *pushed_folder(windows).glob("*.parquet")]
        self.symbols = sorted({s for path in files for s in read_parquet(path, ["symbol"])["symbol"]})

        # What was pushed may be of bars that were corrected or set aside since, or half of what was due.
        in_doubt = pushed_folder(workspace.daily_features).exists()
        if in_doubt:
            self._behind = set(bars.loc[bars["date"] == bars["date"].max(), "symbol"])
        waiting = self._waiting(raw)
        sessions = np.sort(waiting["date"].unique())
        for start in range(0, max(len(sessions), 1), SESSIONS_AT_ONCE):
            part = waiting[waiting["date"].isin(sessions[start : start + SESSIONS_AT_ONCE])]
            self._market.take(part[self._market.columns])
            self._behind |= set(part["symbol"])
            if self._behind:
                self._catch_up(in_doubt)
        self._published = run

    def _waiting(self, raw: pd.DataFrame) -> pd.DataFrame:
        """The bars of the journal that the pipeline has not seen: not in `raw`, or newer than it."""
        bars = self._journal.bars()
        in_batch = bars.merge(raw[BAR_KEY], on=BAR_KEY, how="left", indicator=True)
        retrieved_at = _retrieved_at(self._workspace)
        newer = (in_batch["_merge"] == "left_only") | (bars["received_at"] > retrieved_at)
        return bars[newer & bars["symbol"].isin(self._market.symbols)]

    def _refresh(self) -> None:
        """Begin anew from what the pipeline has published since; catch up if the store was away."""
        if _published_at(self._workspace) not in (0, self._published):
            self._load()
            LOG.info("live bars go on from the pipeline's new run")
        if self._behind:
            self._catch_up()

    def _catch_up(self, in_doubt: bool = False) -> dict[tuple[str, pd.Timestamp], str]:
        """Compute and push what the bars taken have changed; the reasons of bars set aside."""
        state, versions, aside = self._market.recompute(self._behind, pd.Timestamp.now("UTC"), in_doubt)
        try:
            self._push(versions)
        except Exception as error:  # any error of any online store
            raise StoreError(
                f"the feature store does not take rows ({type(error).__name__}: {error}). The bars are "
                "kept and follow when it is back."
            ) from error
        self._market.state = state
        self._behind = set()
        self.symbols = sorted({*self.symbols, *versions.online_windows["symbol"]})
        return aside

    def _push(self, versions: Versions) -> None:
        """Offline first: whoever materializes in between then finds the newest rows there.

        The daily rows after the windows: where a kill comes in between, the next start finds from them
        what is still to do; and forecasts need the windows alone.
        """
        from feast.data_source import PushMode

        with self._workspace.online_writer():
            for source, rows, to in (
                ("windows_push", versions.windows, PushMode.OFFLINE),
                ("daily_push", versions.daily, PushMode.OFFLINE),
                ("windows_push", versions.online_windows, PushMode.ONLINE),
                ("daily_push", versions.online_daily, PushMode.ONLINE),
            ):
                if len(rows):
                    self._store.push(source, rows, to=to)

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                with self._lock:
                    self._refresh()
            except (StoreError, DataError) as error:
                LOG.warning("live bars wait: %s", error)


def _published_at(workspace: Workspace) -> int:
    path = workspace.published
    return path.stat().st_mtime_ns if path.exists() else 0


def _history(workspace: Workspace, since: pd.Timestamp) -> pd.DataFrame:
    """The versions of the daily features, pushed ones too, of sessions since an instant."""
    daily = workspace.daily_features

    def parts() -> Iterator[pd.DataFrame]:
        yield pd.read_parquet(daily, filters=[("event_timestamp", ">=", since)])
        for path in pushed_folder(daily).glob("*.parquet"):
            if path.stem >= f"{since:%Y-%m-%d}":
                yield read_parquet(path)

    return pd.concat(parts(), ignore_index=True).sort_values([*KEYS, CREATED], ignore_index=True)


def _retrieved_at(workspace: Workspace) -> pd.Timestamp:
    """When the pipeline's raw bars were last retrieved from their source."""
    try:
        last = json.loads(workspace.retrievals.read_text().splitlines()[-1])
        return pd.Timestamp(last["retrieved_at"])
    except (OSError, IndexError, ValueError, KeyError):
        return pd.Timestamp(workspace.raw_bars.stat().st_mtime, unit="s", tz="UTC")
