"""Live bars: kept, checked, computed and pushed through Feast, before they are acknowledged."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Event, RLock, Thread
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pitwise.bars.__main__ import BarParams
from pitwise.bars.landing import Landing, each_landing, land, landing_files, read_landing, sealing
from pitwise.bars.schema import ADJUSTED_CLOSE, COLUMNS
from pitwise.bars.versions import BarVersions, bar_versions, read_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.cross_section import read_cross_section
from pitwise.errors import DataError, StoreError
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.incremental import LIVE, LiveMarket, Outcome, State, Versions
from pitwise.quality_flags import FOREST
from pitwise.quality_flags import load as load_forest
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_json, read_parquet
from serving.inference.marks import Marks, stored_suspects, unusual_of
from serving.live.journal import Journal
from serving.lock import acquired_lock

LOG = logging.getLogger("pitwise.serving")
MICROSECOND = pd.Timedelta(1, "us")


class PushStore(Protocol):
    """What live bars need of a `feast.FeatureStore`."""

    def push(self, push_source_name: str, df: pd.DataFrame, *, to: Any) -> None: ...


class LiveBars:
    """The one place that takes live bars of a workspace.

    Args:
        store: of this object alone, for writing.
        correction_sessions: how many sessions before a symbol's newest one a live bar may lie.
        refresh_seconds: between two checks for a new run of the pipeline, or for a store that is back.

    Raises:
        HeldError: another process takes this workspace's bars.
        StoreError: the store takes no rows.
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
        self._lock = RLock()
        self._known_until: pd.Timestamp
        self._adjusted: pd.DataFrame
        try:
            self._journal = Journal(workspace.live_bars)
            self._load()
        except BaseException:
            self._service.release()
            raise
        self._stop = Event()
        self._thread = Thread(target=self._watch, args=(refresh_seconds,), daemon=True)
        self._thread.start()

    @property
    def newest(self) -> np.datetime64:
        """Close of the market's newest session, UTC."""
        return _utc(self._market.newest)

    @property
    def sealed(self) -> np.datetime64:
        """Close of the newest sealed session, UTC: what has seen a later one is provisional."""
        return _utc(self._market.sealed_close)

    @property
    def missing_sessions(self) -> Mapping[str, int]:
        """Symbol to how many sessions its newest window leaves out, 0 where it is not named."""
        return self._market.missing_sessions

    @property
    def marks(self) -> Marks:
        """What is known of the symbols' newest bars, live ones too."""
        return Marks(self._unusual, self._market.suspects)

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
            now = self._now()
            self._journal.add(taken, now)
            self._take(taken, now)
            aside = self._settle(now)
            sealed = self._market.sealed
        return [
            replace(o, outcome="quarantined", reason=aside[key], provisional=False)
            if o.outcome in ("new", "late", "corrected")
            and (key := (o.symbol, pd.Timestamp(o.date))) in aside
            else replace(o, provisional=o.provisional and pd.Timestamp(o.date) > sealed)
            for o in outcomes
        ]

    def withdraw(self, symbol: str, date: pd.Timestamp) -> Outcome:
        """Withdraw a bar; on return the rows that stand without it are online.

        Raises:
            StoreError: it was not kept, or it waits in the journal for the store to be back.
        """
        with self._lock:
            self._refresh()
            outcome = self._market.withdrawal(symbol, date)
            if outcome.outcome == "withdrawn":
                bar = pd.DataFrame({"symbol": [symbol], "date": [date]}).reindex(columns=COLUMNS)
                now = self._now()
                self._journal.add(bar, now, withdrawn=True)
                self._take(bar, now, withdrawn=True)
                self._settle(now)
        return outcome

    def seal(self, date: pd.Timestamp) -> None:
        """Declare a session complete, with the bars that there are; those before it are too.

        Raises:
            DataError: it has no bars, or lies too far ahead.
            StoreError: it cannot be kept, or waits for the store to be back.
        """
        with self._lock:
            self._refresh()
            if date <= self._market.sealed:
                return
            if not self._market.has_bars(date):
                raise DataError(f"{date:%Y-%m-%d}: has no bars that could be complete.")
            now = self._now()
            self._drain()
            path = land(self._workspace, sealing(date.date(), now))
            self._landed.add(path.name)
            self._settle(now, date)

    def close(self) -> None:
        """Finish what is under way, and let another service take over."""
        self._stop.set()
        self._thread.join()
        with self._lock:
            try:
                self._journal.drain(self._workspace)
            finally:
                self._service.release()

    def _now(self) -> pd.Timestamp:
        """This instant, later than all that was known before: a clock may have been put back."""
        self._known_until = max(pd.Timestamp.now("UTC"), self._known_until + MICROSECOND)
        return self._known_until

    def _take(self, bars: pd.DataFrame, now: pd.Timestamp, withdrawn: bool = False) -> None:
        """Bars, or their withdrawal, into the market, as versions known from now on."""
        versions = bars[COLUMNS].assign(source=LIVE, known_at=now, withdrawn=withdrawn)
        factors = None
        if ADJUSTED_CLOSE in bars and bars[ADJUSTED_CLOSE].notna().any():
            said = bars[bars[ADJUSTED_CLOSE].notna()].assign(known_at=now)
            self._adjusted = pd.concat([self._adjusted, said], ignore_index=True)
            factors = self._factors()
        self._market.take(versions, factors)

    def _factors(self) -> pd.DataFrame:
        """The pipeline's factors, and those of the adjusted closes that came live."""
        ours = self._adjusted
        live = bar_versions([Landing(ours, LIVE, ours["known_at"].max())], 1.0).factors
        both = pd.concat([self._batch_factors, live], ignore_index=True).drop_duplicates()
        return both.sort_values(["symbol", "date", "kind", "known_at"], ignore_index=True)

    def _load(self) -> None:
        """The market as the pipeline left it, and what has landed since."""
        workspace = self._workspace
        run = _published_at(workspace)
        published = read_json(workspace.published)
        self._journal.drain(workspace)
        files = landing_files(workspace)
        since = [read_landing(path) for path in files if path.name not in published["landings"]]
        coverage = load_params(workspace, "bars", BarParams).seal_coverage
        versions = _published_versions(workspace, published["landings"], coverage)
        recent = pd.Timestamp(published["last_event_timestamp"]) - pd.Timedelta(days=400)
        params = load_params(workspace, "clean", CleanParams)
        bars = read_parquet(workspace.clean_bars)
        suspects = stored_suspects(workspace, bars)
        state = State(
            bars,
            known(_history(workspace, recent)),
            read_cross_section(workspace) if params.verdicts == "all" else None,
            dict(zip(suspects["symbol"], suspects["kind"], strict=True)),
        )
        self._forest = load_forest(workspace.root / FOREST.path)
        self._unusual = unusual_of(bars, self._forest)
        self._market = LiveMarket(
            versions,
            state,
            params,
            published["window"],
            self._correction_sessions,
            coverage,
        )
        windows = workspace.window_features
        tables = [windows, *pushed_folder(windows).glob("*.parquet")]
        self.symbols = sorted({s for path in tables for s in read_parquet(path, ["symbol"])["symbol"]})

        said = [read_landing(path).rows for path in files if path.stem.split("-")[1] == LIVE]
        said = [rows[rows[ADJUSTED_CLOSE].notna()] for rows in said if ADJUSTED_CLOSE in rows]
        nothing = pd.DataFrame(columns=[*COLUMNS, ADJUSTED_CLOSE, "known_at"])
        self._adjusted = pd.concat(said, ignore_index=True) if said else nothing
        """Live bars that came with an adjusted close, with `known_at`."""
        now_known = bar_versions(each_landing(workspace), coverage) if since else versions
        self._batch_factors = now_known.factors
        self._known_until = max(
            now_known.bars["known_at"].max(),
            state.daily[CREATED].max(),
            *(landing.received_at for landing in since),
        )
        news = _news(now_known.bars, versions.bars)
        self.left_to_the_pipeline = self._market.take_again(news, now_known.factors if since else None)
        """How many versions of bars lie further back than live bars may: for the pipeline's next run."""
        for landing in since:
            for day in landing.seals:
                self._market.seal(pd.Timestamp(day))
        # What was pushed may be of bars that were corrected or set aside since, or half of what was due.
        in_doubt = any(pushed_folder(workspace.daily_features).glob("*.parquet"))
        self._landed = {path.name for path in files}
        self._published = run
        self._market.seal()
        if in_doubt or self._market.is_behind:
            self._catch_up(self._now(), in_doubt)

    def _refresh(self) -> None:
        """Begin anew from what the pipeline has published since; catch up if the store was away."""
        landed = {path.name for path in landing_files(self._workspace)}
        if landed - self._landed or _published_at(self._workspace) not in (0, self._published):
            self._load()
            LOG.info("live bars go on from what has landed or was published")
        if self._market.is_behind:
            self._catch_up(self._now())

    def _settle(
        self, now: pd.Timestamp, explicit: pd.Timestamp | None = None
    ) -> dict[tuple[str, pd.Timestamp], str]:
        """Seal what is complete, `_catch_up`, and drain the journal if a session was sealed."""
        sealed = self._market.seal(explicit)
        aside = self._catch_up(now)
        if sealed is not None:
            self._drain()
        return aside

    def _drain(self) -> None:
        self._landed |= {path.name for path in self._journal.drain(self._workspace)}

    def _catch_up(
        self, now: pd.Timestamp, in_doubt: bool = False
    ) -> dict[tuple[str, pd.Timestamp], str]:
        """Compute and push what the bars taken have changed; the reasons of bars set aside."""
        changes = self._market.recompute(now, in_doubt)
        try:
            self._push(changes.versions)
        except Exception as error:  # any error of any online store
            raise StoreError(
                f"the feature store does not take rows ({type(error).__name__}: {error}). The bars are "
                "kept and follow when it is back."
            ) from error
        self._market.accept(changes)
        # As a whole, for it is read from other threads. Where no feature changed, no measure did.
        changed = {name: changes.bars[name] for name in changes.daily if name in changes.bars}
        kept = {name: mark for name, mark in self._unusual.items() if name not in changed}
        self._unusual = kept | unusual_of(_tails(changed), self._forest)
        self.symbols = sorted({*self.symbols, *changes.versions.online_windows["symbol"]})
        return changes.aside

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


def _published_versions(workspace: Workspace, names: list[str], coverage: float) -> BarVersions:
    """The versions that the published features are of.

    They are in the file, unless a run of the pipeline is under way or was broken off.
    """
    if read_json(workspace.bar_landings) == names:
        return read_versions(workspace)
    published = (workspace.landing / name for name in names)
    return bar_versions((read_landing(path) for path in published), coverage)


def _tails(bars: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The last two bars of each symbol."""
    parts = [rows.iloc[-2:] for rows in bars.values() if len(rows)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _news(bars: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The versions of bars that are not among the published ones."""
    if bars is published:
        return bars.iloc[:0]
    keyed = bars[bars["symbol"].notna() & bars["date"].notna()]
    said = [*COLUMNS, "known_at", "withdrawn"]
    again = pd.concat([published[said], keyed[said]], ignore_index=True).duplicated()
    return keyed[~again.to_numpy()[len(published) :]]


def _utc(instant: pd.Timestamp) -> np.datetime64:
    return instant.tz_convert("UTC").tz_localize(None).to_datetime64()
