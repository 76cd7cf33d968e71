"""Stage `train`: fit one model over all symbols and export it. `python -m training.train lstm`."""

import argparse
import sys

import numpy as np

from feature_repo.artifacts import (
    DATASET_REPORT,
    MODELS,
    ROWS,
    SELECTION_REPORT,
    read_json,
    read_parquet,
    sha256,
    write_json,
)
from feature_repo.stage import load_params, run_stage
from training import KINDS

PARITY_WINDOWS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="which model to fit")
    kind = parser.parse_args().kind

    import pytorch_lightning as pl

    from feature_repo.model import open_onnx
    from training.export import export_onnx, parity
    from training.fit import TrainParams, fit
    from training.models import BODIES, Forecaster
    from training.windows import WindowDataset

    params = load_params("train", TrainParams)
    body = load_params(kind, BODIES[kind][1])
    features = read_json(SELECTION_REPORT)["features"]
    window = read_json(DATASET_REPORT)["window"]
    rows = read_parquet(ROWS, columns=["event_timestamp", *features, "split", "label"])

    def part(name: str) -> WindowDataset:
        return WindowDataset(rows, np.flatnonzero(rows["split"] == name), features, window)

    train, validation = part("train"), part("validation")
    pl.seed_everything(params.seed, verbose=False)
    model = Forecaster(kind, features, window, body)
    result = fit(model, train, validation, params, progress=sys.stderr.isatty())

    folder = MODELS / kind
    path = folder / "model.onnx"
    windows, _ = validation[list(range(min(PARITY_WINDOWS, len(validation))))]
    export_onnx(result.model, windows[:2], path)
    difference = parity(result.model, open_onnx(path), windows)
    best = result.curve.loc[result.curve["validation_loss"].idxmin()]
    result.curve.to_csv(folder / "learning_curve.csv", index=False)
    sessions = {
        split: rows.loc[rows["split"] == split, "event_timestamp"] for split in ("train", "validation")
    }
    write_json(
        {
            "kind": kind,
            "features": features,
            "window": window,
            "params": {**params.model_dump(), **body.model_dump()},
            "parameters": sum(p.numel() for p in model.parameters()),
            "train_windows": len(train),
            "validation_windows": len(validation),
            "train_first_session": f"{sessions['train'].min():%Y-%m-%d}",
            "train_last_session": f"{sessions['train'].max():%Y-%m-%d}",
            "fitted_last_session": f"{sessions['validation'].max():%Y-%m-%d}",
            "best_validation_loss": float(best["validation_loss"]),
            "best_after_batches": int(best["batches"]),
            "batches": int(result.curve["batches"].iloc[-1]),
            "onnx_parity": difference,
            "onnx_sha256": sha256(path),
            "rows_sha256": sha256(ROWS),
        },
        folder / "training.json",
    )
    print(
        f"{kind}: {result.windows_per_second:,.0f} windows/s for {result.seconds:.0f} s, "
        f"best validation loss {best['validation_loss']:.4f} after {best['batches']:,.0f} batches, "
        f"ONNX differs by {difference:.1e}"
    )


if __name__ == "__main__":
    run_stage(main)
