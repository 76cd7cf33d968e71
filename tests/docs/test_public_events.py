"""`docs/public_events.md` and the list that the benchmark judges by are the same, and sound."""

import csv
import re
from datetime import date
from pathlib import Path

import pandas as pd

from pitwise.bars.calendar import is_session

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/public_events.md").read_text()
TRUTH = ROOT / "benchmarks/truth"
ROW = re.compile(r"^\| ([A-Z.]+) \| (\S+) \| `(\w+)` \| (\S+) \| (.+) \|$", re.MULTILINE)
KINDS = {"spin_off", "special_dividend", "split", "exchange"}


def listed(name: str) -> list[dict[str, str]]:
    with (TRUTH / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_shows_the_list():
    assert ROW.findall(PAGE) == [tuple(row.values()) for row in listed("public_events.csv")]


def test_each_event_is_of_a_session_and_named_once_and_takes_3_percent():
    events = listed("public_events.csv")
    assert is_session(pd.to_datetime(pd.Series([row["date"] for row in events]))).all()
    assert len({(row["symbol"], row["date"]) for row in events}) == len(events)
    assert {row["kind"] for row in events} == KINDS
    assert all(float(row["price_ratio"]) <= 0.97 for row in events if row["kind"] != "exchange")


def test_faults_of_the_second_vendor_are_of_its_years_and_name_prices():
    for row in listed("second_vendor_faults.csv"):
        assert date(2015, 1, 12) <= date.fromisoformat(row["date"]) <= date(2017, 12, 29)
        assert set(row["prices"].split()) <= {"open", "high", "low", "close", "adj_close"}
        assert row["reason"]
