"""A page as a browser shows it, and what the page asks for."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

# Without the last four the browser itself calls out at its start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BROWSERS_OWN = "not an origin"
"""Initiator, in the browser's log, of requests that come from no page."""


class Page(NamedTuple):
    dom: str
    """HTML after the scripts have run."""
    requests: list[str]
    """Addresses that the page, its scripts, frames and workers asked for over HTTP, reached or not."""


def open_page(address: str, folder: Path, seconds: int = 10, timeout: float = 120) -> Page:
    """Open a page in a browser that can reach 127.0.0.1 alone; the test is skipped where there is none.

    Args:
        address: http:// or file://.
        folder: for the browser's new profile and its log.
        seconds: until the page is taken as done, by its own clock, which the browser lets run ahead.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or google-chrome on this machine; .ci/run installs one")
    log = folder / "network.json"
    command = [
        *(browser, "--headless", *FLAGS, f"--user-data-dir={folder / 'profile'}"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        *(f"--log-net-log={log}", f"--virtual-time-budget={1000 * seconds}", "--dump-dom", address),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    return Page(done.stdout, _requests(log))


def _requests(log: Path) -> list[str]:
    document = json.loads(log.read_text())
    started = document["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [event.get("params", {}) for event in document["events"] if event["type"] == started]
    urls = [event["url"] for event in events if "url" in event and event["initiator"] != BROWSERS_OWN]
    return [url for url in urls if url.startswith("http")]
