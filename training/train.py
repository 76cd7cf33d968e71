"""Stage `train`: fit one model over all symbols and export it. `python -m training.train lstm`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, ServedWindows
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json
from training import KINDS
from training.recipes import recipe_of

if TYPE_CHECKING:
    from training.models.fit import Fit, TrainParams
    from training.models.inputs import KindParams
    from training.models.windows import WindowDataset

PARITY_WINDOWS = 512


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


def main(workspace: Workspace, kind: str) -> None:
    """Fit the model of one of `KINDS`."""
    from pitwise.registry.contract import open_onnx
    from training.models.export import export_onnx, parity
    from training.models.fit import TrainParams
    from training.models.forecaster import BODIES
    from training.models.windows import WindowDataset

    params = load_params(workspace, "train", TrainParams)
    body = load_params(workspace, kind, BODIES[kind][1])
    selected = read_json(workspace.selection_report)["features"]
    features = NAMES if body.inputs == "all" else selected
    dataset = read_json(workspace.dataset_report)
    window = dataset["window"]
    columns = [*KEYS, *features, *FACTORS, ENDS, "split", "label"]
    rows = read_parquet(workspace.dataset_rows, columns)
    windows = ServedWindows(rows, read_parquet(workspace.served_rows), features)
    rows = rows[["event_timestamp", "split", "label"]]

    def part(name: str) -> WindowDataset:
        return WindowDataset(windows, rows, np.flatnonzero(rows["split"] == name), window)

    train, validation = part("train"), part("validation")
    result = fitted(kind, features, body, params, train, validation, progress=sys.stderr.isatty())

    folder = workspace.models / kind
    path = folder / "model.onnx"
    examples = validation[list(range(min(PARITY_WINDOWS, len(validation))))].windows
    export_onnx(result.model, examples[:2], path)
    difference = parity(result.model, open_onnx(path), examples)
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
            "horizon": dataset["horizon"],
            "params": {**params.model_dump(), **body.model_dump(exclude={"seed"})},
            "parameters": sum(p.numel() for p in result.model.parameters()),
            "train_windows": len(train),
            "validation_windows": len(validation),
            "train_first_session": f"{sessions['train'].min():%Y-%m-%d}",
            "train_last_session": f"{sessions['train'].max():%Y-%m-%d}",
            "fitted_last_session": f"{sessions['validation'].max():%Y-%m-%d}",
            "best_validation_loss": result.validation_loss,
            "best_after_batches": result.kept,
            "batches": int(result.curve["batches"].iloc[-1]),
            "onnx_parity": difference,
            "onnx_sha256": sha256(path),
            "rows_sha256": sha256(workspace.dataset_rows),
            "served_sha256": sha256(workspace.served_rows),
        },
        folder / "training.json",
    )
    print(
        f"{kind}: {result.windows_per_second:,.0f} windows/s for {result.seconds:.0f} s, "
        f"validation loss {result.validation_loss:.4f} nats after {result.kept:,} batches, "
        f"ONNX differs by {difference:.1e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="which model to fit")
    run_stage(partial(main, kind=parser.parse_args().kind))
