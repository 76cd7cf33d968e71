"""The pages of a portfolio and of the backtest, and the figures on them."""

import json
import re
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from anyio import to_process
from support.decision_files import COSTS
from support.web_files import features_of

from pitwise.bars.calendar import session_close
from pitwise.decisions import performance
from pitwise.decisions.backtest import Costs, backtest
from pitwise.decisions.holdings import market
from pitwise.decisions.portfolios import Limits
from pitwise.decisions.prices import Prices
from pitwise.decisions.risk import risk_report
from pitwise.errors import DataError
from pitwise.workspace import Workspace, write_parquet
from serving.web import backtest as page
from serving.web import portfolio_of
from serving.web.plots import Line, Plot, path, ticks
from serving.web.portfolio import correlation, holdings_of, word
from serving.web.portfolio_of import Asked
from serving.web.tracks import Track

pytestmark = pytest.mark.unit
YEARS = pd.bdate_range("2013-09-23", periods=540).astype("datetime64[us]")
YEARS = YEARS[session_close(pd.Series(YEARS)).notna()][:520]
"""Sessions enough for a value at risk and a test of it."""


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Of the bootstraps: intervals are as right with fewer, and quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "SAMPLES", 100)
        patch.setattr(portfolio_of, "SAMPLES", 100)
        yield


def words(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


# The backtest


@pytest.fixture(scope="module")
def traded():
    """Two symbols, half of each at every close and the other way round; and what trades it at costs."""
    rng = np.random.default_rng(5)
    days = pd.bdate_range("2016-01-04", periods=60)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, (60, 2)), axis=0))
    nothing = np.zeros((60, 2))
    market = Prices(days, pd.Index(["A", "B"]), close, close, nothing + 2e8, nothing + 1, nothing)
    targets = np.where(np.arange(60)[:, None] % 2, [0.9, 0.1], [0.1, 0.9])

    def at(multiple: float) -> pd.DataFrame:
        costs = {name: multiple * value for name, value in COSTS.items()}
        return backtest(market, targets, Costs(**costs), 1e6).of_equity()

    return at


@pytest.fixture
def track(traded) -> Track:
    found = traded(1.0)
    columns = [found[name].to_numpy() for name in ("ret", "cost", "impact", "traded")]
    return Track(found.index.to_numpy().astype("datetime64[D]"), *columns)


@pytest.mark.parametrize("multiple", [0.0, 0.5, 2.0])
def test_returns_at_other_costs_are_those_of_the_backtest(traded, track, multiple):
    """Costs change the return of a session by some 0.002; what is left is of the second order."""
    again = traded(multiple)["ret"].to_numpy()
    assert np.abs(track.ret - again).max() > 4e-4
    assert track.at_costs(multiple) == pytest.approx(again, abs=3e-5)
    assert np.prod(1 + track.at_costs(multiple)) == pytest.approx(np.prod(1 + again), abs=3e-4)


def test_figures_are_those_of_the_backtests_document(traded, track):
    sessions = traded(1.0)
    equal = pd.Series(np.linspace(-0.002, 0.003, 60), index=sessions.index)
    found = page.figures(track.ret, equal.to_numpy())
    documented = performance.summary(sessions, performance.trials([]), page.SAMPLES, page.SEED)
    documented |= performance.excess(sessions, 1e6, page.SAMPLES, page.SEED, equal)
    names = {"annual_return": "annual", "sharpe": "sharpe", "return": "over"}
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(documented[theirs]["value"])
        assert found[f"{ours}_ci"] == pytest.approx(documented[theirs]["ci95"])
    assert found["fall"] == pytest.approx(documented["max_drawdown"]["value"])
    assert page.figures(track.ret[:5], equal.to_numpy()[:5])["annual_ci"] is None


def test_a_month_is_compounded_of_its_sessions():
    days = np.array(["2016-12-29", "2016-12-30", "2017-01-03"], "datetime64[D]")
    (year, before) = page.months(days, np.array([0.1, 0.1, -0.02]), np.zeros(3))
    assert (before["year"], year["year"]) == (2016, 2017)
    assert before["ours"][11] == pytest.approx(0.21)
    assert before["ours"][12] == pytest.approx(0.21)
    assert before["ours"][:11] == [None] * 11
    assert year["ours"][0] == pytest.approx(-0.02)
    assert (before["shades"][11], year["shades"][0], year["shades"][1]) == ("u4", "d2", "")


def test_the_page_has_the_course_at_each_cost_and_what_stands_beside_it(client):
    """30 sessions of -0.2% are -39.6% a year; without costs +0.1% as equal weight has: 28.6%."""
    answer = client.get("/backtest")
    (free, dear) = (answer.text.split('data-costs="')[i] for i in (1, 3))
    assert free.startswith('0" hidden>')
    assert "+28.6" in words_of(free)
    assert dear.startswith('1">')
    assert "−39.6" in words_of(dear)
    said = words(answer)
    assert "Below equal weight Lstm, top 2: −39.6% a year after costs" in said
    assert "100 dollars became 94.2, in equal weight 103.0" in answer.text
    assert "Sharpe ratio above equal weight +0.15 −0.25 −0.50 to +0.10 0.40" in said
    assert "the forecasts do not" not in said
    assert "no ann" in said
    assert "+0.0123" in said


def words_of(html: str) -> str:
    return re.sub(r"<[^>]*>", " ", html)


def test_the_address_says_costs_and_portfolio(client):
    shown = client.get("/backtest?costs=0&portfolio=equal_weight").text
    assert '<option value="equal_weight" selected>' in shown
    assert 'data-costs="0">' in shown
    assert 'data-costs="1" hidden>' in shown
    assert client.get("/backtest?costs=9").status_code == 422


def test_nothing_that_came_later_is_on_a_past_page(client):
    said = words(client.get("/backtest?as_of=2013-10-15"))
    assert "from 2013-09-23 to 2013-10-15" in said
    assert "The claims" not in said
    assert "+0.0123" not in said
    assert "run dvc repro walk_forward/dvc.yaml" in words(client.get("/backtest?as_of=2013-09-23"))


# A portfolio


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("AAPL 100\n\nMSFT,-50\r\nBRK.B;\t7", "shares", {"AAPL": 100, "MSFT": -50, "BRK.B": 7}),
        ("symbol,weight\nA,40%\nB,0.6", "weight", {"A": 0.4, "B": 0.6}),
        ('"Symbol","Shares"\n"A","1e2"', "shares", {"A": 100}),
    ],
)
def test_holdings_are_read_as_a_person_types_them(text, kind, found):
    assert holdings_of(text, "shares") == (found, kind)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line"),
        ("symbol,shares", "no line"),
        ("symbol,price\nA,1", "line 1: has columns symbol, price"),
        ("A 1\nB", "line 2: 'B' is not a symbol and a number"),
        ("A 1,000 2", "line 1: 'A 1,000 2'"),
        ("A nan", "line 1: shares 'nan' is no number"),
        ("A 1\nA 2", "line 2: A is named twice"),
    ],
)
def test_what_cannot_be_read_is_named(text, says):
    with pytest.raises(DataError, match=re.escape(says)):
        holdings_of(text, "shares")


@pytest.fixture(scope="module")
def priced(tmp_path_factory) -> Workspace:
    """Two symbols; after session 500 a bar of session 400 was corrected."""
    workspace = Workspace(tmp_path_factory.mktemp("priced"))
    rng = np.random.default_rng(3)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, (len(YEARS), 2)), axis=0))
    rows = pd.concat([features_of(name, closes[:, i], YEARS) for i, name in enumerate("AB")])
    corrected = rows[(rows["symbol"] == "A")].iloc[[400]]
    corrected = corrected.assign(
        close=corrected["close"] * 1.2, created_timestamp=rows["created_timestamp"].iloc[500]
    )
    write_parquet(pd.concat([rows, corrected], ignore_index=True), workspace.daily_features)
    clean = rows.assign(date=[*YEARS, *YEARS])[["symbol", "date", "close", "price_factor", "segment"]]
    clean.loc[(clean["symbol"] == "A") & (clean["date"] == YEARS[400]), "close"] *= 1.2
    write_parquet(clean, workspace.clean_bars)
    event = {"symbol": ["A"], "date": YEARS[[3]], "kind": "jump", "status": "provisional"}
    never = pd.Series([pd.NaT], dtype="datetime64[us, UTC]")
    times = {"first_known": pd.to_datetime(YEARS[[3]], utc=True), "confirmed_at": never}
    events = pd.DataFrame(event | times | {"withdrawn_at": never, "price_ratio": 1.0})
    write_parquet(events, workspace.events)
    params = {
        **{"kind": None, "k": 1, "trade_at": "open", "capital": 1e6, "rebalance_sessions": None},
        **{"allocation_sessions": 21, "covariance_sessions": 60, "risk_aversion": 5.0, "costs": COSTS},
        **{"limits": Limits().model_dump(), "random_signals": 2, "bootstrap_samples": 100, "seed": 7},
    }
    workspace.path("params.yaml").write_text(json.dumps({"backtest": params}))  # YAML too
    return workspace


def asked(strategy="none", instant=None) -> Asked:
    return Asked((("A", 10.0), ("B", 20.0)), "shares", 1.0, 50.0, strategy, instant)


@pytest.fixture(scope="module")
def told(priced):
    forecasts = {"A": (0.01, 2.0, 1, None), "B": (0.02, 1.0, 1, None)}
    return portfolio_of.portfolio_of(str(priced.root), asked("top"), forecasts)


def test_the_risk_is_that_of_the_clean_bars(priced, told):
    found = market(priced)
    worth = found.close * pd.Series({"A": 10.0, "B": 20.0})
    expected = risk_report(found.returns, worth / worth.sum(), worth.sum())
    assert told["risk"] == expected
    assert [row["value"] for row in told["holdings"]] == pytest.approx(worth.tolist())
    historical = expected["var"][0]
    assert (told["ours"]["var_95%"], told["ours"]["es_95%"]) == (historical["var"], historical["es"])
    low, high = told["intervals"]["var_95%"]
    assert low < historical["var"] < high
    filtered = next(r for r in expected["var"] if (r["method"], r["level"]) == ("filtered", 0.95))
    losses, said = -np.array(told["tested"]["ret"]), np.array(told["tested"]["95%"])
    assert (losses > said).sum() == filtered["backtest"]["exceptions"]


def test_the_proposal_holds_what_has_the_best_score(told):
    """k is 1: all of it goes into A, whose score is the larger one, cash too."""
    orders = {order["symbol"]: order for order in told["proposal"]["orders"]}
    assert (orders["B"]["side"], orders["B"]["shares"], orders["B"]["after"]) == ("sell", 20, 0)
    price, total = orders["A"]["price"], told["proposal"]["total"]
    assert total == pytest.approx(50 + sum(row["value"] for row in told["holdings"]))
    assert orders["A"]["shares"] == total // price - 10
    assert told["proposal"]["cost"] >= told["proposal"]["dollars"] * 2.5e-4


def test_nothing_that_came_later_is_in_a_past_report(priced, tmp_path):
    """The same as of files that end there: neither later bars nor the correction."""
    bars = pd.read_parquet(priced.daily_features)
    close = bars["event_timestamp"].iloc[499]
    cut = Workspace(tmp_path)
    write_parquet(bars[bars["created_timestamp"] <= close], cut.daily_features)
    write_parquet(pd.read_parquet(priced.events), cut.events)
    instant = close.value // 1000
    then = portfolio_of.portfolio_of(str(priced.root), asked(instant=instant), {})
    assert then == portfolio_of.portfolio_of(str(tmp_path), asked(), {})
    assert then["risk"]["as_of"] == f"{YEARS[499]:%Y-%m-%d}"


@pytest.fixture
def worker(monkeypatch, told):
    """What was asked of a worker; A alone it refuses."""
    questions = []

    async def run_sync(function, root, question, forecasts, **options):
        questions.append((question, forecasts))
        if len(question.held) == 1:
            raise DataError("holdings: 'A' is <unknown>")
        return json.dumps(told).encode()

    monkeypatch.setattr(to_process, "run_sync", run_sync)
    return questions


def test_a_page_tells_a_portfolio_and_is_kept(client, service, worker):
    address = "/portfolio?cash=50&holdings=" + quote("A 10\nB 20")
    answer = client.get(address)
    (question, forecasts), *_ = worker
    assert question == Asked((("A", 10.0), ("B", 20.0)), "shares", 1e6, 50.0, "top", None)
    assert forecasts["MSFT"] == (0.01, -1.0, 1, None)
    assert service.served.symbols == [["AAPL", "MSFT", "LAGS"]]  # in the log before they are told
    said = words(answer)
    assert "2 symbols worth" in said
    assert "orders trade" in said
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.count("<!doctype") == answer.text.count("</html>") == 1
    assert client.get(address).text == answer.text
    assert len(worker) == 1


def test_what_is_wrong_with_holdings_is_told_on_the_page(client, worker):
    misread = client.get("/portfolio?holdings=A")
    assert misread.status_code == 422
    assert "line 1: &#39;A&#39; is not a symbol and a number" in misread.text
    assert worker == []
    refused = client.get("/portfolio?holdings=A+1&strategy=none")
    assert "&#39;A&#39; is &lt;unknown&gt;" in refused.text
    assert refused.text.count("</html>") == 1


def test_a_test_is_judged_both_ways():
    judged = {"kupiec_p": 0.01, "exceptions": 30, "expected": 12.5}
    assert word(judged) == "too low"
    assert word(judged | {"exceptions": 3}) == "too cautious"
    assert word(judged | {"kupiec_p": 0.5}) == "held"


def test_correlations_are_in_the_order_of_the_clusters():
    matrix = [[1, 0.1, 0.8], [0.1, 1, -0.6], [0.8, -0.6, 1]]
    document = {"symbols": ["A", "B", "C"], "matrix": matrix, "mean": 0.1}
    found = correlation(document | {"clusters": [["A", "C"], ["B"]]})
    assert found["rows"][0] == ("A", [(1, ""), (0.8, "u4"), (0.1, "u1")])
    assert found["rows"][2] == ("B", [(0.1, "u1"), (-0.6, "d3"), (1, "")])
    assert found["clusters"] == [["A", "C"]]


# What both draw with


def test_a_line_has_a_gap_where_there_is_no_figure():
    assert path(np.array([0, 1, 2, 3]), np.array([5, 7, np.nan, 2])) == "M0 5l1 2M3 2h0"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 5, 10]), (-0.03, 0.05, [-0.02, 0, 0.02, 0.04]), (97, 103, [98, 100, 102]), (1, 1, [1])],
)
def test_ticks_are_round_figures(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_plots_ends_are_those_of_its_axis():
    line = Line(np.array([0.0, 1.0]), "l", "<name>")
    drawn = str(Plot(["a", "b"], [line], 50, str, (0.0, 1.0)).svg("says"))
    assert 'class="l" d="M0 100l1000-100"' in drawn
    assert "&lt;name&gt;" in drawn
