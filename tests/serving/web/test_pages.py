"""The dashboard's pages as a client gets them."""

import csv
import gzip
import io
import math
import re
from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service

from pitwise.errors import StoreError
from pitwise.workspace import Workspace, write_json
from serving.http.auth import add_key, revoke_key
from serving.http.middleware import COOKIE, PAGES, needed_scope

pytestmark = pytest.mark.unit
ADDRESSES = [
    "/",
    "/?as_of=2013-10-31",
    "/forecasts",
    "/forecasts?as_of=2013-10-31",
    "/symbols/AAPL",
    "/symbols/AAPL?as_of=2013-10-31",
    "/portfolio",
    "/portfolio?as_of=2013-10-31",
    "/backtest",
    "/backtest?as_of=2013-10-31",
    "/model",
    "/model?as_of=2013-10-31",
    "/health",
    "/health?as_of=2013-10-31",
]


def shown(page: str) -> list[str]:
    """Symbols of the table's rows that are not hidden, in order."""
    return re.findall(r'<tr><th scope="row"><a href="/symbols/(\w+)', page)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_holds_nothing_inline_and_may_load_nothing_from_elsewhere(client, address):
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", answer.text)
    for script in re.findall(r"<script[^>]*>", answer.text):
        assert 'src="/static/' in script or 'type="application/json"' in script
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
        assert address.startswith(("/", "?", "#", "data:,")), address
        if address.startswith("/static/"):
            assert client.get(address).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_files_a_page_says_what_to_run(tmp_path, address):
    with TestClient(fake_app(tmp_path)) as client:
        answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert re.search("run <code>(dvc repro|pitwise run)", answer.text)


def test_the_model_page_tells_where_a_transformer_looks(tmp_path):
    shares = [{"back": at, "share": share, "share_se": None} for at, share in enumerate([0.3, 0.6, 0.1])]
    week = {"week": "2013-W43", "as_known_at": "2013-10-25T20:00:00+00:00"}
    week["importance"] = {"importance": [], "attention": shares}
    workspace = Workspace(tmp_path)
    write_json(week, workspace.path("data/monitoring/weeks/2013-W43.json"))
    service = replace(fake_service(), workspace=workspace)
    with TestClient(fake_app(tmp_path, service)) as client:
        page = words(client.get("/model").text)
    assert (
        "Did all count alike, each would have 33.3%. sessions back share, % 1 60.00 0 30.00 2 10.00"
        in page
    )


def test_the_table_has_the_markets_forecasts_and_they_are_in_the_log_first(client, service):
    page = client.get("/forecasts").text
    # LAGS and OLD lag behind the market by 5 and 6 sessions; 5 may be missing.
    assert shown(page) == ["LAGS", "MSFT", "AAPL"]
    assert service.served.symbols == [["AAPL", "MSFT", "LAGS"]]
    row = words(page.split(">MSFT")[1].split("</tr>")[0])
    assert row.split() == ["50.1", "+1.01", "102.02", "101.00", "−1.000"]
    assert "OLD The newest session is of 2013-10-24" in words(page)
    assert "Champion version 7 is unproven" in page


def test_what_the_log_does_not_take_is_not_shown(client, service):
    service.served.fault = StoreError("disk full")
    answer = client.get("/forecasts")
    assert answer.status_code == 503
    assert "MSFT" not in answer.text


@pytest.mark.parametrize(
    ("query", "symbols"),
    [
        ("sort=symbol", ["AAPL", "LAGS", "MSFT"]),
        ("sort=expected", ["AAPL", "MSFT", "LAGS"]),
        ("sort=-last", ["LAGS", "MSFT", "AAPL"]),
        ("q=ms", ["MSFT"]),
        ("marked=true", ["LAGS"]),
        ("signal=BUY", []),
    ],
)
def test_the_address_says_what_is_shown(client, query, symbols):
    assert shown(client.get(f"/forecasts?{query}").text) == symbols


def test_of_a_large_market_the_chosen_ones_are_shown_and_logged_up_to_a_number(
    client, service, monkeypatch
):
    monkeypatch.setattr("serving.web.forecasts.ROWS", 2)
    page = client.get("/forecasts?sort=symbol").text
    assert shown(page) == ["AAPL", "LAGS"]
    assert "MSFT" not in page
    assert "2 of 3 shown" in words(page)
    assert '<table data-table="part">' in page
    assert shown(client.get("/forecasts?q=ms").text) == ["MSFT"]
    assert service.served.symbols == [["AAPL", "LAGS"], ["MSFT"]]
    client.get("/forecasts?sort=symbol")  # which is kept
    assert service.served.symbols[2:] == [["AAPL", "LAGS"]]
    assert "MSFT" in client.get("/forecasts/csv").text


@pytest.mark.parametrize("query", ["sort=nothing", "as_of=2013-02-30", "as_of=x", "q=" + "x" * 65])
def test_an_impossible_address_is_told_what_is_wrong(client, query):
    answer = client.get(f"/forecasts?{query}")
    assert answer.status_code == 422
    assert "text/html" in answer.headers["content-type"]
    assert query.partition("=")[0] in words(answer.text)


def test_another_state_is_another_page(client, service):
    before = client.get("/forecasts")
    held = {"If-None-Match": before.headers["etag"]}
    assert client.get("/forecasts", headers=held).status_code == 304
    service.states.change("MSFT", log_return=-0.5)
    after = client.get("/forecasts", headers=held)
    assert shown(after.text) == ["LAGS", "AAPL", "MSFT"]


def test_the_file_has_what_the_table_has(client):
    answer = client.get("/forecasts/csv")
    assert 'filename="forecasts-as-of-2013-11-01.csv"' in answer.headers["content-disposition"]
    rows = {row["symbol"]: row for row in csv.DictReader(io.StringIO(answer.text))}
    assert float(rows["MSFT"]["last_close"]) == 101
    assert float(rows["MSFT"]["target"]) == pytest.approx(102.01505)
    assert rows["LAGS"]["marks"] == "5 sessions old"


def test_before_a_champion_served_the_walk_forward_is_shown_and_says_so(client, service):
    page = client.get("/forecasts?as_of=2013-10-30").text
    assert shown(page) == ["MSFT", "AAPL"]
    assert "no champion was serving then" in page
    # 0.02 is the mean of the seeds; the close is that of the 28th session, climbing 1% each.
    row = words(page.split(">AAPL")[1].split("</tr>")[0])
    assert row.split() == ["52.0", "+2.02", "133.64", "131.00", "+200.0"]
    assert "No forecasts" in client.get("/forecasts?as_of=2013-10-29").text


def test_what_was_served_then_is_shown_and_its_showing_is_written_down(client, service):
    page = client.get("/forecasts?as_of=2013-11-01").text
    assert "by version 6, answered from 2013-11-01 22:00 UTC on" in page
    assert shown(page) == ["MSFT", "AAPL"]
    assert [one.symbol for one in service.served.recorded[-1].shown] == ["AAPL", "MSFT"]


def test_a_symbols_page_shows_no_outcome_that_was_not_known(client):
    now = words(client.get("/symbols/AAPL").text)
    assert "right in 50.0% of 2 sessions from 2013-10-31 to 2013-11-01" in now
    assert "always up: 100.0%" in now
    then = words(client.get("/symbols/AAPL?as_of=2013-10-31").text)
    assert "right in 100.0% of 1 sessions from 2013-10-31 to 2013-10-31" in then
    assert "2013-11-01" not in then.split("Forecasts and what came of them")[1].split("Events")[0]


def test_an_indicator_is_told_by_session_as_it_was_known(client):
    told = client.get("/symbols/AAPL/features?name=close&name=rsi_14&as_of=2013-10-31").json()
    # The 29th session, climbing 1% each.
    assert (told["day"][-1], told["close"][-1]) == ("2013-10-31", pytest.approx(100 * math.exp(0.28)))
    assert told["rsi_14"][0] == 50
    assert len(told["day"]) == 29
    assert client.get("/symbols/AAPL/features?name=nothing").status_code == 422
    assert client.get("/symbols/NONE/features?name=close").json() == {"day": [], "close": []}


def test_a_symbol_that_nobody_knows_is_not_found(client):
    answer = client.get("/symbols/<b>")
    assert answer.status_code == 404
    assert "<b>" not in answer.text.split("<main")[1].split("no advice")[0].replace("<b>Pitwise", "")
    assert client.get("/static/../app.py").status_code == 404


def test_a_page_is_compressed_for_whom_takes_it(client):
    with client.stream("GET", "/forecasts", headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    plain = client.get("/forecasts", headers={"Accept-Encoding": "identity"})
    assert gzip.decompress(packed) == plain.content
    assert client.head("/forecasts").status_code == 200


def test_health_puts_what_fails_first(client, service):
    parts = service.states.parts
    parts["store"] = replace(parts["store"], ok=False, detail="does not answer")
    said = words(client.get("/health").text)
    assert (
        "Act Store does not do well: does not answer; 2 of 4 symbols have no bar of 2013-11-01" in said
    )


def test_a_report_is_framed_where_it_reaches_nothing(service, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/drift.html").write_text("<script>alert(1)</script>")
    with TestClient(fake_app(tmp_path, replace(service, workspace=Workspace(tmp_path)))) as client:
        page, report = client.get("/health"), client.get("/health/reports/drift")
    assert re.findall('<iframe[^>]*src="/health/reports/drift" sandbox="allow-scripts"', page.text)
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "frame-ancestors 'self'" in policy


def test_a_file_that_cannot_be_read_is_no_page(client, service, tmp_path):
    workspace = Workspace(tmp_path)
    workspace.daily_features.parent.mkdir(parents=True)
    workspace.daily_features.write_text("no parquet")
    with TestClient(fake_app(tmp_path, replace(service, workspace=workspace))) as client:
        answer = client.get("/forecasts")
    assert answer.status_code == 503
    assert "does not answer" in answer.text


@pytest.fixture
def locked(tmp_path):
    """A client of a service that needs a key, and a key."""
    key = add_key(tmp_path / "keys.json", "desk")
    with TestClient(fake_app(tmp_path, fake_service()), follow_redirects=False) as client:
        yield client, key


def test_without_a_key_a_page_leads_to_the_login_and_back(locked):
    client, key = locked
    asked = client.get("/symbols/AAPL?as_of=2013-10-31")
    assert asked.status_code == 303
    login = client.get(asked.headers["location"])
    assert login.status_code == 200
    (to,) = re.findall('name="next" value="([^"]*)"', login.text)
    assert to == "/symbols/AAPL?as_of=2013-10-31"
    wrong = client.post("/login", data={"key": "pw_x", "next": to})
    assert (wrong.status_code, "no valid key" in wrong.text) == (401, True)
    right = client.post("/login", data={"key": key, "next": to})
    assert (right.status_code, right.headers["location"]) == (303, to)
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/forecasts").status_code == 200
    out = client.post("/logout")
    assert client.get("/forecasts").status_code == out.status_code == 303


def test_a_login_reads_and_changes_nothing(locked, tmp_path):
    client, key = locked
    client.cookies.set(COOKIE, key)
    assert client.get("/v1/forecasts").status_code == 200
    assert client.post("/v1/predict", json={"symbols": ["AAPL"]}).status_code == 401
    assert client.delete("/v1/bars/AAPL/2013-11-04").status_code == 401
    revoke_key(tmp_path / "keys.json", "desk")
    assert client.get("/forecasts").status_code == 303


@pytest.mark.parametrize("to", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere", "x"])
def test_the_login_leads_nowhere_else(locked, to):
    client, key = locked
    assert client.post("/login", data={"key": key, "next": to}).headers["location"] == "/forecasts"


def test_a_key_for_something_else_opens_no_page(locked, tmp_path):
    client, _ = locked
    key = add_key(tmp_path / "keys.json", "feed", ["bars"])
    assert "scope" in client.post("/login", data={"key": key, "next": "/"}).text
    client.cookies.set(COOKIE, key)
    assert client.get("/forecasts").status_code == 403
    assert {needed_scope(page) for page in PAGES} == {"predict", "model"}
