"""Compare the data that two finished runs made: `python scripts/compare_runs.py RUN OTHER`.

Each is a workspace's folder. For every output of bars, events, features, windows, rows, models and
forecasts it prints the SHA-256 in both; the exit code is 1 if one differs or is missing.

From when something was known may be the instant of a load, by the clock of the run. In tables that have
such a column its instants are counted instead (the earliest is 1), and the hash is of the table's
values; of every other output it is of the file's bytes.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

CLOCKS = ("created_timestamp", "known_at", "sealed_at")
OUTPUTS = (
    "data/bars/versions.parquet",
    "data/bars/factors.parquet",
    "data/bars/seals.parquet",
    "data/clean/bars.parquet",
    "data/clean/events.parquet",
    "data/clean/quarantine.parquet",
    "data/quality/flags.parquet",
    "data/features/daily.parquet",
    "data/features/revisions.parquet",
    "data/features/windows.parquet",
    "data/dataset/rows.parquet",
    "data/dataset/served.parquet",
    "models/*/model.onnx",
    "models/*/learning_curve.csv",
    "data/evaluation/predictions.parquet",
    "data/predictions/latest.parquet",
)


def outputs(*runs: Path) -> list[str]:
    """What to compare, relative to a run: a pattern stands for all that either run has of it."""
    names: list[str] = []
    for pattern in OUTPUTS:
        found = {str(path.relative_to(run)) for run in runs for path in run.glob(pattern)}
        names += sorted(found) or [pattern]
    return names


def digest(path: Path) -> str | None:
    """SHA-256 of an output, free of the run's clock; None if it is not there."""
    if not path.is_file():
        return None
    if path.suffix == ".parquet" and not set(CLOCKS).isdisjoint(pq.read_schema(path).names):
        return hashlib.sha256(_without_clock(pq.read_table(path))).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_clock(table: pa.Table) -> memoryview:
    """The table in Arrow's own format, with the number of the load in place of its instant."""
    for clock in set(CLOCKS) & set(table.column_names):
        counted = pc.rank(table[clock], "ascending", tiebreaker="dense")
        table = table.set_column(table.schema.get_field_index(clock), clock, counted)
    table = table.replace_schema_metadata().combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return memoryview(sink.getvalue())


def compare(run: Path, other: Path) -> list[tuple[str, str | None, str | None]]:
    """Name and both digests of each output, each None where the run lacks it."""
    return [(name, digest(run / name), digest(other / name)) for name in outputs(run, other)]


def verdict(one: str | None, other: str | None) -> str:
    if one is None or other is None:
        return "missing"
    return "same" if one == other else "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("other", type=Path, help="folder of another one")
    arguments = parser.parse_args()
    table = Table("output", "SHA-256 of the first", "SHA-256 of the second", "")
    verdicts = []
    for name, one, other in compare(arguments.run, arguments.other):
        verdicts.append(verdict(one, other))
        again = "=" if verdicts[-1] == "same" else other or "-"
        table.add_row(name, one or "-", again, verdicts[-1])
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)
    same = verdicts.count("same")
    print(f"{same} of {len(verdicts)} outputs are the same")
    sys.exit(same != len(verdicts))


if __name__ == "__main__":
    main()
