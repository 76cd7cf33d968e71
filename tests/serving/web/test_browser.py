"""The pages in a real browser: used by keyboard, read by axe, and asking for nothing from elsewhere."""

import shutil
import threading
import time
from urllib.parse import urlsplit

import pytest
import uvicorn
from support.browser import FLAGS
from support.fake_service import fake_app

pytestmark = pytest.mark.component
PAGES = [
    "/",
    "/forecasts",
    "/symbols/AAPL?as_of=2013-10-31&show=rsi_14",
    "/portfolio",
    "/backtest",
    "/model",
    "/health",
]


@pytest.fixture
def address(service, tmp_path):
    app = fake_app(tmp_path, service)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.ending.set()  # or the end would wait for the streams of open pages
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser():
    """The machine's Chromium; the test is skipped where there is none, or no Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on this machine; .ci/run installs one")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def test_a_person_uses_the_pages(browser, address, service):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    said, asked = [], []
    for width, theme in ((1280, "light"), (390, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(urlsplit(request.url)))
        for path in PAGES:
            page.goto(address + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
            found = axe.Axe().run(page)
            assert not found.response["violations"], (path, theme, found.generate_report())
        page.close()
    assert said == []
    own = urlsplit(address).netloc
    assert {url.netloc for url in asked if url.scheme != "data"} == {own}

    page = browser.new_page()
    page.goto(address + "/forecasts")
    page.keyboard.press("/")
    page.keyboard.type("s")
    assert page.locator("tbody tr:visible th").all_inner_texts() == ["LAGS", "MSFT"]
    page.get_by_role("link", name="symbol", exact=True).click()
    assert "q=s" in page.url
    assert "sort=symbol" in page.url
    page.reload()
    assert page.locator("tbody tr:visible th").all_inner_texts() == ["LAGS", "MSFT"]
    page.locator("tbody tr:visible a").first.focus()
    page.keyboard.press("ArrowDown")
    service.states.change("MSFT", log_return=-0.5)
    page.get_by_role("link", name="The market has changed").wait_for(timeout=5000)
    page.keyboard.press("Enter")
    page.wait_for_url("**/symbols/MSFT")
    assert page.locator("canvas").count() == 1
    page.get_by_label("mean of 20").check()
    page.get_by_role("combobox", name="below").select_option("rsi_14")
    page.get_by_label("Without rsi_14").wait_for(timeout=5000)
    assert "show=rsi_14" in page.url
    page.get_by_label("Without rsi_14").click()
    assert page.locator("canvas").count() == 1
    assert "show" not in page.url
    page.locator("[data-chart]").focus()
    page.keyboard.press("ArrowLeft")  # to the last bar
    page.keyboard.press("ArrowLeft")
    page.get_by_text("2013-10-31: open").wait_for(timeout=5000)
    page.keyboard.press("[")
    page.wait_for_url("**/symbols/MSFT?as_of=2013-10-31")
    page.goto(address + "/backtest")
    page.locator("#costs").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-costs]:visible").get_attribute("data-costs") == "1.5"
    assert "costs=1.5" in page.url
    page.goto(address + "/portfolio")
    csv = {"name": "h.csv", "mimeType": "text/csv", "buffer": b"symbol,shares\nAAPL,1,2\n"}
    page.set_input_files("#csv", [csv])
    page.wait_for_function("document.getElementById('holdings').value.includes('AAPL')")
    page.locator("form.holdings button").click()
    page.get_by_role("alert").get_by_text("line 2").wait_for(timeout=5000)
