"""Stage `train`: fit one model over all symbols and export it. `python -m training.train lstm`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pitwise.engine import engine_of, has_cluster_gpu, run
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, ServedWindows
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json
from training import KINDS, NETS
from training.recipes import recipe_of

if TYPE_CHECKING:
    from training.models.fit import Fit, TrainParams
    from training.models.forecaster import Forecaster
    from training.models.inputs import KindParams
    from training.models.windows import WindowDataset

PARITY_WINDOWS = 512
"""On which ONNX is held against torch."""


def fitted(
    kind: str,
    features: Sequence[str],
    body: "KindParams",
    params: "TrainParams",
    train: "WindowDataset",
    validation: "WindowDataset",
    progress: bool = False,
) -> "Fit":
    """A new model of one of `KINDS`, fitted; the same seed gives the same weights on a CPU.

    Args:
        features: of the windows, in their order.
        body: the kind's own section of `params.yaml`.
    """
    from training.models.fit import fit
    from training.models.forecaster import Forecaster

    build = partial(Forecaster, kind, features, train.length, body)
    return fit(build, train, validation, params, progress)


def export(
    models: "Sequence[Forecaster]",
    features: list[str],
    windows: ServedWindows,
    ends: np.ndarray,
    length: int,
    path: Path,
) -> float:
    """Write one model, or the mean of several seeds', see `models.ensemble`; what ONNX differs by.

    Args:
        windows: of the features.
        ends: positions of the rows at which windows of the validation dates end.
    """
    import torch

    from pitwise.registry.contract import open_onnx
    from training.models.ensemble import Member, write_ensemble
    from training.models.export import export_onnx, parity

    examples = torch.from_numpy(windows.gather(ends[:PARITY_WINDOWS], length))

    def written(model: "Forecaster", file: Path) -> float:
        export_onnx(model, examples[:2], file)
        return parity(model, open_onnx(file), examples)

    if len(models) == 1:
        return written(models[0], path)
    with tempfile.TemporaryDirectory() as folder:
        members = [Member(f"seed_{i}", Path(folder) / f"{i}.onnx", features) for i in range(len(models))]
        differences = [written(model, of.file) for model, of in zip(models, members, strict=True)]
        mean = write_ensemble(members, features, windows, ends, length, path)
    return float(np.max([mean, *differences]))  # which a NaN passes through


class Given(NamedTuple):
    """What a kind is fitted on."""

    features: list[str]
    length: int
    """Sessions in a window."""
    windows: ServedWindows
    rows: pd.DataFrame
    """`event_timestamp`, `split`, `label`."""
    train: "WindowDataset"
    validation: "WindowDataset"


def given(workspace: Workspace, inputs: str) -> Given:
    """
    Args:
        inputs: the key of that name in the kind's own section.
    """
    from training.models.windows import WindowDataset

    selected = read_json(workspace.selection_report)["features"]
    features = NAMES if inputs == "all" else selected
    length = read_json(workspace.dataset_report)["window"]
    columns = [*KEYS, *features, *FACTORS, ENDS, "split", "label"]
    rows = read_parquet(workspace.dataset_rows, columns)
    windows = ServedWindows(rows, read_parquet(workspace.served_rows), features)
    rows = rows[["event_timestamp", "split", "label"]]
    train, validation = (
        WindowDataset(windows, rows, np.flatnonzero(rows["split"] == name), length)
        for name in ("train", "validation")
    )
    return Given(features, length, windows, rows, train, validation)


def fit_seed(root: str, kind: str, seed: int, progress: bool = False) -> "Fit":
    """Fit a kind with one seed. It reads what it needs, so that it may run in another process.

    Args:
        root: the workspace's folder.
    """
    from training.models.fit import TrainParams
    from training.models.forecaster import BODIES

    workspace = Workspace(root)
    params = load_params(workspace, "train", TrainParams).model_copy(update={"seed": seed})
    body = load_params(workspace, kind, BODIES[kind][1])
    on = given(workspace, body.inputs)
    return fitted(kind, on.features, body, params, on.train, on.validation, progress)


def main(workspace: Workspace, kind: str) -> None:
    """Fit the model of one of `KINDS`; several seeds side by side, each on one core or GPU."""
    from training.models.fit import TrainParams
    from training.models.forecaster import BODIES

    params = load_params(workspace, "train", TrainParams)
    body = load_params(workspace, kind, BODIES[kind][1])
    root, seeds = str(workspace.root), [params.seed + i for i in range(body.seeds)]
    engine, on_gpu = engine_of(workspace), kind in NETS
    clock = time.perf_counter()
    if len(seeds) == 1 and not (on_gpu and has_cluster_gpu(engine)):  # has all cores
        results = [fit_seed(root, kind, params.seed, progress=sys.stderr.isatty())]
    else:
        fit = partial(fit_seed, root, kind)
        results = list(run(engine, fit, seeds, ordered=True, on_gpu=lambda _: on_gpu))
    seconds = time.perf_counter() - clock
    result = results[0]
    loss = float(np.mean([one.validation_loss for one in results]))
    features, window, windows, rows, train, validation = given(workspace, body.inputs)

    folder = workspace.models / kind
    path = folder / "model.onnx"
    models = [one.model for one in results]
    difference = export(models, features, windows, validation.ends, window, path)
    result.curve.to_csv(folder / "learning_curve.csv", index=False)
    sessions = {
        split: rows.loc[rows["split"] == split, "event_timestamp"] for split in ("train", "validation")
    }
    write_json(
        {
            "kind": kind,
            "recipe": recipe_of(workspace, kind),
            "features": features,
            "window": window,
            "horizon": read_json(workspace.dataset_report)["horizon"],
            "params": {**params.model_dump(), **body.model_dump(exclude={"seed"})},
            "parameters": sum(p.numel() for model in models for p in model.parameters()),
            "train_windows": len(train),
            "validation_windows": len(validation),
            "train_first_session": f"{sessions['train'].min():%Y-%m-%d}",
            "train_last_session": f"{sessions['train'].max():%Y-%m-%d}",
            "fitted_last_session": f"{sessions['validation'].max():%Y-%m-%d}",
            "best_validation_loss": loss,
            "best_after_batches": result.kept,
            "batches": int(result.curve["batches"].iloc[-1]),
            "onnx_parity": difference,
            "onnx_sha256": sha256(path),
            "rows_sha256": sha256(workspace.dataset_rows),
            "served_sha256": sha256(workspace.served_rows),
        },
        folder / "training.json",
    )
    seen = sum(one.windows_per_second * one.seconds for one in results)
    print(
        f"{kind}: {seen / seconds:,.0f} windows/s for {seconds:.0f} s, "
        f"validation loss {loss:.4f} nats after {result.kept:,} batches, "
        f"ONNX differs by {difference:.1e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="which model to fit")
    run_stage(partial(main, kind=parser.parse_args().kind))
