"""The dashboard's pages in a browser: first byte, first paint, bytes; beside Streamlit's same table.

`python benchmarks/dashboard.py http://127.0.0.1:8600` opens each page of a running service several
times, each time in a browser that has nothing of it. It needs Playwright and Chromium. With
`--streamlit PYTHON`, a Python that has Streamlit, the same table of forecasts is shown by Streamlit in
the same run.
"""

import argparse
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser, sync_playwright

PAGES = {
    "market": "/",
    "forecasts": "/forecasts",
    "symbol": "/symbols/{symbol}",
    "health": "/health",
    "market, as known at": "/?as_of={day}",
    "forecasts, as known at": "/forecasts?as_of={day}",
    "symbol, as known at": "/symbols/{symbol}?as_of={day}",
    "health, as known at": "/health?as_of={day}",
}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    print("| page | first byte, ms | first paint, ms | shown, ms | kB |\n|---|---|---|---|---|")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, path in PAGES.items():
            address = args.address + path.format(symbol=args.symbol, day=args.day)
            visits = [opened(browser, address, "main .card") for _ in range(args.visits)]
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
