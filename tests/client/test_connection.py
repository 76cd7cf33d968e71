"""What is sent again and what is not, how long the client waits, and what it says of failures."""

import json
import re
import subprocess
import sys

import pytest
from support.servers import free_port

from pitwise.client import AnswerError, ClientError, ProblemError, UnreachableError, connection

pytestmark = pytest.mark.component
OUTCOME = {"symbol": "A", "date": "2013-11-04", "outcome": "new", "reason": "", "provisional": True}
TAKEN = (200, {}, {"outcomes": [OUTCOME], "counts": {"new": 1}})
NONE = (200, {}, {"model_version": "7", "forecasts": [], "errors": []})
BAR = {"symbol": "A", "date": "2013-11-04", "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
BUSY = {"type": "/problems/busy", "title": "Busy", "detail": "Later.", "request_id": "r1"}


def problem(status=503, **headers):
    return (status, {name.replace("_", "-"): value for name, value in headers.items()}, BUSY)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(connection, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("failure", [problem(502), problem(503), problem(429), None])
@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda client: client.predict(["A"]), NONE),
        (lambda client: client.forecasts(), NONE),
        (lambda client: client.send_bars([BAR]), TAKEN),
    ],
)
def test_what_is_safe_to_repeat_is_sent_again(scripted, connected, pauses, call, answer, failure):
    server = scripted(failure, failure, answer)
    call(connected(server.url, retries=2))
    assert len(server.asked) == 3
    first, *others = [(method, path, body) for method, path, _, body in server.asked]
    assert others == [first, first]
    assert len({headers["X-Request-ID"] for _, _, headers, _ in server.asked}) == 1
    assert len(pauses) == 2


def test_a_withdrawal_that_may_have_been_carried_out_is_not_sent_again(scripted, connected, pauses):
    for failure, error in [(problem(503), ProblemError), (None, UnreachableError)]:
        server = scripted(failure, TAKEN)
        with pytest.raises(error):
            connected(server.url).withdraw("A", "2013-11-04")
        assert len(server.asked) == 1
    assert pauses == []


def test_a_withdrawal_that_was_one_request_too_many_is_sent_again(scripted, connected, pauses):
    server = scripted(problem(429, Retry_After="7"), TAKEN)
    assert connected(server.url).withdraw("A", "2013-11-04").outcome == "new"
    assert pauses == [7]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_an_error_that_stays_is_raised_at_once(scripted, connected, pauses, status):
    server = scripted((status, {}, BUSY))
    with pytest.raises(ProblemError) as raised:
        connected(server.url).forecasts()
    assert raised.value.status == status
    assert pauses == []


def test_the_last_try_s_problem_is_raised(scripted, connected, pauses):
    server = scripted(*[problem()] * 3, problem(429))
    with pytest.raises(ProblemError) as raised:
        connected(server.url, retries=3).forecasts()
    assert (raised.value.status, raised.value.kind, raised.value.request_id) == (429, "busy", "r1")
    assert len(server.asked) == 4


def test_the_pause_is_what_the_service_asks_for_and_else_doubles(scripted, connected, pauses):
    server = scripted(problem(Retry_After="5"), problem(), problem(), NONE)
    connected(server.url).forecasts()
    # 0.25, 0.5, 1, ... seconds, and of each a half at least.
    assert pauses[0] == 5
    assert 0.25 <= pauses[1] <= 0.5
    assert 0.5 <= pauses[2] <= 1


def test_a_quota_of_the_day_is_not_waited_for(scripted, connected, pauses):
    server = scripted(problem(429, Retry_After="61"), NONE)
    with pytest.raises(ProblemError):
        connected(server.url).forecasts()
    assert pauses == []


def test_a_service_that_is_not_there_is_named(connected, pauses):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=re.escape(url)):
        connected(url, retries=1).withdraw("A", "2013-11-04")  # was never sent: safe to try again
    assert len(pauses) == 1


def test_an_answer_that_is_no_problem_document_keeps_its_status(scripted, connected):
    server = scripted((500, {"X-Request-ID": "r9"}, b"<h1>gateway</h1>"))
    with pytest.raises(ProblemError) as raised:
        connected(server.url).model()
    error = raised.value
    assert (error.status, error.type, error.request_id) == (500, "about:blank", "r9")


@pytest.mark.parametrize("body", [b"hello", {"model_version": "7"}, {"forecasts": [3]}, []])
def test_an_answer_of_something_else_says_so(scripted, connected, body):
    server = scripted((200, {}, body))
    with pytest.raises(AnswerError):
        connected(server.url).predict(["A"])


def test_what_a_newer_service_says_besides_is_left_out(scripted, connected):
    status, headers, answer = NONE
    server = scripted((status, headers, {**answer, "weather": "fair"}))
    assert connected(server.url).predict(["A"]).model_version == "7"


def test_every_request_has_its_headers(scripted, connected):
    traces = iter(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", None])
    server = scripted(NONE, NONE)
    client = connected(server.url + "/behind", key="pw_1", traceparent=lambda: next(traces))
    answers = [client.predict(["A"]), client.predict(["A"])]
    (method, path, first, body), (*_, second, _) = server.asked
    assert (method, path, json.loads(body)) == ("POST", "/behind/v1/predict", {"symbols": ["A"]})
    assert first["Authorization"] == "Bearer pw_1"
    assert first["Content-Type"] == "application/json"
    assert first["traceparent"].startswith("00-aaaa")
    assert "traceparent" not in second
    assert [a.request_id for a in answers] == [first["X-Request-ID"], second["X-Request-ID"]]
    assert first["X-Request-ID"] != second["X-Request-ID"]


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(scripted, connected, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    server = scripted(NONE)
    assert connected(server.url, retries=0).forecasts().forecasts == []


@pytest.mark.parametrize("url", ["127.0.0.1:8600", "ftp://desk", "", "http://"])
def test_a_url_that_is_none_is_refused(connected, url):
    with pytest.raises(ClientError, match="no URL"):
        connected(url)


@pytest.mark.parametrize("key", ["pw_secret\n", "pw_sécret"])
def test_a_key_that_is_none_is_refused_and_not_shown(connected, key):
    with pytest.raises(ClientError) as raised:
        connected("http://127.0.0.1:8600", key=key)
    assert "cret" not in str(raised.value)


def test_it_loads_neither_pandas_nor_a_room_and_says_what_it_needs():
    code = """
import sys
import pitwise.client
names = {name.partition(".")[0] for name in sys.modules}
print(sorted(names & {"pandas", "numpy", "serving", "feast", "fastapi"}))
"""
    assert python(code) == "[]\n"
    code = """
import sys
sys.modules["httpx"] = None
try:
    import pitwise.client
except ImportError as error:
    print(error)
"""
    assert "pip install 'pitwise[client]'" in python(code)


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
