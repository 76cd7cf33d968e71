"""The service's process: where it binds, how it starts, and how it ends."""

import asyncio
import logging
import signal
import socket
import sys
from ipaddress import ip_address
from time import perf_counter
from typing import Any

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.auth import Keys
from serving.settings import ServeParams

# What takes seconds to import is imported when the address is ours.


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


def run(workspace: Workspace, host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C, which raise SystemExit(0) once requests in flight are answered.

    Raises:
        ParamsError: params.yaml is wrong, or the address is not allowed or cannot be had.
        StoreError: a part of the service is not there.
    """
    started = perf_counter()
    given = {"host": host, "port": port}
    params = load_params(workspace, "serve", ServeParams)
    params = params.model_copy(update={key: value for key, value in given.items() if value is not None})
    keys = Keys(workspace.path(params.keys))
    with bound(params.host, params.port, keys) as listener:
        # Whenever the signal comes, the parts that are there are closed. While it serves, uvicorn takes
        # the signal, and raises it once more when the last request is answered.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: sys.exit(0))
        logging.basicConfig(
            level=logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )

        from serving.http.app import create_app
        from serving.http.build import build_service

        app = create_app(params, keys, lambda: build_service(workspace, params))
        _serve(app, listener, params.drain_seconds, started)


def _serve(app: Any, listener: socket.socket, drain_seconds: int, started: float) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(_ready_line(app.state.service, listener, perf_counter() - started), flush=True)

    config = uvicorn.Config(
        app,
        lifespan="off",  # it is ours: uvicorn would log its errors and exit with 3
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # or a client could name its own address, which the limits go by
        timeout_graceful_shutdown=drain_seconds,
    )

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await Server(config).serve(sockets=[listener])

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())


def _ready_line(service: Any, listener: socket.socket, seconds: float) -> str:
    host, port = listener.getsockname()[:2]
    return (
        f"http://{f'[{host}]' if ':' in host else host}:{port} serves version "
        f"{service.champion.predictor.model.version} for {len(service.live.symbols):,} symbols, "
        f"ready in {seconds:.1f} s"
    )
