"""The proof that two runs made the same data must not pass when they did not."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/compare_runs.py"
SCOPE = runpy.run_path(str(SCRIPT))


def table(values, created) -> pd.DataFrame:
    return pd.DataFrame({"close": values, "created_timestamp": pd.to_datetime(created, utc=True)})


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run, with a small file for each output."""
    for pattern in SCOPE["OUTPUTS"]:
        path = tmp_path / "run" / pattern.replace("*", "ann")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            table([1.0, 2.0, None], ["2024-01-02", "2024-01-02", "2024-01-09"]).to_parquet(path)
        else:
            path.write_bytes(b"bytes")
    return tmp_path / "run"


@pytest.fixture
def other(run) -> Path:
    return Path(shutil.copytree(run, run.with_name("other")))


def differing(run: Path, other: Path) -> list[str]:
    return [name for name, one, two in SCOPE["compare"](run, other) if one is None or one != two]


def test_a_copy_is_the_same(run, other):
    assert differing(run, other) == []


def test_the_instants_of_the_loads_may_differ_but_not_their_order(run, other):
    path = other / "data/features/daily.parquet"
    table([1.0, 2.0, None], ["2025-03-04", "2025-03-04", "2025-03-05"]).to_parquet(path)
    assert differing(run, other) == []
    table([1.0, 2.0, None], ["2025-03-04", "2025-03-03", "2025-03-05"]).to_parquet(path)
    assert differing(run, other) == ["data/features/daily.parquet"]


def test_every_column_of_instants_of_knowledge_is_free_of_the_clock(run, other):
    def versions(path: Path, *known: str) -> None:
        instants = dict.fromkeys(("known_at", "sealed_at"), pd.to_datetime(known, utc=True))
        pd.DataFrame({"close": [1.0, 2.0], **instants}).to_parquet(path)

    path = "data/bars/versions.parquet"
    versions(run / path, "2024-01-02", "2024-01-09")
    versions(other / path, "2025-03-04", "2025-03-05")
    assert differing(run, other) == []
    versions(other / path, "2025-03-05", "2025-03-04")
    assert differing(run, other) == [path]


@pytest.mark.parametrize("values", [[1.0, 2.0000000000000004, None], [1.0, 2.0, 0.0], [1, 2, 3]])
def test_a_value_that_differs_in_its_last_bit_is_found(run, other, values):
    created = ["2024-01-02", "2024-01-02", "2024-01-09"]
    table(values, created).to_parquet(other / "data/features/windows.parquet")
    assert differing(run, other) == ["data/features/windows.parquet"]


def test_a_byte_that_differs_is_found(run, other):
    (other / "models/ann/model.onnx").write_bytes(b"bytez")
    assert differing(run, other) == ["models/ann/model.onnx"]


def test_a_model_that_only_one_run_has_is_missing(run, other):
    extra = other / "models/lstm/model.onnx"
    extra.parent.mkdir()
    extra.write_bytes(b"bytes")
    assert differing(run, other) == differing(other, run) == ["models/lstm/model.onnx"]


def test_an_output_that_no_run_has_is_missing(run, other):
    for folder in (run, other):
        (folder / "data/dataset/rows.parquet").unlink()
    assert differing(run, other) == ["data/dataset/rows.parquet"]


@pytest.mark.component
def test_the_exit_code_is_1_where_something_differs(run, other):
    def compared() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, SCRIPT, run, other], capture_output=True, text=True)

    done = compared()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "16 of 16 outputs are the same")
    (other / "models/ann/learning_curve.csv").write_text("else")
    done = compared()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "15 of 16 outputs are the same")
    assert "differs" in done.stdout
