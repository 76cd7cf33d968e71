"""The tear sheet of a made track: what stands on it, and that it needs nothing but itself."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.report_pages import Reader

from pitwise.reports.inline import number
from pitwise.reports.tear_sheet import TearSheet, between, months, tear_sheet, verdict

N = 60
DAYS = pd.bdate_range("2016-01-04", periods=N)
EVIL = "<b>x</b>"


def stated(value, low=None, high=None):
    return {"value": value, "ci95": None if low is None else [low, high]}


def portfolio(over=None):
    names = ["annual_return", "volatility", "sharpe", "sortino", "calmar", "max_drawdown", "hit_rate"]
    names += ["turnover", "cost_bp", "exposure", "break_even_bp", "psr", "dsr"]
    found = {name: stated(0.5, 0.25, 0.75) for name in names}
    if over is not None:
        found["return_over_equal_weight"] = stated(*over)
    return found


@pytest.fixture(scope="module")
def sheet():
    rng = np.random.default_rng(7)
    returns = pd.DataFrame(rng.normal(0, 0.01, (N, 2)), index=DAYS, columns=["ours", "equal"])
    equity = (1 + returns).cumprod()
    setup = {
        "kind": EVIL,
        "k": 5,
        "trade_at": "open",
        "capital": 1e7,
        "n_sessions": N,
        "first_session": "2016-01-04",
        "last_session": "2016-03-25",
        "random_signals": 100,
        "trials": 12,
        "trials_on_record": 5,
        "expected_max_sharpe": 1.5,
        "costs": {"commission_bp": 0.5, "half_spread_bp": 2.0, "impact": 0.5, "borrow_bp": 50.0},
    }
    document = {
        "top": portfolio((-0.02, -0.1, 0.06)),
        "equal_weight": portfolio(),
        "setup": setup,
    }
    falls = {"depth": [-0.1], "peak": [pd.NaT], "trough": [DAYS[9]], "recovered": [pd.NaT]}
    return TearSheet(
        name="top",
        document=document,
        equity=equity.assign(before_costs=equity["ours"] * 1.01, low=0.9, high=1.1),
        drawdown=equity / equity.cummax() - 1,
        falls=pd.DataFrame(falls | {"sessions": [N]}),
        rolling=15,
        sharpe=returns.rolling(15).mean().dropna(),
        monthly=(1 + returns).groupby(DAYS.to_period("M")).prod() - 1,
        annual=(1 + returns).groupby(DAYS.to_period("Y")).prod() - 1,
        rank_ic=returns[["ours"]].set_axis([EVIL], axis=1),
        quantiles=pd.DataFrame({"mean": [-1e-4, 1e-4], "low": -2e-4, "high": 2e-4}, index=[1, 2]),
        spread=returns["ours"],
        activity=pd.DataFrame({"traded": 0.5, "gross": 1.0, "net": 0.0}, index=DAYS),
        costs=pd.DataFrame({"multiple": [0.0, 1, 2], "paid_bp": [0.0, 3, 6], "ret": [0.1, 0.05, 0.0]}),
        tails=pd.DataFrame(),
        tests=[],
    )


def test_the_sheet_needs_nothing_but_itself(sheet):
    page = tear_sheet(sheet)
    assert "Not tested: that needs 500 sessions" in page
    read = Reader(page)
    assert all(link.startswith("#") for link in read.loads)
    assert not {"script", "link", "iframe", "img"} & set(read.tags)
    assert read.tags.count("b") == 1  # the verdict's alone
    assert EVIL in read.words
    pictures = page.split("<svg ")[1:]
    assert len(pictures) == 8
    ids = []
    for picture in pictures:
        svg = ET.fromstring("<svg " + picture.split("</svg>")[0] + "</svg>")
        assert svg.attrib["aria-label"]
        ids += [element.attrib["id"] for element in svg.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)) > 0
    assert "#145ea8" not in "".join(picture.split("</svg>")[0] for picture in pictures)


@pytest.mark.parametrize(
    ("over", "dsr", "state", "says"),
    [
        ((-0.02, -0.1, 0.06), 0.5, "open", "the simpler thing to hold"),
        ((-0.08, -0.1, -0.06), 0.5, "below", "Hold equal weight"),
        ((0.08, 0.02, 0.1), 0.5, "above", "12 tries may well look like this by luck"),
        ((0.08, 0.02, 0.1), 0.96, "above", "+10.0"),
        ((0.08,), 0.5, "open", "Too short a track"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_tries(sheet, over, dsr, state, says):
    top = portfolio(over) | {"dsr": stated(dsr)}
    found = verdict(replace(sheet, document=sheet.document | {"top": top}))
    assert found.state == state
    assert says in found.text
    assert ("luck" in found.text) == (state == "above" and dsr < 0.95)


def test_months_stand_in_their_columns(sheet):
    index = pd.PeriodIndex(["2016-12", "2017-01"], freq="M")
    monthly = pd.DataFrame({"ours": [0.02, -0.04], "equal": [0.01, 0.02]}, index=index)
    annual = monthly.set_axis(pd.PeriodIndex(["2016", "2017"], freq="Y"))
    rows = months(replace(sheet, monthly=monthly, annual=annual))
    assert [row["year"] for row in rows] == ["2016", "2016", "2017", "2017"]
    assert [cell["text"] for cell in rows[0]["cells"]] == [""] * 11 + ["+2.0"]
    assert rows[3]["cells"][0] == {"text": "−6.0", "rises": False, "share": 60}
    assert (rows[1]["less"], rows[1]["whole"]) == (True, "+1.0")
    many = pd.DataFrame(0.01, index=pd.period_range("2008", "2016", freq="Y"), columns=monthly.columns)
    assert len(months(replace(sheet, monthly=monthly, annual=many))) == 9


def test_numbers_as_text():
    assert number(-0.5, 100, 1) == "−50.0"
    assert number(1234.5, decimals=0) == "1,234"
    assert number(-0.0001, 100, 1, signed=True) == "0.0"
    assert number(0.5, 100, 0, signed=True) == "+50"
    assert number(None) == number(float("nan")) == between(None) == "–"
    assert between([-0.1, 0.2], 100, 0) == "−10 to 20"
