"""Live bars: kept, checked, computed and pushed through Feast, before they are acknowledged."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from filelock import Timeout

from pitwise.bars.__main__ import BarParams
from pitwise.bars.landing import Landing, each_landing, land, landing_files, read_landing, sealing
from pitwise.bars.schema import ADJUSTED_CLOSE, COLUMNS
from pitwise.bars.versions import BarVersions, bar_versions, read_versions
from pitwise.cleaning.clean import CleanParams
from pitwise.cleaning.cross_section import read_cross_section
from pitwise.errors import DataError, StoreError, one_line
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.incremental import LIVE, Changes, LiveMarket, Outcome, State, Versions
from pitwise.quality_flags import FOREST, Forest
from pitwise.quality_flags import load as load_forest
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_json, read_parquet
from serving.inference.marks import Marks, stored_suspects, unusual_of
from serving.live.journal import Journal
from serving.lock import acquired_lock
from serving.memory import give_back
from serving.state.errors import BusyError
from serving.state.market import PartStatus
from serving.supervised import Loop

LOG = logging.getLogger("pitwise.serving")
MICROSECOND = pd.Timedelta(1, "us")
KEPT = "The bars are kept, and follow when it is mended."
NOT_TAKEN = "The bars were not taken; send them again."


class WritableStore(Protocol):
    """What live bars need of a `feast.FeatureStore`."""

    def write_to_offline_store(self, feature_view_name: str, df: pd.DataFrame) -> None: ...

    def write_to_online_store(self, feature_view_name: str, df: pd.DataFrame) -> None: ...


class _Loaded(NamedTuple):
    """The market as the pipeline left it, and what has landed since."""

    market: LiveMarket
    forest: Forest | None
    unusual: dict[str, tuple[np.datetime64, bool]]
    symbols: set[str]
    """With a window."""
    adjusted: pd.DataFrame
    """Live bars that came with an adjusted close, with `known_at`."""
    factors: pd.DataFrame
    """The pipeline's, and those of later landings."""
    published_until: pd.Timestamp
    """When the last of the published bars was known."""
    known_until: pd.Timestamp
    news: pd.DataFrame
    """Versions of bars that are not published."""
    unfit: dict[str, str]
    """Symbol to the error that kept its news out of the market."""
    left: int
    """How many of the news lie further back than live bars may."""
    landed: set[str]
    in_doubt: bool
    """What was pushed may be of bars that were corrected or set aside since, or half of what was due."""


class LiveBars:
    """The one place that takes live bars of a workspace.

    A bar whose consequences cannot be computed has the outcome `failed` and goes to the journal's dead
    letters. The others of its post are taken, and so is what comes later.

    Args:
        store: of this object alone, for writing.
        correction_sessions: how many sessions before a symbol's newest one a live bar may lie.
        refresh_seconds: between two checks for a new run of the pipeline, or for a store that is back.
        changed: called with the symbols of which features, marks or missing sessions have changed,
        before
            `take`, `withdraw` or `seal` return and while no other bar is taken; with None, anything may
            have changed. What it raises is retried, and the bars are not acknowledged.
        wait_seconds: the longest wait for another post, for another process that writes to the online
            store, and for one that moves the journal.

    Raises:
        HeldError: another process takes this workspace's bars.
        StoreError: the store takes no rows.
        DataError: the pipeline has not run.
    """

    def __init__(
        self,
        workspace: Workspace,
        store: WritableStore,
        correction_sessions: int,
        refresh_seconds: float = 5,
        changed: Callable[[Collection[str] | None], object] | None = None,
        wait_seconds: float = 30,
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
        self._announce = changed
        self._wait_seconds = wait_seconds
        self._lock = RLock()
        self._held_since = 0.0
        self._unannounced: set[str] | None = None
        self._is_told = False
        self._undrained = False
        self._failed: dict[str, str] = {}
        self._seal_error = ""
        self._figures: dict[str, float] = dict.fromkeys(
            ("bars", "failures", "waits", "wait_seconds", "recompute_seconds", "push_seconds"), 0.0
        )
        self._loop = Loop("live bars", refresh_seconds, self._watch)
        self._known_until: pd.Timestamp
        try:
            self._journal = Journal(workspace.live_bars)
            try:
                self._count_dead_letters()
                self._load()
            except BaseException:
                self._journal.close()
                raise
        except BaseException:
            self._service.release()
            raise
        self._loop.start()

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

    @property
    def failed(self) -> Mapping[str, str]:
        """Symbol to the error that kept its newest bars from being taken; they are dead letters."""
        return self._failed

    @property
    def figures(self) -> Mapping[str, float]:
        """For metrics, since the start: `bars` taken; `failures`, errors of any step; `dead_letters`,
        how many there are; `failed_symbols`, see `failed`; `waits` for another post or process, and the
        `wait_seconds` they took; `recompute_seconds` and `push_seconds`."""
        return self._figures | {"failed_symbols": float(len(self._failed))}

    @property
    def status(self) -> PartStatus:
        """How the watch for new runs of the pipeline does, and whether bars wait."""
        watch = self._loop.status
        detail = watch.detail or self._seal_error
        return PartStatus(not detail, detail, watch.failures, watch.at, self.figures)

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """No bar is taken meanwhile.

        Raises:
            BusyError: a post has been under way for longer than `seconds`.
        """
        began = time.monotonic()
        if not self._lock.acquire(timeout=seconds):
            held = time.monotonic() - self._held_since
            raise BusyError(
                f"live bars: one post has been under way for {held:.0f} s, and this one has waited "
                f"{seconds:g} s. {NOT_TAKEN}"
            )
        self._waited(time.monotonic() - began)
        try:
            self._held_since = time.monotonic()
            yield
        finally:
            self._lock.release()

    def take(self, bars: pd.DataFrame) -> list[Outcome]:
        """Take live bars; on return their windows are online and they survive a kill.

        Args:
            bars: symbol, date, open, high, low, close, volume and, optionally, adj_close.

        Returns:
            what became of each, in their order.

        Raises:
            StoreError: nothing was taken, or it waits in the journal for the store to be back; the
            message
                says which.
        """
        with self.locked(self._wait_seconds):
            self._ready()
            outcomes, taken = self._market.judge(bars)
            if taken.empty:
                return outcomes
            now = self._now()
            self._journal.add(taken, now)
            with self._kept():
                aside, failed = self._taken(taken, now)
            sealed = self._market.sealed
            self._figures["bars"] += len(taken)
        return [_told(o, aside, failed, sealed) for o in outcomes]

    def withdraw(self, symbol: str, date: pd.Timestamp) -> Outcome:
        """Withdraw a bar; on return the rows that stand without it are online.

        Raises:
            StoreError: it was not kept, or it waits in the journal for the store to be back.
        """
        with self.locked(self._wait_seconds):
            self._ready()
            outcome = self._market.withdrawal(symbol, date)
            if outcome.outcome != "withdrawn":
                return outcome
            bar = pd.DataFrame({"symbol": [symbol], "date": [date]}).reindex(columns=COLUMNS)
            now = self._now()
            self._journal.add(bar, now, withdrawn=True)
            with self._kept():
                _, failed = self._taken(bar, now, withdrawn=True)
        if symbol in failed:
            return replace(outcome, outcome="failed", reason=failed[symbol])
        return outcome

    def seal(self, date: pd.Timestamp) -> None:
        """Declare a session complete, with the bars that there are; those before it are too.

        Raises:
            DataError: it has no bars, or lies too far ahead.
            StoreError: it cannot be kept, or waits for the store to be back.
        """
        with self.locked(self._wait_seconds):
            self._ready()
            if date <= self._market.sealed:
                return
            if not self._market.has_bars(date):
                raise DataError(f"{date:%Y-%m-%d}: has no bars that could be complete.")
            now = self._now()
            self._drain()
            path = land(self._workspace, sealing(date.date(), now))
            self._landed.add(path.name)
            with self._kept("The seal is kept, and follows when it is mended."):
                self._seal(date)
                self._catch_up(now)
                self._tell()

    def close(self, timeout: float = 60) -> bool:
        """Finish what is under way, and let another service take over.

        Returns:
            whether it has ended within `timeout` seconds. Otherwise the lock of the workspace goes with
            the process, and the journal is emptied by the next start.
        """
        until = time.monotonic() + timeout
        ended = self._loop.stop(timeout)
        if not ended or not self._lock.acquire(timeout=max(until - time.monotonic(), 0)):
            LOG.warning("live bars: still at work after %g s", timeout)
            return False
        try:
            self._journal.drain(self._workspace, max(until - time.monotonic(), 0))
        finally:
            self._lock.release()
            self._journal.close()
            self._service.release()
        return True

    @contextmanager
    def _kept(self, what: str = KEPT) -> Iterator[None]:
        """Whatever fails in the block, the bars stand in the journal, and it is said so."""
        try:
            yield
        except StoreError as error:
            raise StoreError(f"{str(error).rstrip('.')}. {what}") from error
        except Exception as error:
            LOG.error("live bars: %s", error, exc_info=error)
            self._figures["failures"] += 1
            self._published = -1  # what the market has of them is not known: begin anew from the journal
            raise StoreError(f"{_said(error)}. {what}") from error

    def _waited(self, seconds: float) -> None:
        if seconds > 0.01:
            self._figures["waits"] += 1
            self._figures["wait_seconds"] += seconds

    def _now(self) -> pd.Timestamp:
        """This instant, later than all that was known before: a clock may have been put back."""
        self._known_until = max(pd.Timestamp.now("UTC"), self._known_until + MICROSECOND)
        return self._known_until

    def _ready(self) -> None:
        """`_refresh`, before bars are taken.

        Raises:
            StoreError: nothing can be taken.
        """
        try:
            self._refresh()
        except Exception as error:
            raise StoreError(f"live bars wait: {_said(error)} {NOT_TAKEN}") from error

    def _refresh(self) -> None:
        """Begin anew from what the pipeline has published since; catch up with what was left behind."""
        landed = {path.name for path in landing_files(self._workspace)}
        if landed - self._landed or _published_at(self._workspace) not in (0, self._published):
            self._load()
            LOG.info("live bars go on from what has landed or was published")
        if self._market.is_behind or self._in_doubt:
            self._catch_up(self._now())
        self._tell()

    def _watch(self) -> None:
        with self.locked(self._wait_seconds):
            self._refresh()
            if self._undrained:
                self._drain()
        # A session of bars takes 40 MiB for a moment, and of several such moments the C library would
        # keep 200.
        give_back()

    def _load(self) -> None:
        """The market as the pipeline left it, and what has landed since. Where it fails, nothing
        changes.

        Raises:
            StoreError: the store does not take what is to be caught up with; that is tried again.
        """
        published = _published_at(self._workspace)
        self._journal.drain(self._workspace, self._wait_seconds)
        loaded = _loaded(self._workspace, self._correction_sessions)
        self._market, self._forest, self._unusual = loaded.market, loaded.forest, loaded.unusual
        self._symbols, self.symbols = loaded.symbols, sorted(loaded.symbols)
        self._adjusted, self._batch_factors = loaded.adjusted, loaded.factors
        self._known_until = loaded.known_until
        self._published_until, self._news = loaded.published_until, loaded.news
        self.left_to_the_pipeline = loaded.left
        """How many versions of bars lie further back than live bars may: for the pipeline's next run."""
        self._landed, self._published = loaded.landed, published
        self._in_doubt = loaded.in_doubt
        self._failed = {}
        self._unannounced, self._is_told = None, False
        self._is_loading = True
        for name, error in loaded.unfit.items():
            self._give_up(name, error, self._now())
        self._seal()
        if self._in_doubt or self._market.is_behind:
            self._catch_up(self._now())
        self._is_loading = False
        self._tell()
        # Loading takes twice what is kept, and the rest would stay with this process until it ends.
        give_back()

    def _taken(
        self, bars: pd.DataFrame, now: pd.Timestamp, withdrawn: bool = False
    ) -> tuple[dict[tuple[str, pd.Timestamp], str], dict[str, str]]:
        """Bars that are kept, or their withdrawal, into the market and the store.

        Returns:
            the reasons of bars set aside, and the errors of symbols whose bars failed.
        """
        versions = bars[COLUMNS].assign(source=LIVE, known_at=now, withdrawn=withdrawn)
        factors = None
        if ADJUSTED_CLOSE in bars and bars[ADJUSTED_CLOSE].notna().any():
            said = bars[bars[ADJUSTED_CLOSE].notna()].assign(known_at=now)
            parts = [part for part in (self._adjusted, said) if len(part)]
            self._adjusted = pd.concat(parts, ignore_index=True)
            factors = self._factors()
        self._is_loading = False
        unfit = _each_taken(lambda rows: self._market.take(rows, factors), versions)
        self._seal()
        aside, failed = self._catch_up(now)
        self._failed = self._failed | unfit
        failed = failed | unfit
        lost = bars[bars["symbol"].isin(failed)]
        if len(lost):
            self._journal.set_aside(lost, now, failed, withdrawn)
            self._count_dead_letters()
            if factors is not None:
                mine = self._adjusted["symbol"].isin(failed) & (self._adjusted["known_at"] == now)
                self._adjusted = self._adjusted[~mine]
        if self._figures["dead_letters"]:
            self._journal.revive(bars[~bars["symbol"].isin(failed)])
            self._count_dead_letters()
        self._tell()
        return aside, failed

    def _factors(self) -> pd.DataFrame:
        """The pipeline's factors, and those of the adjusted closes that came live."""
        ours = self._adjusted
        live = bar_versions([Landing(ours, LIVE, ours["known_at"].max())], 1.0).factors
        both = pd.concat([self._batch_factors, live], ignore_index=True).drop_duplicates()
        return both.sort_values(["symbol", "date", "kind", "known_at"], ignore_index=True)

    def _seal(self, explicit: pd.Timestamp | None = None) -> bool:
        """Seal the sessions that are complete; where that fails they stay open, and the bars
        provisional.

        Raises:
            Exception: any, where a person seals.
        """
        try:
            sealed = self._market.seal(explicit) is not None
        except Exception as error:
            self._figures["failures"] += 1
            if explicit is not None:
                raise
            said = f"a session cannot be sealed: {_said(error)}"
            if said != self._seal_error:
                LOG.error("live bars: %s", said, exc_info=error)
            self._seal_error = said
            return False
        if sealed:
            self._seal_error, self._is_told, self._undrained = "", False, True
            self._loop.wake()  # to move the journal: no bar waits for that
        return sealed

    def _drain(self) -> None:
        """Move the journal into landings; what cannot be moved now is kept in it."""
        self._undrained = True
        try:
            self._landed |= {
                path.name for path in self._journal.drain(self._workspace, self._wait_seconds)
            }
        except (StoreError, OSError) as error:
            self._figures["failures"] += 1
            LOG.warning("live bars stay in the journal for now: %s", error)
            return
        self._undrained = False

    def _catch_up(self, now: pd.Timestamp) -> tuple[dict[tuple[str, pd.Timestamp], str], dict[str, str]]:
        """Compute and push what the bars taken have changed, all symbols at once.

        Where that fails, half of them and half of them again: what cannot be computed of one symbol
        keeps no other from being taken.

        Returns:
            the reasons of bars set aside, and the errors of symbols that failed.

        Raises:
            StoreError: the store does not take rows.
        """
        in_doubt = self._in_doubt
        names = sorted(self._market.names if in_doubt else self._market.behind)
        aside: dict[tuple[str, pd.Timestamp], str] = {}
        failed: dict[str, str] = {}
        due = [names] if names else []
        while due:
            some = due.pop()
            began = time.perf_counter()
            try:
                changes = self._market.recompute(now, in_doubt, some)
            except Exception as error:  # whatever a bar that nobody foresaw may cause
                self._figures["failures"] += 1
                half = len(some) // 2
                if half:
                    due += [some[half:], some[:half]]
                else:
                    LOG.error("live bars of %s cannot be taken: %s", some[0], error, exc_info=error)
                    failed[some[0]] = _said(error)
                    self._give_up(some[0], _said(error), now)
                continue
            finally:
                self._figures["recompute_seconds"] += time.perf_counter() - began
            self._push(changes.versions)
            self._accept(changes)
            aside |= changes.aside
        self._in_doubt = False
        self._failed = {k: v for k, v in self._failed.items() if k in failed or k not in names}
        return aside, failed

    def _give_up(self, name: str, error: str, now: pd.Timestamp) -> None:
        """Leave a symbol as it was before its newest bars: those received now, or at the start all that
        have not been published."""
        self._failed = self._failed | {name: error}
        if not self._in_doubt and not self._is_loading:
            self._market.forget([name], now)
            return
        self._market.forget([name], self._published_until + MICROSECOND)
        news = self._news[(self._news["symbol"] == name) & (self._news["source"] == LIVE)]
        for (received_at, withdrawn), bars in news.groupby(["known_at", "withdrawn"]):
            self._journal.set_aside(bars, received_at, {name: error}, bool(withdrawn))
        self._count_dead_letters()

    def _count_dead_letters(self) -> None:
        self._figures["dead_letters"] = float(len(self._journal.dead_letters()))

    def _accept(self, changes: Changes) -> None:
        """Changes that are in the store: into the market, and the marks with them."""
        before = self._market.suspects
        self._market.accept(changes)
        names = set(changes.changed)
        # As a whole, for it is read from other threads. Where no feature changed, no measure did.
        kept = {name: mark for name, mark in self._unusual.items() if name not in names}
        try:
            fresh = unusual_of(self._market.newest_bars(changes.changed, 2), self._forest)
        except Exception as error:  # marks are unknown then, and nothing else is
            self._figures["failures"] += 1
            LOG.error("live bars cannot be marked: %s", error, exc_info=error)
            fresh = {}
        self._unusual = kept | fresh
        if not self._symbols.issuperset(found := changes.versions.online_windows["symbol"].tolist()):
            self._symbols.update(found)
            self.symbols = sorted(self._symbols)
        if self._unannounced is not None:
            self._unannounced |= names
            self._unannounced |= {name for name, _ in before.items() ^ self._market.suspects.items()}
        self._is_told = False

    def _tell(self) -> None:
        """Announce what has changed; what the receiver cannot take now is announced with the next.

        Raises:
            StoreError: the receiver failed.
        """
        if self._is_told:
            return
        if self._announce:
            try:
                self._announce(self._unannounced)
            except Exception as error:
                self._figures["failures"] += 1
                raise StoreError(f"forecasts do not follow the bars: {_said(error)}") from error
        self._unannounced, self._is_told = set(), True

    def _push(self, versions: Versions) -> None:
        """Offline first: whoever materializes in between then finds the newest rows there.

        The daily rows after the windows: where a kill comes in between, the next start finds from them
        what is still to do; and forecasts need the windows alone.

        Raises:
            StoreError: the store does not take rows.
        """
        steps = (
            (self._store.write_to_offline_store, "windows", versions.windows),
            (self._store.write_to_offline_store, "daily", versions.daily),
            (self._store.write_to_online_store, "windows", versions.online_windows),
            (self._store.write_to_online_store, "daily", versions.online_daily),
        )
        if not any(len(rows) for _, _, rows in steps):
            return
        lock = self._workspace.online_writer()
        began = time.perf_counter()
        try:
            lock.acquire(timeout=self._wait_seconds)
        except Timeout as error:
            raise StoreError(
                f"{lock.lock_file}: another process, such as stage publish, has been writing to the "
                f"online store for more than {self._wait_seconds:g} s. If it hangs, end it."
            ) from error
        self._waited(time.perf_counter() - began)
        try:
            for write, view, rows in steps:
                if len(rows):
                    write(view, rows)
        except Exception as error:  # any error of any online store
            self._figures["failures"] += 1
            raise StoreError(f"the feature store does not take rows ({_said(error)})") from error
        finally:
            lock.release()
            self._figures["push_seconds"] += time.perf_counter() - began


def _said(error: Exception) -> str:
    """An error in a sentence."""
    return f"{type(error).__name__}: {one_line(error)}"[:500]


def _each_taken(take: Callable[[pd.DataFrame], object], versions: pd.DataFrame) -> dict[str, str]:
    """Take versions of bars, all at once; where that fails, each symbol's by themselves.

    Returns:
        the errors of those that fail.
    """
    try:
        take(versions)
    except Exception as error:  # whatever a bar that nobody foresaw may cause
        LOG.error("live bars: %s", error, exc_info=error)
    else:
        return {}
    failed = {}
    for name, rows in versions.groupby("symbol"):
        try:
            take(rows)
        except Exception as error:
            failed[str(name)] = _said(error)
    return failed


def _told(
    outcome: Outcome,
    aside: Mapping[tuple[str, pd.Timestamp], str],
    failed: Mapping[str, str],
    sealed: pd.Timestamp,
) -> Outcome:
    """What became of a bar, after what it was judged to be."""
    if outcome.outcome not in ("new", "late", "corrected"):
        return outcome
    date = pd.Timestamp(outcome.date)
    if outcome.symbol in failed:
        return replace(outcome, outcome="failed", reason=failed[outcome.symbol], provisional=False)
    if (outcome.symbol, date) in aside:
        reason = aside[outcome.symbol, date]
        return replace(outcome, outcome="quarantined", reason=reason, provisional=False)
    return replace(outcome, provisional=outcome.provisional and date > sealed)


def _loaded(workspace: Workspace, correction_sessions: int) -> _Loaded:
    """Read what the pipeline left, and take what has landed since.

    Raises:
        DataError: the pipeline has not run.
        ParamsError: a section of params.yaml is wrong.
    """
    published = read_json(workspace.published)
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
    forest = load_forest(workspace.root / FOREST.path)
    market = LiveMarket(versions, state, params, published["window"], correction_sessions, coverage)
    windows = workspace.window_features
    tables = [windows, *pushed_folder(windows).glob("*.parquet")]

    said = [read_landing(path).rows for path in files if path.stem.split("-")[1] == LIVE]
    said = [rows[rows[ADJUSTED_CLOSE].notna()] for rows in said if ADJUSTED_CLOSE in rows]
    nothing = pd.DataFrame(columns=[*COLUMNS, ADJUSTED_CLOSE, "known_at"])
    now_known = bar_versions(each_landing(workspace), coverage) if since else versions
    published_until = versions.bars["known_at"].max()
    known_until = max(
        now_known.bars["known_at"].max(),
        state.daily[CREATED].max(),
        *(landing.received_at for landing in since),
    )
    news = _news(now_known.bars, versions.bars)
    factors = now_known.factors if since else None
    left = 0

    def take(rows: pd.DataFrame) -> None:
        nonlocal left
        left += market.take_again(rows, factors)

    unfit = _each_taken(take, news)
    for landing in since:
        for day in landing.seals:
            market.seal(pd.Timestamp(day))
    return _Loaded(
        market,
        forest,
        unusual_of(bars, forest),
        {s for path in tables for s in read_parquet(path, ["symbol"])["symbol"]},
        pd.concat(said, ignore_index=True) if said else nothing,
        now_known.factors,
        published_until,
        known_until,
        news,
        unfit,
        left,
        {path.name for path in files},
        any(pushed_folder(workspace.daily_features).glob("*.parquet")),
    )


def _published_at(workspace: Workspace) -> int:
    path = workspace.published
    return path.stat().st_mtime_ns if path.exists() else 0


def _history(workspace: Workspace, since: pd.Timestamp) -> pd.DataFrame:
    """The versions of the daily features, pushed ones too, of sessions since an instant."""
    daily = workspace.daily_features

    def parts() -> Iterator[pd.DataFrame]:
        yield read_parquet(daily, filters=[("event_timestamp", ">=", since)])
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
