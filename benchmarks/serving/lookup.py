"""In-process forecasts beside Feast's bare lookup of the same windows; onnxruntime beside torch eager.

`python -m benchmarks.serving.lookup runs/csv` reads a finished run's online store and champion. The
peer is Feast as its documentation has it: one array field a feature, SQLite online, `to_dict()`. In a
temporary folder it holds the same windows, of the champion's features alone. It has a process of its
own: Feast keeps one registry's views in memory, and two stores in a process throw each other's out.

The garbage collector is what makes a slow lookup slow: now and then it goes through everything that was
imported, a million objects. The service sets these aside once (`gc.freeze`), and so do we; the peer is
measured without and with.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd

from feature_repo.store import open_store
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegistryParams
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet
from serving.inference.predictor import WINDOWS_VIEW, Predictor, Windows, load_champion

BATCHES = (1, 500)
THREADS = (1, 2)
CALLS = 400
WARM_UP = 20
PEER_VIEW = "stock"


def stock_store(folder: Path, features: Sequence[str], windows: Windows) -> Any:
    """A Feast store in `folder` with an `Array(Float32)` field a feature, filled with these windows.

    Args:
        windows: of the columns `features`.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Array, Float32

    folder.joinpath("feature_store.yaml").write_text(
        "project: peer\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        "offline_store:\n  type: duckdb\nonline_store:\n  type: sqlite\n  path: online.db\n"
    )
    rows = pd.DataFrame({"symbol": windows.symbols, "event_timestamp": windows.as_of})
    rows["event_timestamp"] = rows["event_timestamp"].astype("datetime64[us]").dt.tz_localize("UTC")
    rows = rows.assign(**{name: list(windows.values[:, :, i]) for i, name in enumerate(features)})
    rows.to_parquet(folder / "windows.parquet")
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    view = FeatureView(
        name=PEER_VIEW,
        entities=[symbol],
        ttl=timedelta(days=36500),
        schema=[Field(name=name, dtype=Array(Float32)) for name in features],
        source=FileSource(path=str(folder / "windows.parquet"), timestamp_field="event_timestamp"),
    )
    store = FeatureStore(str(folder))
    store.apply([symbol, view])
    store.write_to_online_store(PEER_VIEW, rows)
    return store


def milliseconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return 1e3 * (perf_counter() - started)


def in_turns(works: dict[str, Callable[[], float]]) -> dict[str, np.ndarray]:
    """Milliseconds of each call after a warm-up; in turns, so that a slow minute is everybody's."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(WARM_UP + CALLS):
        for name, work in works.items():
            taken[name].append(work())
    return {name: np.array(times[WARM_UP:]) for name, times in taken.items()}


def print_rows(taken: dict[str, np.ndarray], batch: int, peer: str) -> None:
    """A table's rows; the ratio is the median of the calls' own, each to the peer's beside it."""
    for name, times in taken.items():
        p50, p99 = np.percentile(times, [50, 99])
        ratio = np.median(times / taken[peer])
        print(f"| {name} | {batch} | {p50:.2f} | {p99:.2f} | {ratio:.2f} |", flush=True)


def start_peer(folder: Path, features: Sequence[str], windows: Windows, frozen: bool) -> None:
    """Make the peer's store in this process, ready for `peer_lookup`."""
    global peer_lookup
    store = stock_store(folder, features, windows)
    refs = [f"{PEER_VIEW}:{name}" for name in features]

    def lookup(symbols: Sequence[str]) -> dict[str, list]:
        rows = [{"symbol": symbol} for symbol in symbols]
        return store.get_online_features(features=refs, entity_rows=rows).to_dict()

    read = lookup(windows.symbols)
    for i, name in enumerate(features):
        np.testing.assert_array_equal(np.array(read[name], "float32"), windows.values[:, :, i])
    peer_lookup = lookup
    if frozen:
        freeze()


def peer_milliseconds(symbols: Sequence[str]) -> float:
    return milliseconds(partial(peer_lookup, symbols))


def freeze() -> None:
    gc.collect()
    gc.freeze()


def lookups(predictor: Predictor, windows: Windows, folder: Path) -> None:
    """Ours, step by step, and the peer's lookup of the same values.

    Args:
        windows: of the champion's features.
    """
    peer = f"stock Feast lookup, {len(predictor.model.features)} arrays"
    with ExitStack() as peers:
        pools = {}
        for name, frozen in ((peer, False), (f"{peer}, gc.freeze", True)):
            own = folder / f"peer{len(pools)}"
            own.mkdir()
            start = (own, predictor.model.features, windows, frozen)
            context = get_context("spawn")
            pools[name] = peers.enter_context(ProcessPoolExecutor(1, context, start_peer, start))
        freeze()
        print("| what | symbols | p50 ms | p99 ms | ratio |\n|---|---|---|---|---|")
        for batch in BATCHES:
            some, ready = windows.symbols[:batch], windows.values[:batch]
            works: dict[str, Callable[[], float]] = {
                name: lambda pool=pool, some=some: pool.submit(peer_milliseconds, some).result()
                for name, pool in pools.items()
            }
            ours = {
                "our lookup": partial(predictor.windows, some),
                "our forecast, lookup and model": partial(predictor.forecast, some),
                "the champion alone": partial(run_onnx, predictor.model.session, ready),
            }
            works |= {name: partial(milliseconds, work) for name, work in ours.items()}
            print_rows(in_turns(works), batch, peer)


def runtimes(run: Workspace, features: Sequence[str], values: np.ndarray, folder: Path) -> None:
    """One LSTM of the run's shape, untrained, in torch and exported: the same batches and threads."""
    import torch

    from training.models.export import export_onnx, parity
    from training.models.forecaster import Forecaster
    from training.models.lstm import LstmParams

    torch.manual_seed(0)
    model = Forecaster("lstm", features, values.shape[1], load_params(run, "lstm", LstmParams)).eval()
    tensors = torch.from_numpy(values)
    export_onnx(model, tensors[:2], folder / "model.onnx")

    def eager(batch: torch.Tensor) -> object:
        with torch.inference_mode():
            return model(batch)

    print("\n| what | windows | p50 ms | p99 ms | ratio |\n|---|---|---|---|---|")
    for threads in THREADS:
        torch.set_num_threads(threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        assert parity(model, session, tensors) < 1e-5
        peer = f"torch eager, {threads} threads"
        for batch in BATCHES:
            works = {
                peer: partial(eager, tensors[:batch]),
                f"onnxruntime, {threads} threads": partial(run_onnx, session, values[:batch]),
            }
            timed = {name: partial(milliseconds, work) for name, work in works.items()}
            print_rows(in_turns(timed), batch, peer)


def champion_windows(run: Workspace) -> tuple[Predictor, Windows]:
    """The champion of a finished run, and 500 symbols' windows of the features it wants."""
    champion = load_champion(run, load_params(run, "registry", RegistryParams))
    predictor = Predictor(champion, open_store(run))
    symbols = read_parquet(run.window_features, ["symbol"])["symbol"].unique()[: max(BATCHES)]
    windows = predictor.windows(symbols.tolist())
    served = predictor.store.get_feature_view(WINDOWS_VIEW).tags["features"].split(",")
    columns = [served.index(name) for name in champion.features]
    values = np.ascontiguousarray(windows.values[:, :, columns])
    return predictor, replace(windows, values=values)


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    run = Workspace(project.path(parser.parse_args().workspace))
    predictor, windows = champion_windows(run)
    with tempfile.TemporaryDirectory() as folder:
        lookups(predictor, windows, Path(folder))
        runtimes(run, predictor.model.features, windows.values, Path(folder))


if __name__ == "__main__":
    run_stage(main)
