"""The documentation's pages, in a browser that can reach nothing but the service."""

import threading
import time
from urllib.parse import urlsplit

import pytest
import uvicorn
from support.browser import open_page
from support.fake_service import fake_app

PATHS = ["/v1/predict", "/v1/forecasts", "/v1/features/{symbol}", "/v1/bars", "/v1/model", "/metrics"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    config = uvicorn.Config(fake_app(tmp_path_factory.mktemp("service")), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_a_page_shows_the_api_and_fetches_nothing_from_elsewhere(server, page, tmp_path):
    shown = open_page(f"{server}/{page}", tmp_path)
    for path in PATHS:
        assert path in shown.dom
    assert {urlsplit(address).hostname for address in shown.requests} == {"127.0.0.1"}


def test_what_a_page_asks_for_elsewhere_is_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<p id="p">before</p><img src="http://image.invalid/a.png">'
        '<iframe src="http://frame.invalid/"></iframe>'
        '<script>document.getElementById("p").textContent = "after"; fetch("https://script.invalid/")'
        "</script>"
    )
    shown = open_page(page.as_uri(), tmp_path)
    assert "after" in shown.dom
    hosts = {urlsplit(address).hostname for address in shown.requests}
    assert hosts == {"image.invalid", "frame.invalid", "script.invalid"}
