"""From bars to forecasts on a Ray cluster of two nodes, beside the same run on this machine's cores.

    python benchmarks/ray_cluster.py WORKSPACE [--last dataset]

WORKSPACE is a finished run of the code as it is, such as runs/csv. Its landings and params go to
runs/ray_cluster, and the stages of `dvc.yaml` up to `predict` make all else there, with `engine: ray`
and a cluster of two nodes of one core each on loopback. What each stage writes must be the same bytes.
Others may be the pages, pictures and reports that tell when they were made or in which run; of the
forecasts all columns but the model's version are compared.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml
from market import PROJECT
from pipeline import measured, stages
from ruamel.yaml import YAML

from pitwise.init import new_workspace
from pitwise.workspace import Workspace, read_parquet, sha256

FOLDER = PROJECT.root / "runs/ray_cluster"


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


def copied(finished: Workspace, address: str) -> Workspace:
    """A workspace with the landings and params of another one, whose engine is the cluster."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    workspace = new_workspace(FOLDER)
    shutil.copytree(finished.landing, workspace.landing)
    shutil.copytree(finished.root / "universe", FOLDER / "universe", dirs_exist_ok=True)
    reader = YAML()
    params = reader.load(finished.params)
    params["engine"] = {"kind": "ray", "n_jobs": -1, "address": address}
    reader.dump(params, workspace.params)
    return workspace


def outputs(document: dict, last: str) -> Iterator[str]:
    """The files and folders that the stages up to one write."""
    for name, stage in document["stages"].items():
        for item in stage.get("foreach", [None]):
            body = stage.get("do", stage)
            for out in [*body.get("outs", []), *body.get("metrics", [])]:
                path = out if isinstance(out, str) else next(iter(out))
                yield path.replace("${item}", str(item))
        if name == last:
            return


def same(one: Path, other: Path) -> bool:
    if one == Workspace(FOLDER).latest_predictions:
        tables = [read_parquet(path).drop(columns="model_version") for path in (one, other)]
        return bool(pd.DataFrame.equals(*tables))
    return sha256(one) == sha256(other)


def main(finished: Workspace, last: str) -> None:
    document = yaml.safe_load((PROJECT.root / "dvc.yaml").read_text())
    table = []
    with cluster() as address:
        workspace = copied(finished, address)
        for stage, command in stages(document).items():
            table.append((stage, *measured(workspace, command)))
            if stage == last:
                break
    print("\n| stage | seconds | peak GiB of its own process |\n|---|---|---|")
    for stage, taken, memory in table:
        print(f"| {stage} | {taken:.1f} | {memory:.2f} |")
    paths = [path for path in outputs(document, last) if (finished.root / path).is_file()]
    others = [path for path in paths if not same(workspace.root / path, finished.root / path)]
    print(f"{len(paths) - len(others)} of {len(paths)} files are the same; not: {others}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace")
    parser.add_argument("--last", default="predict", help="stage")
    given = parser.parse_args()
    main(Workspace(given.workspace), given.last)
