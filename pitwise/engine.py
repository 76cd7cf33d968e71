"""Where independent tasks are computed: on this machine's cores or on a Ray cluster, to the same bits.

A task reads what it needs from the workspace's folder, which every machine must see. It is computed on
one thread, since sums on several threads differ in the last bits.
"""

import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, TypeVar

from pydantic import field_validator
from threadpoolctl import threadpool_limits

from pitwise.errors import StoreError
from pitwise.extras import require
from pitwise.stage import Params, load_params
from pitwise.workspace import Workspace

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
"""How often Ray computes a task again whose process died."""

IDLE_SECONDS = 30
"""That a process waits for the next tasks."""


class EngineParams(Params):
    """Section `engine`: where a result is computed, never what it is, so that no stage depends on it."""

    kind: Literal["local", "ray"]
    n_jobs: int
    """Tasks at a time; -1 is one a core, of the cluster where there is one."""
    address: str | None
    """Of a running Ray cluster; None starts one on this machine, which ends with the process."""

    @field_validator("n_jobs")
    @classmethod
    def _some(cls, n_jobs: int) -> int:
        if n_jobs == 0:
            raise ValueError("should be 1 or more, or -1 for one a core")
        return n_jobs


def engine_of(workspace: Workspace) -> EngineParams:
    """The section `engine` of a workspace.

    Raises:
        ParamsError: it is missing or impossible.
        StoreError: it wants Ray, which is not installed.
    """
    engine = load_params(workspace, "engine", EngineParams)
    if engine.kind == "ray":
        require("ray", "engine.kind: ray")
    return engine


def run(
    engine: EngineParams,
    function: Callable[[T], R],
    tasks: Iterable[T],
    ordered: bool = False,
    on_gpu: Callable[[T], bool] = lambda task: False,
) -> Iterator[R]:
    """What a function makes of each task, as soon as it is there.

    Where the process that computes a task dies, Ray computes it again elsewhere. Who stops reading
    leaves the tasks undone that have not begun.

    Args:
        function: of a module, so that another process can import it.
        ordered: in the order of the tasks; else in that in which they are finished.
        on_gpu: whether a task uses a GPU. A Ray cluster that has some gives it one to itself; on this
            machine's cores tasks share what there is.

    Raises:
        StoreError: a process died, on this machine or again and again on Ray's; or there is no cluster.
        Exception: what the function raises.
    """
    if engine.kind == "ray":
        return _on_ray(engine, function, tasks, ordered, on_gpu)
    return _on_cores(engine.n_jobs, function, tasks, ordered)


def _on_cores(n_jobs: int, function: Callable[[T], R], tasks: Iterable[T], ordered: bool) -> Iterator[R]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    order = "generator" if ordered else "generator_unordered"
    # Processes that nobody needs any more give their memory back sooner than after five minutes.
    with parallel_config("loky", inner_max_num_threads=1, idle_worker_timeout=IDLE_SECONDS):
        compute = Parallel(n_jobs, return_as=order, pre_dispatch="n_jobs")
    with warnings.catch_warnings():
        # Loky starts a process anew whose memory has grown, as fits make it, and says so each time.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        try:
            yield from compute(delayed(_computed)(function, task) for task in tasks)
        except TerminatedWorkerError as error:
            raise StoreError(
                "a process that computed a task died; most often memory was short. What was finished is "
                "kept. Run again, with a smaller engine.n_jobs where memory is short."
            ) from error


def _on_ray(
    engine: EngineParams,
    function: Callable[[T], R],
    tasks: Iterable[T],
    ordered: bool,
    on_gpu: Callable[[T], bool],
) -> Iterator[R]:
    ray = connected(engine)
    resources = ray.cluster_resources()
    at_a_time = engine.n_jobs if engine.n_jobs > 0 else int(resources["CPU"])
    on_core, on_core_and_gpu = (
        ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_computed) for gpus in (0, 1)
    )

    def begun(task: T) -> Any:
        compute = on_core_and_gpu if resources.get("GPU", 0) >= 1 and on_gpu(task) else on_core
        return compute.remote(function, task)

    waiting = iter(tasks)
    running = deque(begun(task) for task in islice(waiting, at_a_time))
    try:
        while running:
            done = running[0] if ordered else ray.wait(list(running), fetch_local=False)[0][0]
            result = ray.get(done)
            running.remove(done)
            running.extend(begun(task) for task in islice(waiting, 1))
            yield result
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise StoreError(
            f"Ray could not compute a task, after {RETRIES} tries more: {error}. What was finished is "
            "kept. See to the cluster, then run again."
        ) from error
    finally:
        for one in running:
            ray.cancel(one)


def has_cluster_gpu(engine: EngineParams) -> bool:
    """Whether there is a cluster with a GPU, which this machine itself may lack."""
    if engine.kind != "ray" or not engine.address:
        return False
    return connected(engine).cluster_resources().get("GPU", 0) >= 1


def connected(engine: EngineParams) -> Any:
    """The module `ray`, of a process that is connected.

    A cluster that starts here is bound to loopback, has no dashboard and reports no usage.

    Raises:
        StoreError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would print the errors of all other tasks that an error leaves behind.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if not engine.address:
        # On any system, 0 has Ray take 127.0.0.1 for the node's address, and listen nowhere else.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        return ray
    if not engine.address:
        ray.init(
            "local",
            num_cpus=engine.n_jobs if engine.n_jobs > 0 else None,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
        return ray
    _require_answer(engine.address)
    ray.init(engine.address, logging_level=logging.ERROR, log_to_driver=False)
    return ray


def _require_answer(address: str) -> None:
    """StoreError where nobody listens, which Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"engine.address: no Ray cluster answers at {address} ({error}). Give host:port of one that "
            "`ray start --head` has started, or set engine.kind to local."
        ) from error


def _computed(function: Callable[[T], R], task: T) -> R:
    with _one_thread():
        return function(task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for the libraries that are loaded, and for those that are loaded in the block."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with threadpool_limits(1):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
