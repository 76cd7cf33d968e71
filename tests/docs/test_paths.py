"""The pages that guide a reader through the tree name files that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
PAGES += [f"docs/adr/{page.name}" for page in (ROOT / "docs/adr").glob("*.md")]
ROOMS = (
    "pitwise",
    "feature_repo",
    "training",
    "serving",
    "monitoring",
    "tests",
    "scripts",
    "benchmarks",
)
FILE = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w/.]*)`")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page):
    named = FILE.findall((ROOT / page).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_names_every_stage():
    text = (ROOT / "docs/architecture.md").read_text()
    modules = re.findall(r"cmd: python -m ([\w.]+)", (ROOT / "dvc.yaml").read_text())
    for module in modules:
        path = module.replace(".", "/")
        package = path if (ROOT / path).is_dir() else f"{path}.py"
        assert package in text or f"`{path.rpartition('/')[0]}/`" in text, module
