import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from support.markets import synthetic_params
from support.project import PROJECT, with_params

from pitwise import ingest
from pitwise.errors import DataError, ParamsError
from pitwise.ingest import IngestParams
from pitwise.simulation.market import synthetic_market
from pitwise.workspace import Workspace, read_parquet

HEADER = "symbol,date,open,high,low,close,volume\n"
ROW = "AAPL,2014-01-02,10,12,9,11,100\n"


def new_workspace(folder: Path, source: str, path: str, **more: str) -> Workspace:
    return with_params(folder, ingest={"source": source, "path": path, **more})


@pytest.mark.parametrize(
    ("content", "path", "more", "named"),
    [
        (HEADER + ROW + ROW.replace("11", "eleven"), "bars.csv", {}, "bars.csv: row 3, column 'close'"),
        (HEADER + ROW, "bars.csv.gz", {}, "bars.csv.gz: cannot be read"),
        (HEADER + ROW, "bars.csv", {"pth": "x"}, "ingest.pth"),
    ],
)
@pytest.mark.component
def test_the_stage_fails_with_one_line_and_writes_nothing(tmp_path, content, path, more, named):
    (tmp_path / path).write_text(content)
    new_workspace(tmp_path, "csv", path, **more)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-m", "pitwise.ingest"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(PROJECT.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}/")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted([path, "params.yaml"])


def test_the_stage_writes_the_bars_and_a_failure_later_leaves_them(tmp_path, capsys):
    (tmp_path / "bars.csv").write_text(HEADER + ROW)
    workspace = new_workspace(tmp_path, "csv", "bars.csv")
    ingest.main(workspace)
    assert capsys.readouterr() == ("1 rows of 1 symbols from csv\n", "")
    assert pd.read_parquet(workspace.raw_bars)["symbol"].tolist() == ["AAPL"]
    before = workspace.raw_bars.read_bytes()
    with pytest.raises(DataError, match=f"{tmp_path}/absent.csv: there is no such file"):
        ingest.main(new_workspace(tmp_path, "csv", "absent.csv"))
    assert workspace.raw_bars.read_bytes() == before
    files = sorted(p.name for p in workspace.raw_bars.parent.iterdir())
    assert files == ["bars.parquet", "retrievals.jsonl"]


def test_each_run_that_succeeds_logs_what_it_retrieved_when_and_from_where(tmp_path):
    def raw_hash() -> str:
        return hashlib.sha256(workspace.raw_bars.read_bytes()).hexdigest()

    (tmp_path / "bars.csv").write_text(HEADER + ROW)
    started = datetime.now(UTC)
    workspace = new_workspace(tmp_path, "csv", "bars.csv")
    ingest.main(workspace)
    first = raw_hash()
    with pytest.raises(DataError):
        ingest.main(new_workspace(tmp_path, "csv", "absent.csv"))
    with pytest.raises(ParamsError):
        ingest.main(new_workspace(tmp_path, "csv", "bars.csv", pth="x"))
    (tmp_path / "bars.csv").write_text(HEADER + ROW + ROW.replace("AAPL", "MSFT"))
    ingest.main(new_workspace(tmp_path, "csv", "bars.csv"))
    second = raw_hash()

    records = [json.loads(line) for line in workspace.retrievals.read_text().splitlines()]
    times = [datetime.fromisoformat(record.pop("retrieved_at")) for record in records]
    assert started <= times[0] < times[1] <= datetime.now(UTC)
    assert records == [
        {"source": "csv", "path": "bars.csv", "rows": 1, "symbols": 1, "sha256": first},
        {"source": "csv", "path": "bars.csv", "rows": 2, "symbols": 2, "sha256": second},
    ]
    assert first != second


def test_a_run_of_a_built_in_source_logs_no_path(tmp_path):
    workspace = new_workspace(tmp_path, "sample", "prices")
    ingest.main(workspace)
    (line,) = workspace.retrievals.read_text().splitlines()
    record = json.loads(line)
    found = (record["source"], record["path"], record["rows"], record["symbols"])
    assert found == ("sample", None, 12_154, 5)


def test_an_absolute_path_is_read_where_it_is(tmp_path):
    (tmp_path / "bars.csv").write_text(HEADER + ROW)
    (tmp_path / "workspace").mkdir()
    workspace = new_workspace(tmp_path / "workspace", "csv", str(tmp_path / "bars.csv"))
    ingest.main(workspace)
    assert len(pd.read_parquet(workspace.raw_bars)) == 1


def test_the_truth_of_the_synthetic_source_is_saved_beside_its_bars(tmp_path):
    params = synthetic_params(symbols=3, sessions=200, faults={"split": 2})
    workspace = with_params(tmp_path, synthetic=params.model_dump(mode="json"))
    bars = ingest.retrieved(workspace, IngestParams(source="synthetic", path="prices"))
    market = synthetic_market(params)
    pd.testing.assert_frame_equal(bars, market.bars)
    pd.testing.assert_frame_equal(read_parquet(workspace.planted_truth), market.truth, check_dtype=False)
