"""Windows a second through LSTM training, beside the floor that its operations set.

One fit on all cores, then a fit on each core, as several seeds or folds are made. The floor: every
window costs 2 x multiply-adds of the gates forward and twice that backward; the machine's speed is that
of torch's own matrix product, measured in the same run.
"""

import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Barrier

import torch
from market import PROJECT, clean_bars, seconds

from pitwise.evaluation.labels import labels
from pitwise.features.daily import daily_features
from pitwise.features.served import ServedWindows
from pitwise.features.windows import window_ends
from pitwise.stage import load_params
from training.models.fit import Loss, TrainParams, fit_scaling
from training.models.forecaster import Forecaster
from training.models.lstm import LstmParams
from training.models.windows import WindowDataset, batches
from training.select import SelectParams

WINDOW = 30
BATCH = 256
SIZES = (32, BATCH, 1024)
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


def times(size: int, threads: int, barrier: Barrier) -> list[float]:
    """Seconds that `WINDOWS` take, `ROUNDS` times, at one batch size.

    Args:
        barrier: of the fits that are made at once; their rounds begin together.
    """
    torch.set_num_threads(threads)
    rows = daily_features(clean_bars())
    rows["label"] = labels(rows, 1)["label"]
    names = load_params(PROJECT, "select", SelectParams).features
    params = load_params(PROJECT, "train", TrainParams)
    body = load_params(PROJECT, "lstm", LstmParams)
    values = rows[list(names)].to_numpy("float32")
    ends = window_ends(rows["symbol"].to_numpy(object), values, WINDOW)
    ends = ends[rows["label"].notna().to_numpy()[ends]]
    windows = ServedWindows(rows.assign(ends_window=True), rows[:0].assign(begins=False), names)
    dataset = WindowDataset(windows, rows, ends, WINDOW)
    model = Forecaster("lstm", names, WINDOW, body)
    fit_scaling(model, dataset)
    loss = Loss(params, dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=params.learning_rate, fused=True)
    measured = []
    for _ in range(ROUNDS):
        barrier.wait()
        start = time.perf_counter()
        for batch in itertools.islice(batches(dataset, size, shuffle=True), WINDOWS // size):
            value = loss(model, batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        measured.append(time.perf_counter() - start)
    return measured


def print_rate(name: str, fits: list[list[float]], floor: float) -> None:
    """
    Args:
        fits: `times` of each of the fits that were made at once.
    """
    got = [len(fits) * WINDOWS / max(together) for together in zip(*fits, strict=True)]
    rate = statistics.median(got)
    print(
        f"{name}: {rate:,.0f} windows/s, {rate / floor:.0%} of the floor (median of {ROUNDS}; "
        f"{min(got):,.0f} to {max(got):,.0f})",
        flush=True,
    )


if __name__ == "__main__":
    n_features = len(load_params(PROJECT, "select", SelectParams).features)
    flops = operations(n_features, load_params(PROJECT, "lstm", LstmParams))
    machine = peak()
    floor = machine / flops
    print(
        f"floor {floor:,.0f} windows/s: {flops / 1e6:.2f} MFLOP a window at {machine / 1e9:.0f} GFLOP/s"
    )
    cores, context = torch.get_num_threads(), get_context("spawn")
    # A process for each fit: a fit has one, and the memory freed by another size slows it.
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(cores, context, max_tasks_per_child=1) as pool,
    ):
        for size in SIZES:
            alone = pool.submit(times, size, cores, manager.Barrier(1)).result()
            print_rate(f"batch {size}", [alone], floor)
        beside = [BATCH] * cores, [1] * cores, [manager.Barrier(cores)] * cores
        print_rate(f"batch {BATCH}, {cores} fits on a core each", list(pool.map(times, *beside)), floor)
