"""The client's methods against the API over fakes, whose answers can be worked out by hand."""

import math
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime

import pandas as pd
import pytest
from support.fake_service import BAR, fake_app, past_forecast
from support.servers import free_port

from pitwise.client import (
    ClientError,
    Features,
    Forecast,
    PastForecast,
    ProblemError,
    Readiness,
    UnreachableError,
)
from pitwise.client import client as module
from pitwise.errors import StoreError
from serving.http.auth import add_key
from serving.http.routes import history

pytestmark = pytest.mark.component
FRIDAY = datetime(2013, 11, 1, 20, tzinfo=UTC)
MONDAY = date(2013, 11, 4)


@pytest.fixture
def client(service, tmp_path, connected, serving):
    with serving(fake_app(tmp_path, service)) as url:
        yield connected(url)


def test_forecasts_are_typed_and_in_the_order_asked_for(client, service):
    answer = client.predict(["MSFT", "XYZ", "AAPL"])
    assert answer.model_version == "7"
    assert answer.forecasts == [
        Forecast(
            "MSFT",
            FRIDAY,
            MONDAY,
            1,
            101,
            101 * math.exp(0.01),
            -1,
            0.01,
            0.501,
            0.02,
            0,
            False,
            None,
            None,
        ),
        Forecast("AAPL", FRIDAY, MONDAY, 1, 100, 100, 0, 0, 0.5, 0.02, 0, False, None, None),
    ]
    (error,) = answer.errors
    assert (error.type, error.symbol, error.field) == ("/problems/unknown-symbol", "XYZ", "symbols[1]")
    assert [answered.request_id for answered in service.served.recorded] == [answer.request_id]


def test_a_problem_has_its_type_fields_and_request(client):
    with pytest.raises(ProblemError) as raised:
        client.predict(["XYZ"])
    error = raised.value
    assert (error.status, error.kind, list(error.errors)) == (404, "unknown-symbol", ["symbols[0]"])
    for part in ("404", "symbols[0]", error.detail, error.request_id):
        assert part in str(error)


def test_the_strongest_come_first(client):
    answer = client.forecasts(top=2, by="log_return")
    assert [(f.symbol, f.log_return) for f in answer.forecasts] == [("LAGS", 0.02), ("MSFT", 0.01)]
    assert [f.symbol for f in client.forecasts(top=2, by="score").forecasts] == ["AAPL", "MSFT"]
    with pytest.raises(ProblemError) as raised:
        client.forecasts(top=0)
    assert list(raised.value.errors) == ["top"]


def test_frames_have_the_fields_as_columns(client):
    frame = client.predict(["AAPL", "MSFT"]).frame()
    assert frame["symbol"].tolist() == ["AAPL", "MSFT"]
    assert frame["as_of"].tolist() == [pd.Timestamp("2013-11-01 20:00", tz="UTC")] * 2
    assert frame["p_up"].tolist() == [0.5, 0.501]
    empty = client.history("MSFT").frame()
    assert empty.empty
    assert {"symbol", "realised", "served_at"} <= set(empty.columns)


def test_the_past_of_a_symbol_has_its_outcomes(client, service):
    first, second = client.history("AAPL").forecasts
    assert first == PastForecast(
        "AAPL",
        FRIDAY,
        date(2013, 11, 1),
        1,
        "6",
        "0" * 16,
        100 * math.exp(0.01),
        -0.01,
        0.01,
        0.51,
        None,
        datetime(2013, 11, 1, 22, tzinfo=UTC),
        True,
        -0.02,
    )
    assert (second.for_session, second.matured, second.realised) == (MONDAY, False, None)
    assert client.history("AAPL", MONDAY, "2013-11-04").forecasts == [second]
    assert service.history.asked[-1][1:4] == ("AAPL", MONDAY, MONDAY)


def test_a_long_past_comes_whole_and_each_forecast_once(client, service, monkeypatch):
    monkeypatch.setattr(history, "MOST", 3)
    days = ["2013-10-28", "2013-10-29", "2013-10-29", "2013-10-30", "2013-10-31", "2013-11-01"]
    service.history.past = [past_forecast("AAPL", day, i / 100, None) for i, day in enumerate(days)]
    found = client.history("AAPL").forecasts
    assert [round(forecast.log_return * 100) for forecast in found] == [0, 1, 2, 3, 4, 5]


def test_a_past_that_cannot_be_shown_whole_is_refused(client, service, monkeypatch):
    monkeypatch.setattr(history, "MOST", 3)
    service.history.past = [past_forecast("AAPL", "2013-10-28", i / 100, None) for i in range(5)]
    with pytest.raises(ClientError, match="AAPL has more forecasts of 2013-10-28"):
        client.history("AAPL")


def test_the_market_s_past_is_of_one_day(client, service):
    answer = client.past_forecasts("2013-11-03", top=1)
    assert [f.symbol for f in answer.forecasts] == ["MSFT"]
    assert service.history.asked == [("market", date(2013, 11, 3), history.MARKET)]


def test_features_now_and_as_they_were_known(client, service):
    values = {"close": 100.0, "rsi_14": None}
    assert client.features("AAPL") == Features("AAPL", FRIDAY, 0, False, values)
    assert client.features("AAPL", date(2013, 11, 2)) == Features("AAPL", FRIDAY, None, False, values)
    (_, symbol, instant) = service.history.asked[-1]
    assert (symbol, instant.date()) == ("AAPL", date(2013, 11, 2))
    with pytest.raises(ProblemError) as raised:
        client.features("A/B ?#")
    assert raised.value.status == 404


def test_bars_go_in_parts_and_outcomes_come_in_their_order(client, service):
    closes = {"AAPL": 11.5, "MSFT": 2000.0, "LAGS": 0.5, "OLD": 3.0}
    rows = [BAR | {"symbol": symbol, "close": close} for symbol, close in closes.items()]
    rows[1]["date"] = "2013-11-01"
    taken = client.send_bars(pd.DataFrame(rows), at_once=3)
    assert [(o.symbol, o.outcome) for o in taken.outcomes] == [
        ("AAPL", "new"),
        ("MSFT", "quarantined"),
        ("LAGS", "failed"),
        ("OLD", "new"),
    ]
    assert taken.outcomes[1].date == date(2013, 11, 1)
    assert taken.counts == {"new": 2, "quarantined": 1, "failed": 1}
    assert taken.frame()["provisional"].tolist() == [True, False, False, True]
    sent = [[bar["symbol"] for bar in part] for part in service.bars.taken]
    assert sent == [["MSFT"], ["AAPL", "LAGS", "OLD"]]


def test_a_part_that_fails_says_how_many_bars_were_answered_before(client, service, monkeypatch):
    take = service.bars.take

    def fails_later(bars):
        if service.bars.taken:
            raise StoreError("kept")
        return take(bars)

    monkeypatch.setattr(service.bars, "take", fails_later)
    monkeypatch.setattr("pitwise.client.connection.sleep", lambda _: None)
    rows = [BAR | {"symbol": symbol} for symbol in ("AAPL", "MSFT", "LAGS", "OLD")]
    with pytest.raises(ProblemError) as raised:
        client.send_bars(rows, at_once=3)
    assert raised.value.status == 503
    assert raised.value.__notes__ == ["3 of 4 bars were answered before."]


def test_a_price_that_is_no_number_is_named_by_its_field(client):
    with pytest.raises(ProblemError) as raised:
        client.send_bars([BAR, BAR | {"symbol": "MSFT", "close": math.nan}])
    assert list(raised.value.errors) == ["bars[1].close"]


def test_no_bars_are_no_request(client, service):
    assert client.send_bars([]).counts == {}
    assert service.bars.taken == []


def test_a_bar_is_withdrawn(client, service):
    assert client.withdraw("AAPL", MONDAY).outcome == "withdrawn"
    assert service.bars.withdrawn == [("AAPL", "2013-11-04")]
    assert client.withdraw("XYZ", "2013-11-04").reason == "unknown_symbol"


def test_the_champion(client):
    model = client.model()
    assert (model.version, model.window, model.refused) == ("7", 30, {"8": "p_up is not finite"})
    assert model.since == datetime(2013, 11, 1, 21, tzinfo=UTC)


def test_readiness_names_what_fails(client, service, monkeypatch):
    monkeypatch.setattr("serving.http.routes.health.KEPT_SECONDS", 0)
    assert client.ready() == Readiness(True, {})
    service.states.parts["store"] = replace(service.states.parts["store"], ok=False, detail="is empty")
    assert client.ready() == Readiness(False, {"store": "is empty"})


def test_a_key_opens_what_it_is_for(service, tmp_path, connected, serving):
    key = add_key(tmp_path / "keys.json", "desk", ["predict"])
    with serving(fake_app(tmp_path, service)) as url:
        assert connected(url, key=key).predict(["AAPL"]).model_version == "7"
        assert service.served.recorded[-1].caller == "desk"
        for options, kind in [({}, "no-key"), ({"key": key}, "wrong-scope")]:
            with pytest.raises(ProblemError) as raised:
                connected(url, **options).model()
            assert raised.value.kind == kind


def test_threads_share_a_client(client):
    found = []
    symbols = ["AAPL", "MSFT", "LAGS"] * 10

    def ask(symbol):
        found.append((symbol, client.predict([symbol]).forecasts[0].symbol))

    threads = [threading.Thread(target=ask, args=(symbol,)) for symbol in symbols]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((symbol, symbol) for symbol in symbols)


def test_a_stream_begins_with_the_market_and_goes_on_with_what_changes(client, service):
    updates = client.stream()
    first = next(updates)
    assert first.id == 50
    assert [f.symbol for f in first.forecasts] == ["AAPL", "MSFT", "LAGS"]
    assert [e.type for e in first.errors] == ["/problems/stale-features"]
    service.states.change("MSFT", last_close=7.0)
    second = next(updates)
    assert (second.id, [(f.symbol, f.last_close) for f in second.forecasts]) == (51, [("MSFT", 7.0)])
    updates.close()


def test_a_stream_of_some_symbols_goes_on_after_an_id(client, service):
    service.states.change("MSFT", last_close=7.0)
    service.states.change("AAPL", last_close=8.0)
    updates = client.stream(["AAPL", "LAGS"], last_event_id=50)
    assert [f.symbol for f in next(updates).forecasts] == ["AAPL"]
    updates.close()


def test_a_stream_outlives_its_service_and_misses_nothing(service, tmp_path, connected, serving):
    port = free_port()
    with serving(fake_app(tmp_path, service), port) as url:
        updates = connected(url).stream()
        assert next(updates).id == 50
    service.states.change("MSFT", last_close=7.0)
    with serving(fake_app(tmp_path, service), port):
        second = next(updates)
        assert (second.id, [f.symbol for f in second.forecasts]) == (51, ["MSFT"])
        updates.close()


def test_a_stream_gives_up_after_its_patience(connected):
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        next(connected(f"http://127.0.0.1:{free_port()}").stream(patience=0.5))
    assert time.monotonic() - began < 5


def test_a_stream_that_the_service_ends_each_time_gives_up_too(scripted, connected):
    server = scripted(*[(200, {"Content-Type": "text/event-stream"}, b": \r\n\r\n")] * 9)
    with pytest.raises(UnreachableError, match="ends each stream"):
        next(connected(server.url).stream(patience=0.5))


def test_a_stream_that_is_refused_says_why(client, scripted, connected):
    with pytest.raises(ProblemError) as raised:
        next(client.stream(["XYZ"]))
    assert raised.value.kind == "unknown-symbol"
    ends = b'event: problem\r\ndata: {"type":"/problems/no-key","title":"t","detail":"d",'
    ends += b'"status":401,"request_id":"r"}\r\n\r\n'
    server = scripted((200, {"Content-Type": "text/event-stream"}, ends))
    with pytest.raises(ProblemError) as raised:
        next(connected(server.url).stream())
    assert (raised.value.kind, raised.value.request_id) == ("no-key", "r")


def test_a_stream_waits_out_a_service_that_is_busy(scripted, connected, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    busy = {"type": "/problems/busy", "title": "t", "detail": "d", "request_id": "r"}
    event = b'id: 9\r\nevent: forecasts\r\ndata: {"model_version":"7","forecasts":[],"errors":[]}\n\n'
    server = scripted((503, {}, busy), None, (200, {"Content-Type": "text/event-stream"}, event))
    updates = connected(server.url).stream(patience=0.5)
    assert next(updates).id == 9
    with pytest.raises(UnreachableError):
        next(updates)
    asked = [headers.get("Last-Event-ID") for _, _, headers, _ in server.asked]
    assert asked[:4] == [None, None, None, "9"]
