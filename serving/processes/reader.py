"""A reader: the HTTP service's process, of which there may be many on one listening socket."""

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from pitwise.workspace import Workspace
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.http.build import build_service
from serving.processes.child import BEAT_SECONDS, Control
from serving.processes.connections import bounded_protocol
from serving.settings import ServeParams

KEEP_ALIVE_SECONDS = 30
"""A connection without a request for so long is closed."""


def run(
    control: Control,
    name: str,
    root: Path,
    params: ServeParams,
    folder: Path,
    listener: socket.socket,
) -> None:
    """Be reader `name` of the workspace at `root` until SIGTERM, or the supervisor has died."""
    workspace = Workspace(root)
    keys = Keys(workspace.path(params.keys))
    app = create_app(params, keys, lambda: build_service(workspace, params, folder, name))
    control.wait_to_go()
    control.when_abandoned(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        serve(app, listener, params.drain_seconds, control)
    except SystemExit:
        # All that the service has is closed by now. A page that nobody waits for any more may still be
        # made in a thread, which Python would wait for.
        os._exit(0)


def serve(app: FastAPI, listener: socket.socket, drain_seconds: int, control: Control) -> None:
    """Serve an app until SIGTERM, which raises SystemExit once requests in flight are answered."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # What was imported stays: a full collection that walks it costs the slowest answers 80 ms.
            gc.collect()
            gc.freeze()
            control.ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.ending.set()
            # A terminal's Ctrl-C comes to this process too, beside the supervisor's SIGTERM; as a second
            # signal, SIGINT would have uvicorn break off what is in flight.
            super().handle_exit(signal.SIGTERM, frame)

    config = uvicorn.Config(
        app,
        http=bounded_protocol(),
        lifespan="off",  # it is ours: uvicorn would log its errors and exit with 3
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # or a client could name its own address, which the limits go by
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            control.beat()

    async def answer() -> None:
        async with app.router.lifespan_context(app):
            beats = asyncio.create_task(beat())  # from the loop: one that hangs gives no sign of life
            await Server(config).serve(sockets=[listener])
            beats.cancel()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(answer())
