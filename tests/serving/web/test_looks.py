"""What the pages make of bars, rules, weeks and metrics: groups, risk, past signals, drift, latency."""

import json
import math
import re
from collections import Counter
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from support.fake_service import market_state
from support.web_files import DAYS, features_of

from pitwise.decisions.signals import Rules
from pitwise.workspace import Workspace, write_parquet
from serving.web.bars import KEYS, BarHistory, MarketBars, SymbolBars
from serving.web.groups import clusters_at, sectors_at
from serving.web.health import drift_by_week, latency
from serving.web.market import Tile, by_session, group_rows, heat_map, tiles_of
from serving.web.moment import moment
from serving.web.past import Call, signalled
from serving.web.risk import risk_view
from serving.web.sources import Sources
from serving.web.symbol import CALENDAR, events_of

pytestmark = pytest.mark.unit
SESSIONS = pd.bdate_range("2012-01-02", periods=301).to_numpy().astype("datetime64[D]")
RULES = Rules(1, 0.8, 2, 3, 1e4, 0.5, 2, 0.5, 50, intercept=0.1, slope=1.0)


def test_after_a_page_the_tables_are_read_before_the_next_one(workspace, monkeypatch):
    made = []
    monkeypatch.setattr("serving.web.sources.WalkForward", lambda *given: made.append(given) or made)
    unused, used = Sources(workspace), Sources(workspace)
    used.bars()
    for sources in (unused, used):
        sources.warm("lstm")
    assert len(made) == 1
    used.walk_forward("lstm")
    assert len(made) == 1


def bars_of(returns: np.ndarray, days: np.ndarray = SESSIONS) -> SymbolBars:
    close = 100 * np.exp(np.append(0, np.cumsum(returns)))
    return SymbolBars(days, close, close, close, close, np.full(len(close), 1e6))


def market_of(bars: dict[str, SymbolBars]) -> MarketBars:
    def column(of: SymbolBars, values: np.ndarray, nothing: float) -> np.ndarray:
        return np.append(np.full(len(SESSIONS) - len(of.day), nothing), values)

    names = sorted(bars)
    session = [column(bars[s], np.searchsorted(SESSIONS, bars[s].day), -1) for s in names]
    close = [column(bars[s], bars[s].close, np.nan) for s in names]
    volume = [column(bars[s], bars[s].volume, np.nan) for s in names]
    return MarketBars(names, SESSIONS, np.array(session, int).T, np.array(close).T, np.array(volume).T)


def test_a_feature_is_the_version_that_was_known(tmp_path):
    first = features_of("A", np.array([10.0, 11.0, 12.0]), DAYS[:3])
    later = {"created_timestamp": pd.Timestamp("2013-10-01", tz="UTC")}
    changed = first.iloc[[1]].assign(rsi_14=70.0, **later)
    gone = first.iloc[[2]].assign(close=np.nan, **later)
    other = features_of("B", np.array([1.0]), DAYS[:1])
    versions = pd.concat([first, changed, gone, other]).sort_values(KEYS)
    write_parquet(versions, path := tmp_path / "d.parquet")
    then = pd.Timestamp("2013-09-30", tz="UTC").value // 1000
    for at, days, values in ((then, 3, [50, 50, 50]), (None, 2, [50, 70])):
        found, columns = BarHistory(path).features("A", ["rsi_14"], at)
        assert (found == DAYS[:days].to_numpy().astype("datetime64[D]")).all()
        assert columns["rsi_14"].tolist() == values


def test_what_shares_a_cause_beyond_the_market_is_a_cluster():
    rng = np.random.default_rng(7)
    market, banks, oil = rng.normal(0, 0.01, (3, 300))
    own = iter(rng.normal(0, 0.004, (18, 300)))
    bars = {f"B{i}": bars_of(market + banks + next(own)) for i in range(6)}
    bars |= {f"O{i}": bars_of(market + oil + next(own)) for i in range(6)}
    bars |= {f"X{i}": bars_of(market + rng.normal(0, 0.01, 300)) for i in range(6)}
    bars["O5"] = bars_of((market + oil)[200:], SESSIONS[200:])  # came later
    bars["NEW"] = bars_of(banks[290:], SESSIONS[290:])
    found = clusters_at(market_of(bars), {"B3": 9.0, "B1": 8.0})
    assert {s for s in bars if found.of.get(s) == "B3, B1"} == {f"B{i}" for i in range(6)}
    assert Counter(found.of.values())[found.of["O5"]] == 6
    assert not {"NEW", "X0"} & set(found.of)
    assert clusters_at(market_of({"X0": bars["X0"]}), {}) is None


def test_of_a_large_market_the_most_traded_are_clustered_and_drawn(monkeypatch):
    rng = np.random.default_rng(7)
    cause = rng.normal(0, 0.01, 300)
    bars = {f"B{i}": bars_of(cause + rng.normal(0, 0.001, 300)) for i in range(7)}
    bars |= {f"X{i}": bars_of(rng.normal(0, 0.01, 300)) for i in range(7)}
    monkeypatch.setattr("serving.web.groups.MOST", 12)
    dollars = {symbol: 1e6 + i for i, symbol in enumerate(bars)} | {"B0": 1.0, "X0": 2.0}
    found = clusters_at(market_of(bars), dollars)
    assert {symbol for symbol in bars if symbol in found.of} == {f"B{i}" for i in range(1, 7)}
    monkeypatch.setattr("serving.web.market.TILES", 2)
    tiles = [Tile(symbol, 0.01, None, amount) for symbol, amount in dollars.items()]
    assert re.findall("<title>(..) ", heat_map(tiles)) == ["X6", "X5"]


def test_a_tile_needs_the_session_and_the_one_before():
    moves = np.append(np.tile([0.01, -0.01], 150)[1:], 0.03)
    bars = {
        "A": bars_of(moves),
        "STILL": bars_of(np.zeros(300)),
        "OLD": bars_of(moves[:-1], SESSIONS[:-1]),
    }
    bars |= {"NEW": bars_of(moves[-1:], SESSIONS[-2:]), "FIRST": bars_of(moves[:0], SESSIONS[-1:])}
    found = {tile.symbol: tile for tile in tiles_of(market_of(bars), str(SESSIONS[-1]))}
    assert list(found) == ["A", "NEW", "STILL"]
    assert found["A"].change == pytest.approx(math.expm1(0.03))
    assert found["A"].in_volatility == pytest.approx(0.03 / np.std(moves[-21:-1], ddof=1))
    assert found["NEW"].in_volatility is None is found["STILL"].in_volatility
    assert found["STILL"].dollars == 100 * 1e6
    days, mean, rose = by_session(market_of({name: bars[name] for name in ("A", "STILL")}))
    assert (days[-1], rose[-1]) == (SESSIONS[-1], 0.5)
    assert mean[-1] == pytest.approx(math.expm1(0.03) / 2)


def test_a_sector_holds_from_its_first_day_to_the_one_before_its_last():
    sectors = pd.DataFrame(
        {
            "symbol": ["A", "A", "B"],
            "from": pd.to_datetime(["2012-01-01", "2013-01-01", "2013-01-01"]),
            "to": pd.to_datetime(["2013-01-01", None, None]),
            "value": ["Energy", "Utilities", "Energy"],
        }
    )
    assert sectors_at(sectors, ["A"], "2012-12-31").of == {"A": "Energy"}
    assert sectors_at(sectors, ["A", "B"], "2013-01-01").of == {"A": "Utilities", "B": "Energy"}
    assert sectors_at(sectors, ["C"], "2013-01-01") is None
    assert sectors_at(None, ["A"], "2013-01-01") is None


def test_groups_are_told_by_dollars_and_who_is_in_none_comes_last():
    tiles = [Tile("A", 0.02, None, 1.0), Tile("B", -0.01, None, 3.0), Tile("C", 0.0, None, 9.0)]
    sectors = pd.DataFrame({"symbol": ["A", "B"], "from": pd.Timestamp("2012-01-01"), "to": pd.NaT})
    rows = group_rows(tiles, sectors_at(sectors.assign(value="Energy"), ["A", "B"], "2013-01-01"))
    assert [(row["name"], row["largest"]) for row in rows] == [("Energy", ["B", "A"]), ("others", ["C"])]
    assert (rows[0]["change"], rows[0]["rose"], rows[0]["dollars"]) == (pytest.approx(0.005), 0.5, 4)


def test_risk_is_the_quantile_of_the_past_returns_and_of_their_shocks():
    rng = np.random.default_rng(7)
    returns = rng.normal(0, 0.01, 300) * np.repeat([1.0, 3.0], 150)  # three times as volatile now
    found = risk_view(bars_of(returns))
    (_, past, now), _ = found["tails"]
    simple = np.expm1(returns)
    assert past.var == pytest.approx(-np.quantile(simple, 0.05))
    assert past.es == pytest.approx(-simple[simple <= np.quantile(simple, 0.05)].mean())
    assert now.var > 1.2 * past.var
    assert found["volatility"] > 1.2 * found["usual"]
    worth = np.append(1, np.cumprod(1 + simple))
    assert found["drawdown"] == pytest.approx(min(worth / np.maximum.accumulate(worth) - 1))
    (one, five, *_) = found["ahead"]
    assert five[5] - five[1] == pytest.approx((one[5] - one[1]) * 5**0.5, rel=0.2)
    assert risk_view(bars_of(returns[:100], SESSIONS[:101])) is None
    assert risk_view(bars_of(np.zeros(300))) is None


@pytest.mark.parametrize(
    ("calibrations", "as_of", "signals", "was_then"),
    [
        ([{"from": "2013-09-25", "intercept": 0.1, "slope": 1.0}], None, ["HOLD", "BUY", "SELL"], True),
        (
            [{"from": "2013-09-25", "intercept": 0.1, "slope": 1.0}],
            "2013-10-31",
            ["HOLD", "BUY", "SELL"],
            True,
        ),
        (None, None, ["BUY", "BUY", "SELL"], False),
        (None, "2013-10-31", ["", "", ""], None),
    ],
)
def test_a_past_signal_knows_no_calibration_of_later(tmp_path, calibrations, as_of, signals, was_then):
    workspace = Workspace(tmp_path)
    rows = features_of("A", np.full(30, 100.0)).assign(atr_14=1.0, volatility_20=1.0, volume_sma_20=1e7)
    write_parquet(rows, workspace.daily_features)
    report = {"kind": "lstm", "rules": asdict(RULES), "calibrations": calibrations}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/signals.json").write_text(json.dumps(report))
    calls = [
        Call(day, "", log_return, p_up, None, None, 0.01, "walk-forward", scale=0.01)
        for day, log_return, p_up in (
            ("2013-09-24", 0.02, 0.6),
            ("2013-09-25", 0.02, 0.6),
            ("2013-09-26", -0.02, 0.4),
        )
    ]
    when = moment(as_of, "2013-11-01", DAYS.to_numpy().astype("datetime64[D]"))
    found, known = signalled("A", calls, when, market_state(), Sources(workspace))
    assert [call.signal for call in found] == signals
    assert known is was_then


def test_a_calendars_event_is_shown_as_it_was_known(tmp_path):
    workspace = Workspace(tmp_path)
    rows = pd.DataFrame(
        {
            "symbol": ["A", "A", "B"],
            "kind": "earnings",
            "session": pd.to_datetime(["2013-10-24 20:00"] * 3, utc=True),
            "value": [1.5, 1.25, 9.0],
            "known_at": pd.to_datetime(
                ["2013-10-24 21:00", "2013-11-01 12:00", "2013-10-24 21:00"], utc=True
            ),
        }
    )
    write_parquet(rows, tmp_path / CALENDAR)

    def known(as_of: str | None) -> list[tuple]:
        when = moment(as_of, "2013-11-01", DAYS.to_numpy().astype("datetime64[D]"))
        found = events_of("A", when, Sources(workspace))
        return [(event["day"], event["kind"], event["value"]) for event in found]

    assert known("2013-10-23") == []
    assert known("2013-10-31") == [("2013-10-24", "earnings", 1.5)]
    assert known(None) == [("2013-10-24", "earnings", 1.25)]


def week(name: str, psi: dict[str, float], drifted: list[str], judged: bool = True) -> dict:
    features = {"judged": judged, "psi": psi, "drifted": drifted}
    return {"week": name, "drift": {"features": features}}


def test_drift_is_told_by_column_and_week():
    weeks = [
        week("W3", {"a": 0.05, "b": 0.3}, ["b"]),
        week("W2", {}, [], False),
        week("W1", {"b": 1}, []),
    ]
    found = drift_by_week(weeks)
    assert found["weeks"] == ["W3", "W1"]
    assert [row["name"] for row in found["rows"]] == ["b", "a"]
    cells = [
        (cell["psi"], cell["step"], cell["is_named"]) for row in found["rows"] for cell in row["cells"]
    ]
    assert cells == [(0.3, 2, True), (1, 4, False), (0.05, 0, False), (None, 0, False)]
    assert drift_by_week([]) is None


def test_latency_is_interpolated_in_the_buckets():
    """Of 8 answers 4 are within (0.1, 0.2]: the median is its end; 99% are not within any bound."""
    registry = CollectorRegistry()
    seconds = Histogram(
        "pitwise_request_seconds", "", ["route", "status"], registry=registry, buckets=[0.1, 0.2, 0.4]
    )
    for status in ("200", "404"):
        for value in (0.15, 0.15, 0.3, 9.0):
            seconds.labels("/a", status).observe(value)
    for _ in range(99):
        seconds.labels("/b", "200").observe(0.05)
    seconds.labels("/b/stream", "200").observe(0.05)
    found = latency(generate_latest(registry))
    assert [(row["route"], row["n"]) for row in found] == [("/b", 99), ("/a", 8)]
    assert found[0]["median"] == pytest.approx(50)
    assert (found[1]["median"], found[1]["p99"]) == (pytest.approx(200), None)
