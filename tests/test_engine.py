"""One code path, on this machine's cores and on a Ray cluster of two nodes."""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.engine_tasks import (
    Task,
    once_deadly,
    once_deadly_table,
    product_sum,
    unreadable,
    visible_gpus,
    waits_for_the_next,
)
from support.project import with_params

from pitwise import extras
from pitwise.engine import EngineParams, engine_of, has_cluster_gpu, run
from pitwise.errors import DataError, ParamsError, StoreError
from pitwise.shards import Shards

pytestmark = pytest.mark.component

ALONE = EngineParams(kind="local", n_jobs=1, address=None)
CORES = EngineParams(kind="local", n_jobs=2, address=None)
SECTION = {"kind": "ray", "n_jobs": 2, "address": None}


@pytest.fixture(scope="module")
def cluster() -> Iterator[EngineParams]:
    """Two nodes of one core each, the second one with a GPU by its own account.

    `ray start` would bind that one to all interfaces.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", paths)
        environment.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read when Ray is imported
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray.cluster_utils import Cluster

        node = {
            "node_ip_address": "127.0.0.1",
            "num_cpus": 1,
            "object_store_memory": 80_000_000,
            "include_log_monitor": False,
        }
        nodes = Cluster(True, head_node_args=node | {"include_dashboard": False, "no_monitor": True})
        try:
            nodes.add_node(**node, num_gpus=1)
            yield EngineParams(kind="ray", n_jobs=-1, address=nodes.address)
        finally:
            ray.shutdown()
            nodes.shutdown()


@pytest.fixture(params=["local", "ray"])
def two_workers(request) -> EngineParams:
    return CORES if request.param == "local" else request.getfixturevalue("cluster")


def test_two_workers_say_what_one_says_to_the_bit(two_workers):
    alone = list(run(ALONE, product_sum, range(4)))
    assert list(run(two_workers, product_sum, range(4), ordered=True)) == alone
    assert sorted(run(two_workers, product_sum, range(4))) == sorted(alone)


def test_results_are_in_the_order_of_the_tasks_where_that_is_asked_for(two_workers, tmp_path):
    tasks = [Task(number, tmp_path / "second") for number in range(3)]
    assert list(run(two_workers, waits_for_the_next, tasks, ordered=True)) == [0, 1, 2]


def test_an_error_of_a_task_comes_out_as_it_is(two_workers):
    with pytest.raises(DataError, match=r"^file \d: cannot be read$"):
        list(run(two_workers, unreadable, range(3)))


def test_ray_computes_again_what_a_killed_process_had_begun(cluster, tmp_path):
    tasks = [Task(number, tmp_path / "died") for number in range(4)]
    assert list(run(cluster, once_deadly, tasks, ordered=True)) == [0, 1, 2, 3]
    assert tasks[0].mark.exists()


def test_a_process_killed_in_the_middle_of_a_shard_changes_nothing(cluster, tmp_path):
    def rows(folder: Path, engine: EngineParams) -> list:
        folder.mkdir(exist_ok=True)
        function = partial(once_deadly_table, folder)
        of = Shards(engine, function, ["a", "deadly", "c"], folder / "shards", [], {}, [])
        return [tables["rows"] for tables in of]

    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/died").touch()
    found, expected = rows(tmp_path / "ray", cluster), rows(tmp_path / "alone", ALONE)
    assert all(a.equals(b, check_metadata=True) for a, b in zip(found, expected, strict=True))
    assert (tmp_path / "ray/died").exists()


def test_a_killed_process_of_this_machine_is_told_with_what_to_do(tmp_path):
    tasks = [Task(number, tmp_path / "died") for number in range(4)]
    with pytest.raises(StoreError, match=r"died.*Run again, with a smaller engine\.n_jobs"):
        list(run(CORES, once_deadly, tasks))
    assert list(run(CORES, once_deadly, tasks, ordered=True)) == [0, 1, 2, 3]


def test_tasks_begin_when_there_is_room_for_them(cluster):
    begun: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(50):
            begun.append(number)
            yield number

    for engine in (ALONE, cluster):
        begun.clear()
        results = run(engine, product_sum, tasks(), ordered=True)
        next(results)
        results.close()
        assert len(begun) <= 3


def test_a_task_that_uses_a_gpu_gets_one_to_itself_where_the_cluster_has_some(cluster):
    assert list(run(cluster, visible_gpus, range(3), True, lambda number: number == 1)) == [
        None,
        "0",
        None,
    ]
    assert has_cluster_gpu(cluster)
    assert not has_cluster_gpu(CORES)


def test_the_cluster_listens_on_loopback_alone(cluster):
    import psutil

    list(run(cluster, product_sum, [1]))
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        kept.laddr.ip
        for process in mine
        for kept in process.net_connections("tcp")
        if kept.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "somewhere"])
def test_a_cluster_that_does_not_answer_is_told_of_at_once(address, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    nowhere = EngineParams(kind="ray", n_jobs=2, address=address)
    with pytest.raises(StoreError, match=rf"engine\.address: no Ray cluster answers at {address}"):
        list(run(nowhere, product_sum, [1]))


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(extras, "missing", lambda extra: ["ray"] if extra == "ray" else [])
    with pytest.raises(StoreError, match=r"engine\.kind: ray needs ray.*pip install 'pitwise\[ray\]'"):
        engine_of(with_params(tmp_path, engine=SECTION))


@pytest.mark.parametrize(("key", "value"), [("kind", "spark"), ("n_jobs", 0), ("workers", 2)])
def test_an_impossible_engine_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(ParamsError, match=rf"engine\.{key}"):
        engine_of(with_params(tmp_path, engine=SECTION | {key: value}))
