"""Live bars: kept, checked, computed and pushed through Feast, before they are acknowledged."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from threading import Event, RLock, Thread
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from feature_repo.artifacts import (
    CLEAN_BARS,
    DAILY_FEATURES,
    LIVE_BARS,
    PUBLISHED,
    RAW_BARS,
    RETRIEVALS,
    WINDOW_FEATURES,
    online_writer,
    pushed_rows,
    read_json,
    read_parquet,
)
from feature_repo.clean import CleanParams
from feature_repo.errors import DataError, StoreError
from feature_repo.revisions import CREATED, KEYS, known
from feature_repo.stage import load_params
from serving.journal import Journal
from serving.market import LiveMarket, Outcome, State, Versions

LOG = logging.getLogger("pitwise.serving")
SESSIONS_AT_ONCE = 30
"""How many sessions of the journal are caught up with at a time: fewer than a check looks back."""


class LiveBars:
    """The one place that takes live bars of a workspace (the working directory).

    Args:
        store: a Feast store of its own, for writing.
        correction_sessions: how many sessions back a live bar may lie.
        refresh_seconds: between two looks for a new run of the pipeline, or for a store that is back.

    Raises:
        StoreError: another process takes this workspace's bars.
        DataError: the pipeline has not run.
    """

    def __init__(self, store: Any, correction_sessions: int, refresh_seconds: float = 5):
        LIVE_BARS.parent.mkdir(parents=True, exist_ok=True)
        self._service = FileLock(LIVE_BARS.with_suffix(".lock"))
        try:
            self._service.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"{self._service.lock_file}: another service takes live bars here. Stop it first, or "
                "run this one in a workspace of its own."
            ) from error
        self._store = store
        self._correction_sessions = correction_sessions
        self._journal = Journal(LIVE_BARS)
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
        run = _published_at()
        published = read_json(PUBLISHED)
        raw, bars = read_parquet(RAW_BARS), read_parquet(CLEAN_BARS)
        recent = pd.Timestamp(published["last_event_timestamp"]) - pd.Timedelta(days=400)
        state = State(bars, known(_history(recent)))
        params = load_params("clean", CleanParams)
        self._market = LiveMarket(raw, state, params, published["window"], self._correction_sessions)
        windows = [WINDOW_FEATURES, *pushed_rows(WINDOW_FEATURES).glob("*.parquet")]
        self.symbols = sorted({s for path in windows for s in read_parquet(path, ["symbol"])["symbol"]})

        waiting = self._journal.bars()
        in_batch = waiting.merge(
            raw[["symbol", "date"]], on=["symbol", "date"], how="left", indicator=True
        )
        newer = (in_batch["_merge"] == "left_only") | (waiting["received_at"] > _retrieved_at())
        waiting = waiting[newer & waiting["symbol"].isin(self._market.symbols)]
        # What was pushed may be of bars that were corrected or set aside since, or half of what was due.
        in_doubt = pushed_rows(DAILY_FEATURES).exists()
        if in_doubt:
            self._behind = set(bars.loc[bars["date"] == bars["date"].max(), "symbol"])
        sessions = np.sort(waiting["date"].unique())
        for start in range(0, max(len(sessions), 1), SESSIONS_AT_ONCE):
            part = waiting[waiting["date"].isin(sessions[start : start + SESSIONS_AT_ONCE])]
            self._market.take(part[self._market.columns])
            self._behind |= set(part["symbol"])
            if self._behind:
                self._catch_up(in_doubt)
        self._published = run

    def _refresh(self) -> None:
        """Begin anew from what the pipeline has published since; catch up if the store was away."""
        if _published_at() not in (0, self._published):
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

        with online_writer():
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


def _published_at() -> int:
    return PUBLISHED.stat().st_mtime_ns if PUBLISHED.exists() else 0


def _history(since: pd.Timestamp) -> pd.DataFrame:
    """The versions of the daily features, pushed ones too, of sessions since an instant."""

    def parts() -> Iterator[pd.DataFrame]:
        yield pd.read_parquet(DAILY_FEATURES, filters=[("event_timestamp", ">=", since)])
        for path in pushed_rows(DAILY_FEATURES).glob("*.parquet"):
            if path.stem >= f"{since:%Y-%m-%d}":
                yield read_parquet(path)

    return pd.concat(parts(), ignore_index=True).sort_values([*KEYS, CREATED], ignore_index=True)


def _retrieved_at() -> pd.Timestamp:
    """When the pipeline's raw bars were last had from their source."""
    try:
        last = json.loads(RETRIEVALS.read_text().splitlines()[-1])
        return pd.Timestamp(last["retrieved_at"])
    except (OSError, IndexError, ValueError, KeyError):
        return pd.Timestamp(RAW_BARS.stat().st_mtime, unit="s", tz="UTC")
