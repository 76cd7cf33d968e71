"""The page of a reconciliation: its first sentence, its order, and that it opens in a browser."""

import numpy as np
import pandas as pd
import pytest
from support import markets
from support.browser import open_page
from support.report_pages import Reader

from pitwise.bars.reconciliation import Reconciled, by_session, by_symbol, reconciled
from pitwise.reports.reconciliation import reconciliation_page, verdict


def page_of(found: Reconciled) -> str:
    report = {"a": "a.csv", "b": "b.csv", **found.summary}
    symbols, sessions = by_symbol(found.bars), by_session(found.bars)
    return reconciliation_page(report, found.bars, found.steps, symbols, sessions, {}, None)


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    return markets.bars(3, 120, seed=4).round(2)


@pytest.fixture(scope="module")
def found(market) -> Reconciled:
    """Closes of B 50%, 30% and 20% off, each of another symbol and session; and a bar missing in A."""
    off = market.copy()
    for at, factor in ((30, 1.5), (160, 1.3), (275, 1.2)):
        off.loc[at, ["close", "high"]] *= factor
    return reconciled(market.drop(index=[60]), off)


def test_the_first_sentence_says_how_many_differ_and_where_to_look_first(found):
    said = verdict(found.summary, by_session(found.bars))
    assert said.state == "check"
    assert said.text.startswith(
        "3 of 359 bars in both differ (0.84%): 0 by a fault of A, 3 of B, 0 unknown."
    )
    assert "Look first at 2014-02-14: 1 of 3 bars, the fault of 1 could be told." in said.text


def test_sources_that_agree_are_said_to(market):
    same = reconciled(market, market.drop(index=[60]))
    said = verdict(same.summary, by_session(same.bars))
    assert said == ("agree", "All 359 bars in both agree: they were traded. Bars in one alone: 1.")


def test_a_symbol_that_is_another_company_is_where_to_look_first(market):
    other = market.copy()
    own = (other["symbol"] == "S001").to_numpy()
    wander = np.exp(np.random.default_rng(1).normal(0, 0.1, own.sum()))
    for name in ("open", "high", "low", "close"):
        other.loc[own, name] *= wander
    unlike = reconciled(other, market)
    said = verdict(unlike.summary, by_session(unlike.bars))
    assert said.text.endswith("Look first at S001: less than half of the bars agree there.")


def test_sources_without_a_common_bar_have_a_page_too(market):
    document = page_of(reconciled(market.iloc[::2], market.iloc[1::2]))
    assert "The sources have no bar in common" in document


def test_the_largest_disagreement_comes_first(found):
    words = Reader(page_of(found)).words.splitlines()
    told = words[words.index("Disagreements whose fault could be told") :]
    symbols = [word for word in told if word in ("S000", "S001", "S002")]
    assert symbols[:3] == ["S000", "S001", "S002"]
    offs = [word for word in told if word.startswith("−")]
    assert offs[:3] == ["−33.33", "−23.08", "−16.67"]  # 1/1.5, 1/1.3 and 1/1.2, less 1


@pytest.mark.component
def test_the_page_opens_in_a_browser_and_asks_for_nothing(found, tmp_path):
    document = page_of(found)
    assert page_of(found) == document
    file = tmp_path / "page.html"
    file.write_text(document)
    shown = open_page(file.as_uri(), tmp_path)
    assert Reader(shown.dom).tags.count("table") == Reader(document).tags.count("table") >= 4
    assert "script" not in Reader(shown.dom).tags
    assert shown.requests == []
