"""How a service is built: store, live bars, champion and log."""

import gc
from contextlib import ExitStack

from feature_repo.store import open_store
from pitwise.registry.model import RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.service import Service
from serving.inference.champion import LiveChampion
from serving.live.live_bars import LiveBars
from serving.log.served_log import ServedLog
from serving.settings import PredictParams, ServeParams


def build_service(workspace: Workspace, params: ServeParams) -> Service:
    """The parts of a workspace's service; the champion is followed from here on. The caller closes it.

    Raises:
        ParamsError: a section of params.yaml is wrong.
        StoreError: a part is not there; the message names it and what to run.
    """
    registry = load_params(workspace, "registry", RegistryParams)
    predict = load_params(workspace, "predict", PredictParams)
    store = open_store(workspace)
    with ExitStack() as undo:
        live = LiveBars(
            workspace, open_store(workspace), params.correction_sessions, params.champion_seconds
        )
        undo.callback(live.close)
        champion = LiveChampion(
            workspace, registry, store, lambda: live.symbols, params.champion_seconds
        )
        undo.callback(champion.stop)
        served = ServedLog(workspace.database_url(predict.log_url), workspace.write_ahead)
        undo.pop_all()
    champion.start()
    # What was imported stays: a full collection that walks it costs the slowest answers 80 ms.
    gc.collect()
    gc.freeze()
    return Service(champion, served, live, store, predict.suspect)
