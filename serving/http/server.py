"""The service's process: where it binds, how it starts, and how it ends."""

import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from time import perf_counter
from typing import Any

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.auth import Keys
from serving.processes import children
from serving.processes.child import log_to_stderr
from serving.processes.places import pids_file
from serving.processes.supervisor import Supervisor, runtime_folder
from serving.settings import ServeParams


def bound(host: str, port: int, keys: Keys) -> socket.socket:
    """A socket that has the address and does not listen yet.

    Raises:
        ParamsError: the address is no loopback one and there is no key, or it cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ParamsError(f"serve.host: {host!r} is no address of this machine ({error}).") from error
    if not keys.required and not ip_address(address[0]).is_loopback:
        raise ParamsError(
            f"serve.host: {host} can be reached from other machines, and no API key is there to "
            "keep them out. Add one with `pitwise key add NAME`, or bind to 127.0.0.1."
        )
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ParamsError(
            f"serve.port: {host}:{port} cannot be had ({error.strerror}). Stop who has it, or take "
            "another port with `--port`."
        ) from error
    return listener


def run(
    workspace: Workspace,
    host: str | None,
    port: int | None,
    workers: int | None = None,
    write: Callable[..., None] = children.write,
    read: Callable[..., None] = children.read,
) -> None:
    """Serve until SIGTERM or Ctrl-C, and return once requests in flight are answered.

    Args:
        host, port, workers: None: those of params.yaml.
        write, read: what its processes run, see `Supervisor`.

    Raises:
        ParamsError: params.yaml is wrong, or the address is not allowed or cannot be had.
        StoreError: a part of the service is not there.
    """
    started = perf_counter()
    given = {"host": host, "port": port, "workers": workers}
    params = load_params(workspace, "serve", ServeParams)
    params = params.model_copy(update={key: value for key, value in given.items() if value is not None})
    keys = Keys(workspace.path(params.keys))
    with bound(params.host, params.port, keys) as listener, runtime_folder() as folder:
        log_to_stderr("supervisor")
        address = listener.getsockname()
        supervisor = Supervisor(
            write,
            read,
            (workspace.root, params, folder),
            params.workers,
            listener,
            params.drain_seconds,
            pids_file(workspace),
        )
        supervisor.run(
            lambda facts: print(_ready_line(facts, address, perf_counter() - started), flush=True)
        )


def _ready_line(facts: Mapping[str, Any], address: tuple, seconds: float) -> str:
    host, port = address[:2]
    return (
        f"http://{f'[{host}]' if ':' in host else host}:{port} serves version {facts['version']} for "
        f"{facts['symbols']:,} symbols, ready in {seconds:.1f} s"
    )
