"""From bars to forecasts on this machine's cores and on a Ray cluster of two nodes: the same bytes.

    python benchmarks/ray_cluster.py WORKSPACE [--last dataset]

The landings and params of WORKSPACE, such as runs/csv, go to runs/ray_cluster/local and to
runs/ray_cluster/ray. In each, the stages of `dvc.yaml` up to `predict` and then the walk-forward make
all else; in the second one with `engine: ray` and a cluster of two nodes of one core each on loopback,
of which a process that computes a fit of the walk-forward is killed. Then their files are compared.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from market import PROJECT
from pipeline import stages
from ruamel.yaml import YAML

from pitwise.init import new_workspace
from pitwise.workspace import Workspace, read_json, read_parquet, sha256

FOLDER = PROJECT.root / "runs/ray_cluster"
WALK_FORWARD = "evaluate_walk_forward"


@contextmanager
def cluster() -> Iterator[str]:
    """The address of two nodes that listen on loopback alone, as `ray start` would not."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    node = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 200_000_000}
    nodes = Cluster(True, head_node_args=node | {"include_dashboard": False})
    try:
        nodes.add_node(**node)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def pipeline(last: str) -> dict[str, Any]:
    """The stages of `dvc.yaml` up to one, and behind `predict` the walk-forward's."""
    document = yaml.safe_load((PROJECT.root / "dvc.yaml").read_text())["stages"]
    names = list(document)
    chosen = {name: document[name] for name in names[: names.index(last) + 1]}
    if last == "predict":
        beside = yaml.safe_load((PROJECT.root / "walk_forward/dvc.yaml").read_text())["stages"]
        chosen[WALK_FORWARD] = beside[WALK_FORWARD]
    return {"stages": chosen}


def finished(given: Workspace, engine: dict[str, Any], document: dict[str, Any]) -> Workspace:
    """A workspace with the landings and params of another one, in which all stages were run."""
    workspace = new_workspace(FOLDER / engine["kind"])
    shutil.copytree(given.landing, workspace.landing)
    shutil.copytree(given.root / "universe", workspace.root / "universe", dirs_exist_ok=True)
    reader = YAML()
    params = reader.load(given.params)
    params["engine"] = engine
    reader.dump(params, workspace.params)
    for stage, command in stages(document).items():
        if stage == WALK_FORWARD and engine["kind"] == "ray":
            threading.Thread(target=kill_a_worker, args=[workspace], daemon=True).start()
        print(f"{engine['kind']}: {stage}", flush=True)
        subprocess.run([sys.executable, *command.split()[1:]], cwd=workspace.root, check=True)
    return workspace


def kill_a_worker(workspace: Workspace) -> None:
    """Kill a process that computes a fit, once another fit's forecasts are there."""
    while True:
        time.sleep(0.05)
        if not any(workspace.walk_forward_folds.rglob("*.parquet")):
            continue
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::_computed"):
                process.kill()
                print(f"killed {process.pid}, {process.name()}", flush=True)
                return


def outputs(workspace: Workspace, document: dict[str, Any]) -> Iterator[str]:
    """The files that the stages write, as paths in the workspace."""
    for stage in document["stages"].values():
        for item in stage.get("foreach", [None]):
            body = stage.get("do", stage)
            for out in [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]:
                name = out if isinstance(out, str) else next(iter(out))
                path = workspace.root / name.replace("${item}", str(item))
                files = path.rglob("*") if path.is_dir() else [path]
                yield from (str(file.relative_to(workspace.root)) for file in files if file.is_file())


def different(one: Path, other: Path) -> str:
    """What is not the same of two files; empty where all is."""
    if not other.exists():
        return "is not there"
    if sha256(one) == sha256(other):
        return ""
    if one.suffix == ".json":
        documents = read_json(one), read_json(other)
        return f"keys {sorted(differing(*documents))}"
    if one.suffix == ".parquet":
        tables = [read_parquet(path) for path in (one, other)]
        if list(tables[0]) == list(tables[1]) and len(tables[0]) == len(tables[1]):
            columns = [name for name in tables[0] if not pd.Series.equals(*(t[name] for t in tables))]
            return f"columns {columns}"
    return "bytes"


def differing(one: Any, other: Any, at: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differing(one.get(key), other.get(key), f"{at}.{key}".strip("."))
    elif one != other:
        yield at


def registered(workspace: Workspace) -> Counter[str]:
    """Hashes of the models' files in the registry, whose folders are named by chance."""
    return Counter(sha256(path) for path in workspace.mlflow_artifacts.rglob("*.onnx"))


def main(given: Workspace, last: str) -> None:
    document = pipeline(last)
    shutil.rmtree(FOLDER, ignore_errors=True)
    local = finished(given, {"kind": "local", "n_jobs": 2, "address": None}, document)
    with cluster() as address:
        ray = finished(given, {"kind": "ray", "n_jobs": -1, "address": address}, document)
    paths = sorted(outputs(local, document))
    found = {path: different(local.root / path, ray.root / path) for path in paths}
    print(f"{sum(not said for said in found.values())} of {len(paths)} files are the same bytes; not:")
    for path, said in found.items():
        if said:
            print(f"  {path}: {said}")
    models = registered(local)
    verdict = "the same" if models == registered(ray) else "NOT the same"
    print(f"{models.total()} ONNX files in the registry: {verdict} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace")
    parser.add_argument("--last", default="predict", help="stage")
    given = parser.parse_args()
    main(Workspace(given.workspace), given.last)
