"""The writer: takes bars, follows the champion, and commits the market's forecasts for the readers."""

import gc
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.store import open_store, rebuild
from pitwise.features.errors import EmptyStoreError
from pitwise.features.incremental import Outcome
from pitwise.registry.model import RegistryParams
from pitwise.registry.prediction_log import open_log
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.inference.champion import LiveChampion
from serving.inference.predictor import Predictor
from serving.live.live_bars import LiveBars
from serving.log.mover import Mover
from serving.processes.canary import WAIT_SECONDS, Canary
from serving.processes.child import BEAT_SECONDS, Control
from serving.processes.places import bars_address, state_file
from serving.processes.publisher import DailyRows, Publisher
from serving.processes.remote import BarsServer
from serving.settings import PredictParams, ServeParams
from serving.state.database import StateWriter
from serving.state.market import PartStatus
from serving.supervised import Loop

ENDING_SECONDS = 3.0
"""For each of its threads to end in."""
LOG = logging.getLogger("pitwise.serving")


class Writer:
    """The parts of a workspace's writer, at work from here on. The caller closes it.

    Args:
        folder: of this service's sockets.
        first: whether the service starts, and an error of the log's address is a person's to mend; on a
            restart a database that is away holds nothing up.

    Raises:
        ParamsError: a section of params.yaml is wrong.
        StoreError: a part is not there; the message names it and what to run.
    """

    def __init__(self, workspace: Workspace, params: ServeParams, folder: Path, first: bool):
        registry = load_params(workspace, "registry", RegistryParams)
        predict = load_params(workspace, "predict", PredictParams)
        log_url = workspace.database_url(predict.log_url)
        if first:
            open_log(log_url).dispose()
        self._store = open_store(workspace)
        self.reported: Callable[[], object] = lambda: None
        """Called each second, after the readers were told how the parts do."""
        self._publisher: Publisher | None = None
        with ExitStack() as ends:
            written = DailyRows(open_store(workspace))
            self._live = LiveBars(
                workspace,
                written,
                params.correction_sessions,
                params.champion_seconds,
                self._changed,
                params.bars_seconds,
            )
            ends.callback(self._live.close, ENDING_SECONDS)
            self._champion = LiveChampion(
                workspace,
                registry,
                self._store,
                lambda: self._live.symbols,
                params.champion_seconds,
                self._swapping,
            )
            ends.callback(self._champion.stop, ENDING_SECONDS)
            self._database = StateWriter(state_file(workspace))
            ends.callback(self._database.close)
            publisher = Publisher(self._live, self._store, written, self._database, self._champion.info)
            with self._live.locked(WAIT_SECONDS):
                try:
                    publisher.publish(self._champion.predictor, None)
                except EmptyStoreError as error:
                    LOG.error("%s It gets what is published again", error)
                    rebuild(workspace, self._store)
                    publisher.publish(self._champion.predictor, None)
                self._publisher = publisher
            self._canary = Canary(
                lambda: self._champion.predictor,
                publisher,
                self._database,
                self._live.locked,
                lambda: rebuild(workspace, self._store),
            )
            self._mover = Mover(log_url, workspace.write_ahead)
            ends.callback(self._move_last)
            self._loops = {
                "store": Loop("store", 1.0, self._canary.step),
                "log_database": Loop("log_database", 0.5, self._mover.step),
                "writer": Loop("writer", BEAT_SECONDS, self._report),
            }
            self._bars = BarsServer(
                bars_address(folder),
                self._take,
                self._withdraw,
                params.max_waiting,
                params.bars_seconds,
            )
            ends.callback(self._bars.stop, ENDING_SECONDS)
            for loop in self._loops.values():
                ends.callback(loop.stop, ENDING_SECONDS)
            self._report()
            self._ends = ends.pop_all()
        self._champion.start()
        for loop in self._loops.values():
            loop.start()
        self._bars.start()

    @property
    def facts(self) -> dict[str, Any]:
        """`version` of the champion and how many `symbols` have a forecast."""
        state = self._database.state
        assert state
        return {"version": state.model.version, "symbols": len(state.forecasts)}

    def close(self) -> None:
        """Take no more bars, finish those under way, and let another writer take over."""
        self._ends.close()

    def _changed(self, symbols: Collection[str] | None) -> None:
        """Called by the live bars, which take no other meanwhile."""
        if self._publisher:
            self._publisher.publish(self._champion.predictor, symbols)

    @contextmanager
    def _swapping(self, predictor: Predictor) -> Iterator[None]:
        assert self._publisher
        # Bars wait until it is the current one: the forecasts of theirs would be the old one's.
        with self._live.locked(WAIT_SECONDS):
            self._publisher.publish(predictor, None)
            yield

    def _take(self, bars: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        return self._live.take(_frame(bars))

    def _withdraw(self, symbol: str, date: str) -> Outcome:
        return self._live.withdraw(symbol, pd.Timestamp(date))

    def _move_last(self) -> None:
        try:
            self._mover.step()
        except Exception as error:  # the next start moves them
            LOG.warning("answers wait for the log: %s", error)
        self._mover.close()

    def _report(self) -> None:
        """Commit how the parts do."""
        assert self._publisher
        self._publisher.describe(self._champion.predictor)
        store, fault = self._loops["store"].status, self._canary.champion_fault
        moved = self._loops["log_database"].status
        self._database.report(
            {
                "store": _with(store, self._canary.figures),
                "champion": PartStatus(not fault, fault, 0, store.at),
                "registry": self._champion.status,
                "live_bars": self._live.status,
                "log_database": _with(moved, {"pending": self._mover.pending}),
                "bars": self._bars.status,
                "writer": PartStatus(True, "", 0, time.time(), {"pid": os.getpid()}),
            }
        )
        self.reported()


def run(control: Control, name: str, root: Path, params: ServeParams, folder: Path) -> None:
    """Be the writer of the workspace at `root` until the supervisor says so, or has died."""
    pd.options.mode.copy_on_write = True  # a session of bars takes fewer copies
    # Of the readers; Feast would have this process keep its values in files too.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    with _closing(Writer(Workspace(root), params, folder, control.is_first)) as writer:
        # What was imported stays: a full collection that walks it costs the slowest answers 80 ms.
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the readers may need it for their last requests
        control.ready(**writer.facts)
        writer.reported = control.beat
        told = control.wait_for_end()
    if not told:
        LOG.error("the supervisor is gone: this process ends")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _closing(writer: Writer) -> Iterator[Writer]:
    try:
        yield writer
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        writer.close()


def _with(status: PartStatus, figures: Mapping[str, float]) -> PartStatus:
    return PartStatus(status.ok, status.detail, status.failures, status.at, dict(figures))


def _frame(bars: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(bars))
    frame["date"] = np.array(frame["date"].tolist(), "datetime64[us]")
    if "adj_close" in frame and frame["adj_close"].isna().all():
        frame = frame.drop(columns="adj_close")
    numbers = frame.columns.difference(["symbol", "date"])
    frame[numbers] = frame[numbers].astype("float64")
    return frame
