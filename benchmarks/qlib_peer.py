"""Factors of many stocks from 2007 on: ours and Qlib's expression engine on the same made market.

    python -m venv peer && peer/bin/pip install pyqlib tables
    python -m benchmarks.qlib_peer peer/bin/python [--symbols 800] [--sets fourteen alpha158]

800 stocks from 2007 to 2020 and 14 factors are Qlib's own comparison. Its Alpha158 and our whole table
of features are beside it. Cold is a new process, from files to the table, without imports. Warm is the
same question again, in the same process, and in a new one where a cache on disk is on: E is that of
expressions, D that of data sets. Qlib locks them by Redis, whose own time is not counted. Ours is warm
from the Parquet file that stage `features` leaves. Times are seconds of the processor, those of children
included, on one worker. Both must agree to a hundredth of a factor's usual size: Qlib keeps single
precision, and a difference of two prices has few digits of it.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pitwise.bars.schema import COLUMNS
from pitwise.features.daily import daily_features
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.simulation.market import SyntheticParams, synthetic_market
from pitwise.workspace import read_parquet, write_parquet
from tests.support.servers import Redis, running

FACTORS = {
    "daily_return": "100 * ($close / Ref($close, 1) - 1)",
    "price_change": "$close - $open",
    "high_low_range": "$high - $low",
    "sma_5": "Mean($close, 5)",
    "sma_10": "Mean($close, 10)",
    "sma_20": "Mean($close, 20)",
    "momentum_5": "100 * ($close / Ref($close, 5) - 1)",
    "momentum_10": "100 * ($close / Ref($close, 10) - 1)",
    "momentum_20": "100 * ($close / Ref($close, 20) - 1)",
    "volatility_20": "Std(100 * ($close / Ref($close, 1) - 1), 20)",
    "volume_sma_20": "Mean($volume, 20)",
    "max_return_20": "Max(100 * ($close / Ref($close, 1) - 1), 20)",
    "overnight_return": "100 * ($open / Ref($close, 1) - 1)",
    "high_low_pct_20": "Mean(100 * ($high - $low) / $low, 20)",
}
"""The fourteen, by our names."""
T = TypeVar("T")
TOLERANCE = 1e-2
PEER = """
import json, resource, sys
import qlib
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D

def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

folder, which, fourteen, caches, port, out = sys.argv[1:]
qlib.init(
    provider_uri=folder, region="us", kernels=1, redis_host="127.0.0.1", redis_port=int(port),
    expression_cache="DiskExpressionCache" if "E" in caches else None,
    dataset_cache="DiskDatasetCache" if "D" in caches else None,
)
fields = json.loads(fourteen) if which == "fourteen" else Alpha158DL.get_feature_config()[0]
told = {"version": qlib.__version__, "columns": len(fields)}
for name in ("cold", "warm"):
    start = spent()
    table = D.features(D.instruments("all"), fields, freq="day")
    told[name] = spent() - start
told["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
table.iloc[:, :14].reset_index().to_parquet(out + ".parquet")
open(out, "w").write(json.dumps(told))
"""


def spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def processor(work: Callable[[], T]) -> tuple[float, T]:
    start = spent()
    made = work()
    return spent() - start, made


def market(symbols: int, sessions: int) -> pd.DataFrame:
    """Clean bars of a made market from 2007 on."""
    params = SyntheticParams(
        symbols=symbols, start=date(2007, 1, 3), sessions=sessions, seed=7, signal=0.0, faults={}
    )
    bars = synthetic_market(params).bars[COLUMNS]
    bars = bars.assign(price_factor=1.0, share_factor=1.0, segment=np.int32(0))
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def write_for_qlib(bars: pd.DataFrame, folder: Path) -> None:
    """Qlib's storage: a file a symbol and column, of the first session's number and the values."""
    days = pd.DatetimeIndex(sorted(bars["date"].unique()))
    for name in ("calendars", "instruments"):
        (folder / name).mkdir()
    (folder / "calendars/day.txt").write_text("".join(f"{day:%Y-%m-%d}\n" for day in days))
    lines = []
    for symbol, rows in bars.groupby("symbol"):
        place = folder / "features" / symbol.lower()
        place.mkdir(parents=True)
        at = days.get_indexer(rows["date"])
        lines.append(f"{symbol}\t{rows['date'].iloc[0]:%Y-%m-%d}\t{rows['date'].iloc[-1]:%Y-%m-%d}\n")
        of = {name: rows[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
        of |= {"vwap": (of["high"] + of["low"] + of["close"]) / 3, "factor": np.ones(len(rows))}
        for name, values in of.items():
            line = np.full(at[-1] - at[0] + 1, np.nan)
            line[at - at[0]] = values
            np.hstack([at[0], line]).astype("<f4").tofile(place / f"{name}.day.bin")
    (folder / "instruments/all.txt").write_text("".join(lines))


def peer(python: str, folder: Path, which: str, caches: str, port: int) -> tuple[dict, pd.DataFrame]:
    """What a new process of Qlib's took for the same question twice, and what it answered."""
    out = folder.parent / f"{which}.json"
    fields = json.dumps(list(FACTORS.values()))
    given = [str(folder), which, fields, caches, str(port), str(out)]
    subprocess.run([python, "-W", "ignore", "-c", PEER, *given], check=True)
    return json.loads(out.read_text()), pd.read_parquet(f"{out}.parquet")


def apart(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    """By factor, the largest difference where both have a value, in units of the factor's usual size."""
    theirs.columns = ["symbol", "date", *FACTORS]
    closes = ours["event_timestamp"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    mine = ours.assign(date=closes.dt.normalize())
    both = mine.merge(theirs, on=["symbol", "date"], suffixes=("", "_peer"))
    assert len(both) == len(ours)
    # Qlib's windows begin with the first bar; ours are missing until they are whole.
    size = {name: both[name].abs().median() for name in FACTORS}
    return {
        name: float((both[name] - both[f"{name}_peer"]).abs().max() / size[name]) for name in FACTORS
    }


def main(python: str, symbols: int, sessions: int, sets: list[str], caches: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name, running(Redis) as redis:
        folder = Path(name)
        bars = market(symbols, sessions)
        (folder / "qlib").mkdir()
        write_for_qlib(bars, folder / "qlib")
        write_parquet(bars, folder / "bars.parquet")
        print(f"{len(bars):,} bars of {symbols} symbols")
        cold, table = processor(lambda: daily_features(read_parquet(folder / "bars.parquet")))
        write_parquet(table, folder / "daily.parquet")
        table = table[[*KEYS, *FACTORS]]
        warm, _ = processor(lambda: read_parquet(folder / "daily.parquet", [*KEYS, *NAMES]))
        few, _ = processor(lambda: read_parquet(folder / "daily.parquet", list(table.columns)))
        print(
            f"ours, {len(NAMES)} columns: cold {cold:.2f} s, warm {warm:.2f} s, 14 of them {few:.2f} s"
        )
        for which in sets:
            for on in caches:
                for kept in folder.glob("qlib/*_cache"):
                    shutil.rmtree(kept)
                told, theirs = peer(python, folder / "qlib", which, on, redis.port)
                said = f"cold {told['cold']:.2f} s, warm {told['warm']:.2f} s"
                if on != "none":
                    told, theirs = peer(python, folder / "qlib", which, on, redis.port)
                    said += f", in a new process {told['cold']:.2f} s"
                print(
                    f"Qlib {told['version']}, {told['columns']} columns, caches {on}: {said}, "
                    f"{told['gib']:.1f} GiB",
                    flush=True,
                )
                if which == "fourteen":
                    differences = apart(table, theirs)
                    worst = max(differences, key=lambda factor: differences[factor])
                    print(f"at most apart, of a factor's usual size: {differences[worst]:.1e} ({worst})")
                    if differences[worst] > TOLERANCE:
                        sys.exit("error: the two do not agree")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python", help="of an environment with pyqlib")
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--sessions", type=int, default=3272)
    parser.add_argument("--sets", nargs="+", default=["fourteen", "alpha158"])
    parser.add_argument("--caches", nargs="+", default=["none", "E", "ED"], choices=["none", "E", "ED"])
    given = parser.parse_args()
    main(given.python, given.symbols, given.sessions, given.sets, given.caches)
