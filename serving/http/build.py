"""How a reader's service is built: the state of the market, the way to the writer, the log, the past."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.service import Service
from serving.log.history import LoggedHistory
from serving.log.served_log import ServedLog
from serving.processes.places import bars_address, pids_file, state_file
from serving.processes.remote import RemoteBars
from serving.settings import PredictParams, ServeParams
from serving.state.database import StateReader


@contextmanager
def build_service(
    workspace: Workspace, params: ServeParams, folder: Path, name: str
) -> Iterator[Service]:
    """The parts of one reader of a workspace's service, until the block ends.

    Args:
        folder: of the service's sockets.
        name: of the reader: what it answers is written down in a folder of that name.

    Raises:
        ParamsError: a section of params.yaml is wrong.
        StoreError: there is no state of the market, or the log cannot be written.
    """
    predict = load_params(workspace, "predict", PredictParams)
    with (
        closing(StateReader(state_file(workspace))) as states,
        closing(ServedLog(workspace.write_ahead / name)) as served,
        closing(LoggedHistory(workspace, workspace.database_url(predict.log_url))) as history,
    ):
        states.current()
        bars = RemoteBars(bars_address(folder), params.max_waiting, params.bars_seconds)
        yield Service(states, bars, served, history, predict.suspect, pids_file(workspace), workspace)
