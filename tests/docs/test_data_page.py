"""`docs/data.md` and `scripts/cut_sp500.py`: anyone gets the data that the README's figures stand on."""

import gzip
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import bokeh_sampledata
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/cut_sp500.py"
PAGE = (ROOT / "docs/data.md").read_text()
CUT = runpy.run_path(str(SCRIPT))
HEAD = "date,open,high,low,close,volume,Name\n"
MARKET = os.environ.get("PITWISE_SP500_CSV")
wants_the_market = pytest.mark.skipif(not MARKET, reason="PITWISE_SP500_CSV names no S&P 500 file")


def run_script(*arguments: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


def test_cut_keeps_the_sessions_and_writes_each_number_one_way():
    original = HEAD + (
        "2013-12-31,1,1,1,1,1,A\n"
        "2014-01-02,37,38.50,36.0,37.25,100,A\n"
        "2017-12-29,,,,69.0842,3,A\n"
        "2018-01-02,1,1,1,1,1,A\n"
        "2014-01-02,1,2,0.5,1.5,7,AAP\n"
    )
    assert CUT["cut"](original) == (
        "symbol,date,open,high,low,close,volume\n"
        "A,2014-01-02,37.0,38.5,36.0,37.25,100\n"
        "A,2017-12-29,,,,69.0842,3\n"
        "AAP,2014-01-02,1.0,2.0,0.5,1.5,7\n"
    )


@pytest.mark.component
def test_another_original_is_refused_and_nothing_is_written(tmp_path):
    original, target = tmp_path / "original.csv", tmp_path / "cut.csv.gz"
    original.write_text(HEAD + "2014-01-02,1,2,0.5,1.5,7,A\n")
    done = run_script(original, target)
    assert done.returncode == 1
    assert CUT["SHA256"] in done.stderr
    assert not target.exists()


@pytest.mark.component
@pytest.mark.parametrize("content", ["date,open\n2014-01-02,1\n", HEAD + "2014-01-02,x,2,1,1,7,A\n"])
def test_what_cannot_be_read_is_one_message(tmp_path, content):
    original = tmp_path / "original.csv"
    original.write_text(content)
    done = run_script(original, tmp_path / "cut.csv.gz")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {original}: ")


@wants_the_market
@pytest.mark.component
def test_cut_of_an_original_is_the_s_and_p_500_file(tmp_path):
    """The original is made of the cut: its rows in the original's columns, and others around them."""
    rows = gzip.decompress(Path(MARKET).read_bytes()).decode().splitlines()[1:]
    moved = (line.split(",") for line in rows)
    lines = [",".join([*rest, symbol]) for symbol, *rest in moved]
    outside = [f"{day},1.5,2,1,1.5,100,ZZZ" for day in ("2013-02-08", "2014-01-01", "2018-02-07")]
    original, target = tmp_path / "all_stocks_5yr.csv", tmp_path / "cut.csv.gz"
    original.write_text(HEAD + "\n".join([outside[0], *lines, *outside[1:]]) + "\n")
    done = run_script(original, target)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(gzip.decompress(target.read_bytes())).hexdigest() == CUT["SHA256"]
    assert done.stdout == f"{target}: {len(rows):,} rows\n"


def test_page_names_the_hashes_of_the_data_there_is():
    sample = (Path(bokeh_sampledata.__file__).parent / "_data/stocks.csv.gz").read_bytes()
    assert hashlib.sha256(sample).hexdigest() in PAGE
    assert CUT["SHA256"] in PAGE


@wants_the_market
def test_the_market_is_the_one_that_the_page_describes():
    market = Path(MARKET).read_bytes()
    assert hashlib.sha256(gzip.decompress(market)).hexdigest() == CUT["SHA256"]
