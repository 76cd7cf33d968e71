import json
import math

import numpy as np
import pandas as pd
import pytest
from support.project import with_params
from typer.testing import CliRunner

from pitwise.decisions import backtest_var, cli, contributions, risk, stress, var
from pitwise.decisions.holdings import checked_weights, held_returns, read_weights
from pitwise.decisions.risk import risk_report
from pitwise.errors import DataError
from pitwise.workspace import write_parquet

CLOSE = pd.Series({"A": 10.0, "B": 20.0, "C": 30.0})


@pytest.fixture(scope="module")
def returns(volatile):
    """520 sessions of a market of four; TWIN is A again, LATE has its first return in session 200."""
    rng = np.random.default_rng(4)
    a = volatile[:520]
    table = {"A": a, "B": a / 2 + rng.normal(0, 0.01, 520), "TWIN": a, "LATE": rng.normal(0, 0.01, 520)}
    found = pd.DataFrame(table, index=pd.bdate_range("2015-01-02", periods=520))
    found.iloc[:200, 3] = np.nan
    return found


def test_betas_by_hand():
    returns = pd.DataFrame({"A": [-0.02, 0.0, 0.02], "B": [0.03, 0.02, 0.01]})
    market = pd.Series([-0.01, 0.0, 0.01])
    assert contributions.betas(returns, market).to_dict() == {
        "A": pytest.approx(2),
        "B": pytest.approx(-1),
    }
    assert contributions.betas(returns, market * 0).tolist() == [0, 0]


def test_volatility_contributions_by_hand():
    # Variance 0.25 x 0.04 + 0.25 x 0.09 = 0.0325.
    covariance, weights = np.diag([0.04, 0.09]), np.array([0.5, 0.5])
    total = math.sqrt(0.0325)
    found = contributions.volatility_contributions(covariance, weights)
    assert found == pytest.approx([0.01 / total, 0.0225 / total])
    assert contributions.diversification_ratio(covariance, weights) == pytest.approx(0.25 / total)


def test_shortfall_contributions_sum_to_the_shortfall(returns):
    values, weights = returns[["A", "B"]].to_numpy(), np.array([1.5, -0.5])
    found = contributions.shortfall_contributions(values, weights, 0.95)
    assert found.sum() == pytest.approx(var.historical(values @ weights, 0.95).es, abs=1e-12)


def test_clusters_by_hand():
    up, turn = [0.01, 0.02, 0.03, 0.04], [0.01, -0.01, -0.01, 0.01]
    table = {"D": turn, "A": up, "C": [-x for x in turn], "B": [2 * x for x in up], "FLAT": [0.0] * 4}
    found = contributions.correlation(pd.DataFrame(table))
    assert found.loc["A"].to_dict() == pytest.approx({"D": 0, "A": 1, "C": 0, "B": 1, "FLAT": 0})
    assert found.loc["FLAT", "FLAT"] == 1
    assert contributions.clusters(found) == [["A", "B"], ["C"], ["D"], ["FLAT"]]


def test_an_episode_by_hand():
    days = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"])
    returns = pd.DataFrame({"A": [0.5, -0.1, -0.1, 0.5], "B": [0.5, np.nan, -0.1, 0.5]}, index=days)
    market = pd.Series([0.5, -0.05, 0.0, 0.5], index=days)
    weights, beta = pd.Series({"A": 0.5, "B": 0.5}), pd.Series({"A": 9.0, "B": 2.0})
    of = stress.Episode("fall", "2024-01-02", "2024-01-04")
    found = stress.episode(returns, market, weights, beta, of)
    # A fell by 19%; B lacks a return, and takes twice the market's 5%.
    assert found["return"] == pytest.approx(0.5 * -0.19 + 0.5 * -0.10)
    assert (found["market"], found["by_beta"]) == (pytest.approx(-0.05), ["B"])
    later = stress.episode(returns, market, weights, beta, of._replace(trough="2024-01-08"))
    assert (later["return"], later["untested"]) == (None, "the history is of 2024-01-02 to 2024-01-05")
    assert stress.shock(weights, beta, -0.2)["return"] == pytest.approx(0.5 * -1 + 0.5 * -0.4)


def test_weights_and_shares_are_read(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text("symbol,weight\nA,0.5\nB, 0.4995\nC,0\n")
    weights, value = read_weights(path, CLOSE)
    assert weights.to_dict() == pytest.approx({"A": 0.5 / 0.9995, "B": 0.4995 / 0.9995})
    assert value is None
    path.write_text("symbol,shares\nA,10\nB,-2.5\n")  # 100 - 50 dollars
    weights, value = read_weights(path, CLOSE)
    assert (weights.to_dict(), value) == ({"A": 2, "B": -1}, 50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("symbol,weight\nA,0.5\n", "sum to 0.5"),
        ("symbol,weight\nA,1\nZ,0\n", "'Z' not among the 3"),
        ("symbol,weight\nA,1\nA,0\n", "A is named twice"),
        ("symbol,weight\nA,1\nB,many\n", "line 3: weight 'many'"),
        ("symbol,weight\nA,inf\n", "line 2"),
        ("symbol,shares\nA,1\nB,-1\n", "worth -10.00"),
        ("symbol,weight\nA,0\nB,0\n", "sum to 0, and should"),
        ("symbol,weight\nA,1\nB,-0.99\n", "sum to 0.01"),
        ("symbol,weight,shares\nA,1,1\n", "one of `weight` and `shares`"),
        ("", "cannot be read"),
    ],
)
def test_bad_weights_are_told(tmp_path, text, said):
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_weights(path, CLOSE)


def test_weights_that_cancel_are_fractions_of_the_gross_exposure(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text("symbol,weight\nA,2\nB,-1.5\nC,-0.5\n")
    weights, value = read_weights(path, CLOSE)
    assert (weights.to_dict(), value) == ({"A": 0.5, "B": -0.375, "C": -0.125}, None)
    path.write_text("symbol,shares\nA,30\nB,-15\n")  # 300 dollars long, 300 short
    weights, value = read_weights(path, CLOSE)
    assert (weights.to_dict(), value) == ({"A": 0.5, "B": -0.5}, 600)


def test_a_dollar_neutral_portfolio_loses_a_share_of_its_gross_exposure(monkeypatch):
    for module in (risk, backtest_var):
        monkeypatch.setattr(module, "fit_garch", lambda *args, **options: None)  # EWMA takes no time
    a, b = np.full(260, 0.01), np.full(260, 0.005)
    a[::20], b[::20] = -0.04, 0.02  # a dollar long in A and one short in B lose 6 cents, of 2 dollars
    market = pd.DataFrame({"A": a, "B": b}, index=pd.bdate_range("2015-01-02", periods=260))
    report = risk_report(market, pd.Series({"A": 1.0, "B": -1.0}), 2e6)
    row = next(r for r in report["var"] if (r["method"], r["level"]) == ("historical", 0.99))
    assert (row["var"], row["var_value"]) == (pytest.approx(0.03), pytest.approx(60_000))
    assert {part["symbol"]: part["weight"] for part in report["contributions"]} == {"A": 0.5, "B": -0.5}
    assert report["notes"][0] == risk.NEUTRAL


def test_weights_that_are_nan_do_not_sum():
    with pytest.raises(DataError, match="sum to nan"):
        checked_weights(pd.Series({"A": math.nan}), CLOSE.index)


def test_held_returns_start_with_the_youngest_and_fill_halts(returns):
    halted = returns.copy()
    halted.iloc[300, 0] = np.nan
    held, absent, shortest = held_returns(halted, pd.Series({"A": 0.5, "LATE": 0.5}), least=300)
    assert (len(held), absent, shortest) == (320, {"A": 1}, "LATE")
    assert held["A"].iloc[100] == 0
    with pytest.raises(DataError, match="LATE: has 320 sessions"):
        held_returns(halted, pd.Series({"A": 0.5, "LATE": 0.5}), least=321)
    halted.iloc[-5:, 0] = np.nan
    with pytest.raises(DataError, match="A: no bar in the last 5"):
        held_returns(halted, pd.Series({"A": 1.0}), least=300)


def test_a_report_of_a_portfolio(returns):
    weights = pd.Series({"A": 0.4, "B": 0.4, "TWIN": 0.2})
    report = risk_report(returns, weights, 1e6)
    json.dumps(report, allow_nan=False)
    assert report["window"] == 270  # leaves 250 to test on
    rows = {(row["method"], row["level"], row["by"]): row for row in report["var"]}
    portfolio = returns[weights.index].to_numpy() @ weights.to_numpy()
    row = rows["historical", 0.99, "estimate"]
    assert row["var"] == pytest.approx(var.historical(portfolio[-270:], 0.99).var)
    assert row["es_value"] == pytest.approx(1e6 * row["es"])
    # The back-test from its definition: each session against the window before it.
    said = [var.historical(portfolio[i - 270 : i], 0.99).var for i in range(270, 520)]
    assert row["backtest"]["exceptions"] == sum(-portfolio[270:] > said)
    assert rows["historical", 0.99, "scaling"]["untested"].startswith("25 blocks of 10 sessions")
    assert rows["filtered", 0.99, "simulation"]["var"] > row["var"]
    assert report["correlation"]["singular_covariance"]
    assert report["correlation"]["clusters"] == [["A", "B", "TWIN"]]
    parts = report["contributions"]
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    whole = var.historical(portfolio, 0.99).es
    assert sum(part["to_es_99"] for part in parts) == pytest.approx(whole)
    assert sum(part["weight"] * part["beta"] for part in parts) == pytest.approx(report["beta"])


def test_a_report_says_what_stood_in(returns, monkeypatch):
    for module in (risk, backtest_var):
        monkeypatch.setattr(module, "fit_garch", lambda *args, **options: None)
    report = risk_report(returns, pd.Series({"LATE": 1.0}))
    json.dumps(report, allow_nan=False)
    said = {row["method"]: row["fallback"] for row in report["var"]}
    assert said["filtered"] == risk.FILTER_FALLBACK
    assert said["historical"] is None
    assert {row["model"]: row["fallback"] for row in report["volatility"]["models"]} == {
        "ewma": None,
        "garch": "did not converge: EWMA",
        "gjr_t": "did not converge: EWMA",
    }
    assert report["volatility"]["fan"]["model"] == "ewma"
    assert report["correlation"]["mean"] is None
    assert report["diversification_ratio"] == pytest.approx(1)
    assert all(row["backtest"] is None for row in report["var"])  # 320 sessions, 70 after the window
    assert report["notes"][0].startswith("The history starts at")


def test_a_value_that_never_changes_has_no_risk(returns):
    with pytest.raises(DataError, match="never changed"):
        risk_report(returns.assign(FLAT=0.0), pd.Series({"FLAT": 1.0}))
    with pytest.raises(DataError, match="above 0"):
        risk_report(returns, pd.Series({"A": 1.0}), math.nan)


def test_the_command_tells_the_risk_of_a_workspace(tmp_path, monkeypatch, returns):
    value = (1 + returns.iloc[:260, :2]).cumprod()
    bars = value.stack().rename("close").rename_axis(["date", "symbol"]).reset_index()
    bars = bars.sort_values(["symbol", "date"], ignore_index=True)
    split = (bars["symbol"] == "A") & (bars["date"] > returns.index[99])
    factor = np.where(split, 2.0, 1.0)  # one share of A became two
    bars["close"] /= factor
    write_parquet(bars.assign(price_factor=factor, segment=0), tmp_path / "data/clean/bars.parquet")
    with_params(tmp_path, risk={"holdings": None, "window": 252})
    monkeypatch.setattr(risk, "LEAST", 5)  # the history is one of 259 sessions
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.csv").write_text("symbol,shares\nA,3\n")
    found = CliRunner().invoke(cli.app, ["--weights", "w.csv", "--json"])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["value"] == pytest.approx(3 * bars.loc[259, "close"])
    worst = {
        row["by"]: row for row in report["var"] if row["method"] == "historical" and row["level"] == 0.99
    }
    assert report["window"] == 252
    own = returns["A"].to_numpy()[8:260]  # the split is no return
    assert worst["estimate"]["var"] == pytest.approx(var.historical(own, 0.99).var)
    shown = CliRunner().invoke(cli.app, ["--symbol", "A"])
    assert "untested" in shown.stdout
    assert "TWIN" not in shown.stdout
    assert CliRunner().invoke(cli.app, []).exit_code == 2


def test_ten_sessions_by_simulation_are_tested_where_there_are_blocks(returns, monkeypatch):
    for module in (risk, backtest_var):
        monkeypatch.setattr(module, "fit_garch", lambda *args, **options: None)  # EWMA takes no time
    monkeypatch.setattr(risk, "LEAST", 20)
    report = risk_report(returns, pd.Series({"A": 1.0}), window=300)
    rows = [row for row in report["var"] if row["by"] == "simulation"]
    assert [row["untested"] for row in rows] == [None, None]
    assert [row["backtest"]["sessions"] for row in rows] == [22, 22]  # of 220 sessions
    # Some lost more than was said at 0.95, and fewer than half did.
    assert 0 < rows[0]["backtest"]["exceptions"] < 11
