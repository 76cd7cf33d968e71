"""Windows a second through LSTM training, beside the floor that its operations set.

The floor: every window costs 2 x multiply-adds of the gates forward and twice that backward; the
machine's speed is that of torch's own matrix product, measured in the same run.
"""

import itertools
import logging
import statistics
import warnings

import pytorch_lightning as pl
import torch
from market import clean_bars, seconds

from feature_repo.features import daily_features
from feature_repo.stage import load_params
from feature_repo.windows import window_ends
from training.dataset import labels
from training.fit import Training, TrainParams, fit_scaling
from training.models import Forecaster, LstmParams
from training.select import SelectParams
from training.windows import WindowDataset, batches

WINDOW = 30
SIZES = (32, 256, 1024)
ROUNDS = 9
WINDOWS = 30 * 1024


def operations(n_features: int, params: LstmParams) -> int:
    """Floating-point operations of one window, forward and backward."""
    sizes = [n_features, *params.hidden]
    gates = sum(4 * h * (x + h) for x, h in itertools.pairwise(sizes))
    return 3 * 2 * gates * WINDOW


def peak() -> float:
    a = torch.rand(2048, 2048)
    times = [seconds(lambda: a @ a) for _ in range(12)][2:]
    return 2 * 2048**3 / statistics.median(times)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    bars = clean_bars()
    rows = daily_features(bars)
    rows["label"] = labels(rows)["label"]
    names = load_params("select", SelectParams).features
    params, body = load_params("train", TrainParams), load_params("lstm", LstmParams)
    values = rows[list(names)].to_numpy("float32")
    ends = window_ends(rows["symbol"].to_numpy(object), values, WINDOW)
    ends = ends[rows["label"].notna().to_numpy()[ends]]
    dataset = WindowDataset(rows, ends, names, WINDOW)
    model = Forecaster("lstm", names, WINDOW, body)
    fit_scaling(model, dataset)
    flops = operations(len(names), body)
    rates, machine = {size: [] for size in SIZES}, []
    for size in SIZES * ROUNDS:  # rounds, so that a slow minute of the machine meets every size
        clock = pl.callbacks.Timer()
        trainer = pl.Trainer(
            max_steps=WINDOWS // size,
            accelerator="cpu",
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Training(model, params), batches(dataset, size, shuffle=True))
        rates[size].append(WINDOWS / clock.time_elapsed("train"))
        machine.append(peak())
    floor = statistics.median(machine) / flops
    print(
        f"floor {floor:,.0f} windows/s: {flops / 1e6:.2f} MFLOP a window at "
        f"{statistics.median(machine) / 1e9:.0f} GFLOP/s (median)"
    )
    for size in SIZES:
        rate = statistics.median(rates[size])
        print(
            f"batch {size}: {rate:,.0f} windows/s, {rate / floor:.0%} of the floor (median of {ROUNDS}; "
            f"{min(rates[size]):,.0f} to {max(rates[size]):,.0f})"
        )
