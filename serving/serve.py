"""The service's process: what it binds to, what it is built of, and how it ends."""

import gc
import logging
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from feature_repo.errors import ParamsError
from feature_repo.stage import Params, load_params
from serving.keys import Keys

if TYPE_CHECKING:
    from serving.desk import Service

WRITE_AHEAD = Path("data/serving/log")


class ServeParams(Params):
    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    keys: Path
    requests_per_minute: int = Field(ge=1)
    max_symbols: int = Field(ge=1)
    max_bars: int = Field(ge=1)
    max_body_bytes: int = Field(ge=1)
    ttl_sessions: int = Field(ge=0)
    clock: Literal["market", "wall"]
    champion_seconds: float = Field(gt=0, le=10)
    drain_seconds: int = Field(ge=1)
    correction_sessions: int = Field(ge=1)


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


def build_service(params: ServeParams, keys: Keys) -> "Service":
    """Store, champion, live bars and log; the champion is followed from here on.

    Raises:
        StoreError: one of them is not there; the message says which and what to run.
    """
    from feature_repo.artifacts import FEAST_REPO
    from feature_repo.model import RegistryParams
    from serving.champion import LiveChampion
    from serving.desk import Service
    from serving.live import LiveBars
    from serving.predict import PredictParams
    from serving.predictor import open_store
    from serving.served_log import ServedLog

    registry = load_params("registry", RegistryParams)
    log_url = load_params("predict", PredictParams).log_url
    store = open_store(FEAST_REPO)
    live = LiveBars(open_store(FEAST_REPO), params.correction_sessions, params.champion_seconds)
    champion = LiveChampion(registry, store, lambda: live.symbols, params.champion_seconds)
    served = ServedLog(log_url, WRITE_AHEAD)
    champion.start()
    # What was imported stays: a full collection that walks it costs the slowest answers 80 ms.
    gc.collect()
    gc.freeze()
    return Service(params, champion, served, live, store, keys)


def run(host: str | None, port: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered first.

    Raises:
        ParamsError: params.yaml is wrong, or the address is not allowed or cannot be had.
        StoreError: a part of the service is not there.
    """
    started = perf_counter()
    given = {"host": host, "port": port}
    params = load_params("serve", ServeParams)
    params = params.model_copy(update={key: value for key, value in given.items() if value is not None})
    keys = Keys(params.keys)
    with bound(params.host, params.port, keys) as listener:
        # uvicorn raises the signal that ended it once more: without a handler the process would be gone
        # before its parts are closed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        logging.basicConfig(
            level=logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
        try:
            service = build_service(params, keys)
            try:
                _serve(service, listener, started)
            finally:
                service.close()
        except KeyboardInterrupt:
            pass


def _serve(service: "Service", listener: socket.socket, started: float) -> None:
    import uvicorn

    from serving.api import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            version = service.champion.predictor.model.version
            print(
                f"http://{f'[{host}]' if ':' in host else host}:{port} serves version {version} for "
                f"{len(service.live.symbols):,} symbols, ready in {perf_counter() - started:.1f} s",
                flush=True,
            )

    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # or a client could name its own address, which the limits go by
        timeout_graceful_shutdown=service.params.drain_seconds,
    )
    Server(config).run(sockets=[listener])
