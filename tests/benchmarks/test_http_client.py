"""The load client: what it sends, what counts as failed, and that waiting counts."""

import http.server
import threading
import time

import pytest

from benchmarks.serving.http_client import Load, closed_loop, open_loop, prepared

pytestmark = pytest.mark.component

STALL_SECONDS = 0.3


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list = []  # noqa: RUF012
    answering = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.answering:
            self.asked.append((self.path, body, self.headers["X-Request-ID"]))
            if len(self.asked) == 10:
                time.sleep(STALL_SECONDS)
        answer = b"x" * 200_000  # comes in several parts
        self.send_response(503 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url():
    """Of a server that stalls at its tenth request, and says 503 under `/broken`."""
    Handler.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_requests_go_out_as_prepared_and_failures_are_counted(url):
    request = prepared(f"{url}/v1/predict", {"symbols": ["A"]}, {"X-Request-ID": "seven"})
    measured = closed_loop(url, [request], 2, 0.5)
    assert len(measured.milliseconds) == len(Handler.asked) > 10
    assert set(Handler.asked) == {("/v1/predict", b'{"symbols": ["A"]}', "seven")}
    assert measured.failed == 0
    broken = closed_loop(url, [prepared(f"{url}/broken", {})], 1, 0.1)
    assert broken.failed == len(broken.milliseconds) > 0


def test_a_closed_loop_waits_for_a_stall_and_an_open_loop_counts_what_is_due_meanwhile(url):
    request = prepared(f"{url}/", {})
    closed = closed_loop(url, [request], 1, 0.6)
    assert sum(ms > 900 * STALL_SECONDS for ms in closed.milliseconds) == 1
    Handler.asked.clear()
    (measured,) = open_loop(url, [Load(request, 100)], 0.6)
    assert len(measured.milliseconds) == 60
    assert measured.failed == 0
    # Half of the 30 requests that were due in the stall waited for half of it or more.
    assert sum(ms > 500 * STALL_SECONDS for ms in measured.milliseconds) >= 10
