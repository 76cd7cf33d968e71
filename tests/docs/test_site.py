"""The documentation's site: it builds strictly, and a page loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.once import once

ROOT = Path(__file__).resolve().parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Tags that load what their attribute names; links of these kinds do too."""
LOADING_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
}


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    return once(tmp_path_factory, "site", build)


def build(folder: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"),
            *("--config-file", ROOT / "mkdocs.yml", "--site-dir", folder),
        ],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in LOADS:
            self.addresses += [named.get(LOADS[tag]) or "", *(named.get("srcset") or "").split()]
        if tag == "link" and LOADING_LINKS & set((named.get("rel") or "").split()):
            self.addresses.append(named.get("href") or "")


def loads(page: str) -> list[str]:
    parser = Loads()
    parser.feed(page)
    return parser.addresses


def elsewhere(addresses: list[str]) -> list[str]:
    return [address for address in addresses if re.match(r"(?i)\s*([a-z]+:)?//", address)]


def test_what_a_page_loads_is_found():
    page = (
        '<script src="https://a.example/x.js"></script><link rel="stylesheet" href="//b.example/x.css">'
        '<img src="here.png"><a href="https://c.example">not loaded</a>'
    )
    assert elsewhere(loads(page)) == ["https://a.example/x.js", "//b.example/x.css"]


@pytest.mark.component
def test_no_page_loads_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        assert elsewhere(loads(text)) == [], page
        # Material's script fetches mermaid for these, and a repository's figures for that.
        assert 'class="mermaid"' not in text, page
        assert "md-source" not in text, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(url\(|@import\s)["']?\s*(https?:)?//""", sheet.read_text()), sheet


@pytest.mark.component
@pytest.mark.parametrize(
    ("page", "anchor"),
    [
        ("index.html", "What it finds, honestly"),
        ("reference/cleaning.html", "pitwise.cleaning.clean.clean"),
        ("reference/features.html", "pitwise.features.windows.window_ends"),
        ("reference/workspace.html", "pitwise.workspace.Workspace"),
        ("benchmarks.html", "The whole market, stage by stage"),
    ],
)
def test_pages_have_what_they_are_for(site, page, anchor):
    assert anchor in (site / page).read_text()


@pytest.mark.component
def test_links_between_pages_hold_although_some_lie_outside_docs(site):
    index = (site / "index.html").read_text()
    for target in ("contributing.html", "benchmarks.html", "adr/index.html", "pipeline.svg"):
        assert f'"{target}"' in index
    assert 'href="params.yaml"' not in index
