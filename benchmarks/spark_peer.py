"""The functions of stages `clean` and `features` by one process, by two, by Ray and by Spark.

    pip install pyspark            # beside pitwise[ray]; Java 17 or newer
    python benchmarks/spark_peer.py WORKSPACE [--workers 2]

WORKSPACE is a finished run, such as runs/csv, or what `python benchmarks/growth.py` leaves of a made
market in runs/benchmark. Each computes the same two functions of the same two files, and writes what
comes out: of raw bars those that are clean, with the market's table, and of clean bars the daily
features. A task is a shard of about 250,000 bars; Spark's `applyInPandas` is given the bars once by
symbol, as its documentation has it, and once by shard. What they write must be equal to the bit. Times
are of a new process, imports and Spark's or Ray's start included: seconds of the processor, of all
processes together, and seconds on the clock.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pitwise.bars.schema import BAR_KEY
from pitwise.bars.versions import read_versions
from pitwise.cleaning.as_of import judged_bars
from pitwise.cleaning.clean import CleanParams, cleaned_or_nothing
from pitwise.cleaning.cross_section import read_cross_section
from pitwise.engine import EngineParams, run
from pitwise.features.daily import daily_features
from pitwise.shards import Range, read_range, symbol_ranges
from pitwise.stage import load_params
from pitwise.workspace import Workspace, write_parquet

RUNNERS = ("one process", "local", "ray", "spark, by symbol", "spark, by shard")
FUNCTIONS = ("clean", "features")
SHARD_ROWS = 250_000
SUBREAPER = 36
"""Linux's PR_SET_CHILD_SUBREAPER: processes whose parent has gone become ours, and their time counts."""


def function(name: str, root: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Of bars of whole symbols."""
    if name == "features":
        return daily_features
    workspace = Workspace(root)
    params = load_params(workspace, "clean", CleanParams)
    market = read_cross_section(workspace) if params.verdicts == "all" else None
    return lambda raw: cleaned_or_nothing(raw, params, market=market).bars


def shard(name: str, root: str, bars: Path, out: Path, symbols: Range) -> None:
    made = function(name, root)(read_range(bars, symbols).reset_index(drop=True))
    write_parquet(made, out / f"{symbols[0] or 'first'}.parquet")


def by_engine(engine: EngineParams, name: str, root: str, bars: Path, out: Path) -> None:
    out.mkdir()
    for _ in run(engine, partial(shard, name, root, bars, out), symbol_ranges(bars, SHARD_ROWS)):
        pass


def by_spark(workers: int, of_shards: bool, name: str, root: str, bars: Path, out: Path) -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as sql
    from pyspark.sql.pandas.types import from_arrow_schema

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "3g",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": 2 * workers,
        "spark.ui.enabled": "false",
    }
    spark = SparkSession.builder.master(f"local[{workers}]").config(map=settings).getOrCreate()
    first = read_range(bars, symbol_ranges(bars, 1)[0])
    computed = function(name, root)  # goes to the workers with the market's table
    wanted = pa.Table.from_pandas(computed(first), preserve_index=False).schema
    types = first.dtypes

    def made(rows: pd.DataFrame) -> pd.DataFrame:
        # Spark's instants have no zone, its rows no order, and its texts are objects.
        for column, kind in types.items():
            instants = isinstance(kind, pd.DatetimeTZDtype)
            rows[column] = (rows[column].dt.tz_localize("UTC") if instants else rows[column]).astype(
                kind
            )
        rows = rows[list(types.index)].sort_values(BAR_KEY, ignore_index=True)
        return computed(rows)

    table = spark.read.parquet(str(bars))
    if of_shards:
        starts = [start for start, _ in symbol_ranges(bars, SHARD_ROWS) if start]
        number = sum((sql.col("symbol") >= start).cast("int") for start in starts)
        groups = table.groupBy(number if starts else sql.lit(0))
    else:
        groups = table.groupBy("symbol")
    groups.applyInPandas(made, from_arrow_schema(wanted)).write.parquet(str(out))
    spark.stop()


def result(out: Path) -> pd.DataFrame:
    """What was written, in order."""
    table = pq.read_table(sorted(out.glob("*.parquet")))
    rows = table.replace_schema_metadata().to_pandas()
    when = "date" if "date" in rows else "event_timestamp"
    return rows.sort_values(["symbol", when], ignore_index=True)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of the processor, of the process and of all that it started, and on the clock."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, start = spent(), time.perf_counter()
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}\n{done.stderr[-3000:]}")
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return spent() - before, taken


def compute(runner: str, name: str, workers: int, root: str, bars: Path, out: Path) -> None:
    if runner.startswith("spark"):
        by_spark(workers, runner.endswith("shard"), name, root, bars, out)
        return
    kind = "ray" if runner == "ray" else "local"
    n_jobs = 1 if runner == "one process" else workers
    by_engine(EngineParams(kind=kind, n_jobs=n_jobs, address=None), name, root, bars, out)


def main(root: str, workers: int, runners: list[str]) -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    workspace = Workspace(root)
    with tempfile.TemporaryDirectory(prefix="pitwise-peer-") as temporary:
        folder = Path(temporary)
        raw = judged_bars(read_versions(workspace)).sort_values(BAR_KEY, ignore_index=True)
        inputs = {"clean": folder / "raw.parquet", "features": workspace.clean_bars}
        write_parquet(raw, inputs["clean"])
        print(f"{len(raw):,} bars of {raw['symbol'].nunique():,} symbols, {workers} workers")
        print("| function | computed by | processor | elapsed |\n|---|---|---|---|", flush=True)
        for name in FUNCTIONS:
            expected = None
            for number, runner in enumerate(runners):
                out = folder / f"{name}{number}"
                command = [sys.executable, "-W", "ignore", __file__, root, "--workers", str(workers)]
                command += ["--compute", runner, name, str(inputs[name]), str(out)]
                processor, elapsed = measured(command)
                # Ray's daemon does not collect its workers, so that their time is lost.
                spent = "not counted" if runner == "ray" else f"{processor:.1f} s"
                print(f"| `{name}` | {runner} | {spent} | {elapsed:.1f} s |", flush=True)
                made = result(out)
                expected = made if expected is None else expected
                pd.testing.assert_frame_equal(made, expected, check_exact=True, check_dtype=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runners", nargs="+", default=list(RUNNERS), choices=RUNNERS)
    parser.add_argument("--compute", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compute:
        runner, name, bars, out = given.compute
        compute(runner, name, given.workers, given.workspace, Path(bars), Path(out))
    else:
        main(given.workspace, given.workers, given.runners)
