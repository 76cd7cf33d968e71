"""A hook of mkdocs: Markdown from outside docs/ as pages, and links that hold in both places.

A link in a Markdown file of this repository is relative to that file, so that it works where the
repository is browsed. In the site it leads to the page made of its target. Where the target is no page
(a module, a folder), the text stays and the link goes.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Path in the repository to path in the site."""
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def in_site(link: re.Match) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or ":" in target:  # of this page, or an address
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page_path = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if page_path is None:
            return link["text"]
        relative = posixpath.relpath(page_path, posixpath.dirname(here) or ".")
        return f"{link['image']}[{link['text']}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(in_site, markdown)
