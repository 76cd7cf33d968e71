"""The client against `pitwise serve`: its processes, its store, its log."""

import shutil
import time

import pandas as pd
import pytest
import sqlalchemy as sa
from support import small_runs as small
from support.once import once
from support.signal_rules import write_rules

from benchmarks.serving.service import pitwise_serve
from pitwise.bars.calendar import next_session
from pitwise.bars.schema import COLUMNS
from pitwise.client import Client
from pitwise.registry.prediction_log import REQUESTS, open_log
from pitwise.workspace import Workspace, read_parquet
from serving.http.auth import SCOPES, add_key

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A running service of two readers and with keys; a key for everything."""
    folder = tmp_path_factory.mktemp("client") / "workspace"
    published = once(tmp_path_factory, "published", small.published_workspace)
    workspace = Workspace(shutil.copytree(published, folder))
    small.register_champion(workspace, read_parquet(workspace.dataset_rows))
    small.change_params(workspace, serve={"workers": 2})
    key = add_key(workspace.root / "data/serving/keys.json", "desk", SCOPES)
    with pitwise_serve(workspace) as running:
        yield running, workspace, key


@pytest.fixture
def client(service):
    running, _, key = service
    with Client(running.url, key) as client:
        yield client


def next_bars(workspace: Workspace) -> pd.DataFrame:
    """Of the session after the market's last one: each symbol's last bar, 0.1% dearer."""
    bars = read_parquet(workspace.clean_bars)[COLUMNS].sort_values("date")
    last = bars.groupby("symbol", as_index=False).last()
    last[["open", "high", "low", "close"]] *= 1.001
    return last.assign(date=next_session(last["date"].max()))


def logged(workspace: Workspace, request_id: str):
    """The row of an answer in table `requests`, which has it within about a second."""
    engine = open_log(f"sqlite:///{workspace.root}/data/predictions/log.db")
    query = sa.select(REQUESTS).where(REQUESTS.c.request_id == request_id)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if row := connection.execute(query).one_or_none():
                return row
        time.sleep(0.05)
    raise AssertionError(f"the log has no request {request_id}")


def test_bars_that_were_sent_are_in_the_next_answer_and_in_an_open_stream(service, client):
    _, workspace, _ = service
    assert client.ready().is_ready
    symbols = [f"S00{i}" for i in range(5)]
    before = client.predict(symbols)
    assert [forecast.symbol for forecast in before.forecasts] == symbols
    updates = client.stream()
    assert {f.symbol for f in next(updates).forecasts} == set(symbols)

    bars = next_bars(workspace)
    day = bars["date"].iloc[0].date()
    taken = client.send_bars(bars.iloc[:1])
    assert taken.counts == {"new": 1}
    after = client.predict(symbols)
    closes = {f.symbol: f.last_close for f in after.forecasts}
    assert closes["S000"] == pytest.approx(bars["close"].iloc[0])
    assert [f.as_of.date() == day for f in after.forecasts] == [True, False, False, False, False]
    (changed,) = next(updates).forecasts
    assert changed == after.forecasts[0]
    updates.close()

    assert client.send_bars(bars.iloc[:1]).counts == {"repeated": 1}
    assert client.features("S000").as_of == after.forecasts[0].as_of
    assert client.withdraw("S000", day).outcome == "withdrawn"
    again = client.predict(["S000"]).forecasts[0]
    assert (again.as_of, again.price) == (before.forecasts[0].as_of, before.forecasts[0].price)


def test_what_was_answered_is_in_the_history_and_in_the_log_by_its_request(service, client):
    _, workspace, _ = service
    answer = client.predict(["S001", "S002"])
    (now,) = [f for f in answer.forecasts if f.symbol == "S001"]
    row = logged(workspace, answer.request_id)
    assert (row.caller, row.route, row.n) == ("desk", "/v1/predict", 2)
    past = [f for f in client.history("S001").forecasts if f.for_session == now.for_session]
    assert [(f.price, f.matured) for f in past] == [(now.price, False)]
    assert client.past_forecasts(now.as_of.date()).forecasts


def test_signals_are_by_the_rules_of_the_workspace(service, client):
    _, workspace, _ = service
    write_rules(workspace)
    answer = client.signals(["S001", "S002"])
    assert [signal.symbol for signal in answer.signals] == ["S001", "S002"]
    by_forecast = {f.symbol: f for f in client.predict(["S001", "S002"]).forecasts}
    for signal in answer.signals:
        assert signal.target == pytest.approx(by_forecast[signal.symbol].price)
        assert (signal.signal == "HOLD") == bool(signal.reason)
    assert logged(workspace, answer.request_id).route == "/v1/signals"
    assert {signal.symbol for signal in client.signals(top=5).signals} == {f"S00{i}" for i in range(5)}


def test_features_of_the_past_are_those_known_then(client, service):
    _, workspace, _ = service
    bars = read_parquet(workspace.clean_bars)
    bar = bars[bars["symbol"] == "S003"].sort_values("date").iloc[-20]
    found = client.features("S003", bar["date"].date())
    assert found.as_of.date() == bar["date"].date()
    assert found.features["close"] == pytest.approx(bar["close"])


def test_a_process_that_is_killed_costs_the_client_no_answer(service):
    running, workspace, key = service
    bars = next_bars(workspace)
    with Client(running.url, key, retries=30) as client:
        for role in ("reader-0", "reader-1"):
            client.model()
            running.roles()[role].kill()
            for _ in range(20):
                assert client.predict(["S004"]).forecasts
        running.roles()["writer"].kill()
        taken = client.send_bars(bars[bars["symbol"] == "S004"])
        assert taken.counts in ({"new": 1}, {"repeated": 1})
        close = bars["close"].iloc[-1]
        assert client.predict(["S004"]).forecasts[0].last_close == pytest.approx(close)
