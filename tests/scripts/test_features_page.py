import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_features_page_shows_what_the_table_has():
    page = runpy.run_path(str(ROOT / "scripts/features_page.py"))["page"]
    assert (ROOT / "docs/features.md").read_text() == page()
