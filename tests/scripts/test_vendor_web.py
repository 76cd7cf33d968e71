"""What the dashboard's pages load from others is what was pinned."""

import pytest

from scripts import vendor_web

pytestmark = pytest.mark.unit


def test_the_vendored_files_are_the_pinned_ones(tmp_path, monkeypatch):
    vendor_web.check()
    for path in vendor_web.VENDOR.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(vendor_web, "VENDOR", tmp_path)
    with pytest.raises(ValueError, match=r"uplot\.js: its SHA-256 is"):
        vendor_web.check()
