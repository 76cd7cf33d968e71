"""The dashboard's pages in a browser: first byte, first paint, bytes; beside Streamlit's same table.

`python -m benchmarks.dashboard http://127.0.0.1:8600` opens each page of a running service several
times, each time in a browser that has nothing of it. It needs Playwright and Chromium. With
`--streamlit PYTHON`, a Python that has Streamlit, the same table of forecasts is shown by Streamlit in
the same run. `--check` reads each page with axe instead, in both themes and two widths, and fails where
one is violated, the console has said something, or a page asked elsewhere; `--pictures FOLDER` takes
the pictures of the README.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from playwright.sync_api import Browser, sync_playwright

from tests.support.browser import FLAGS

PAGES = {
    "market": "/",
    "forecasts": "/forecasts",
    "symbol": "/symbols/{symbol}",
    "symbol, with an indicator": "/symbols/{symbol}?show=rsi_14",
    "portfolio": "/portfolio",
    "backtest": "/backtest",
    "model": "/model",
    "health": "/health",
    "market, as known at": "/?as_of={day}",
    "forecasts, as known at": "/forecasts?as_of={day}",
    "symbol, as known at": "/symbols/{symbol}?as_of={day}",
    "model, as known at": "/model?as_of={day}",
    "health, as known at": "/health?as_of={day}",
}
PICTURES = {
    "market": "/",
    "forecasts": "/forecasts",
    "symbol": "/symbols/{symbol}?show=rsi_14",
}
VIEWS: tuple[tuple[int, Literal["light", "dark"]], ...] = (
    (1280, "light"),
    (1280, "dark"),
    (390, "light"),
    (390, "dark"),
)
"""Widths and themes that a page is checked in."""
TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const files = performance.getEntriesByType("resource");
  return {
    first_byte: page.responseStart,
    paint: paint ? paint.startTime : null,
    bytes: [page, ...files].reduce((sum, file) => sum + file.transferSize, 0),
  };
}"""
APP = """
import pandas as pd
import streamlit as st

st.title("Forecasts")
st.dataframe(pd.read_csv({path!r}), height=800)
"""


def opened(browser: Browser, address: str, shows: str) -> dict[str, Any]:
    """What one visit took: milliseconds to the first byte, to the first paint and until `shows` (a
    selector) is there, and bytes over the wire."""
    context = browser.new_context()
    page = context.new_page()
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(shows)
    shown = 1e3 * (time.perf_counter() - started)
    page.wait_for_load_state("load")
    found = page.evaluate(TIMES) | {"shown": shown}
    context.close()
    return found


def row(name: str, visits: list[dict[str, Any]]) -> str:
    first_byte, paint, shown, size = (
        median(visit[key] or 0 for visit in visits) for key in ("first_byte", "paint", "shown", "bytes")
    )
    return f"| {name} | {first_byte:.0f} | {paint:.0f} | {shown:.0f} | {size / 1e3:.0f} |"


def faults(browser: Browser, address: str, paths: dict[str, str]) -> list[str]:
    """What axe, the console or the network has against the pages, in both themes and two widths."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[str] = []
    said: list[str] = []
    asked: list[SplitResult] = []
    own = urlsplit(address).netloc
    for width, theme in VIEWS:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(urlsplit(request.url)))
        for name, path in paths.items():
            page.goto(address + path)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                said.append("is wider than the window")
            said.extend(f"asks {u.netloc}" for u in asked if u.scheme != "data" and u.netloc != own)
            said.extend(each["id"] for each in Axe().run(page).response["violations"])
            found += [f"{name}, {width} {theme}: {each}" for each in said]
            said.clear()
            asked.clear()
        page.close()
    return found


def take_pictures(browser: Browser, address: str, paths: dict[str, str], folder: Path) -> None:
    """The top of each page, light, without loss and small."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
    for name, path in paths.items():
        page.goto(address + path, wait_until="load")
        page.wait_for_timeout(1000)  # until what scripts draw is there
        picture = folder / f"{name}.webp"
        Image.open(BytesIO(page.screenshot())).convert("RGB").save(picture, lossless=True)
        print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")
    page.close()


@contextmanager
def streamlit(python: str, table: bytes, folder: Path) -> Iterator[str]:
    """The address at which Streamlit shows a table in CSV."""
    path = folder / "forecasts.csv"
    path.write_bytes(table)
    app = folder / "app.py"
    app.write_text(APP.format(path=str(path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
    command = [python, "-m", "streamlit", "run", str(app), *options, "--browser.gatherUsageStats=false"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of a running service that needs no key")
    parser.add_argument("--symbol", default="AAPL")
    parser.add_argument("--day", default="2017-05-05", help="to look back at")
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--streamlit", help="a Python that has Streamlit")
    parser.add_argument("--check", action="store_true", help="read the pages with axe instead")
    parser.add_argument("--pictures", type=Path, help="a folder: take pictures instead")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")

    def filled(paths: dict[str, str]) -> dict[str, str]:
        return {name: path.format(symbol=args.symbol, day=args.day) for name, path in paths.items()}

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        if args.pictures:
            take_pictures(browser, args.address, filled(PICTURES), args.pictures)
            return
        if args.check:
            found = faults(browser, args.address, filled(PAGES))
            print("\n".join(found) or "no page is at fault")
            sys.exit(bool(found))
        print("| page | first byte, ms | first paint, ms | shown, ms | kB |\n|---|---|---|---|---|")
        for name, path in filled(PAGES).items():
            visits = [opened(browser, args.address + path, "main .card") for _ in range(args.visits)]
            print(row(name, visits), flush=True)
        if args.streamlit:
            with urllib.request.urlopen(f"{args.address}/forecasts/csv") as answer:
                table = answer.read()
            with streamlit(args.streamlit, table, Path(folder)) as address:
                opened(browser, address, "[data-testid=stDataFrame] canvas")  # its first visit loads
                visits = [
                    opened(browser, address, "[data-testid=stDataFrame] canvas")
                    for _ in range(args.visits)
                ]
                print(row("forecasts, by Streamlit", visits))
        browser.close()


if __name__ == "__main__":
    main()
