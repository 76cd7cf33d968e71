"""The documentation's pages, in a browser that can reach nothing but the service."""

import json
import shutil
import subprocess
import threading
import time
from urllib.parse import urlsplit

import pytest
import uvicorn
from fake_service import fake_service

from serving.api import create_app

PATHS = ["/v1/predict", "/v1/forecasts", "/v1/features/{symbol}", "/v1/bars", "/v1/model", "/metrics"]
OF_THE_BROWSER = (
    "clients2.google.com",
    "accounts.google.com",
    "update.googleapis.com",
    "redirector.gvt1.com",
    "content-autofill.googleapis.com",
    "optimizationguide-pa.googleapis.com",
)
"""Chromium's own errands, which no page asks for; none of them leaves the machine here."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    app = create_app(fake_service(tmp_path_factory.mktemp("service")))
    config = uvicorn.Config(app, port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_a_page_shows_the_api_and_fetches_nothing_from_elsewhere(server, page, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/me"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *(f"--log-net-log={log}", "--virtual-time-budget=10000", "--dump-dom", f"{server}/{page}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for path in PATHS:
        assert path in done.stdout
    events = json.loads(log.read_text())["events"]
    addresses = [event.get("params", {}).get("url", "") for event in events]
    reached = {urlsplit(address).hostname for address in addresses if address.startswith("http")}
    assert "127.0.0.1" in reached
    assert reached - {"127.0.0.1", *OF_THE_BROWSER} == set()
