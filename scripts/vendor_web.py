"""Fetch what the dashboard's pages load from others, into serving/web/static/vendor, and check it.

Run: python scripts/vendor_web.py          (needs npm and its registry)
     python scripts/vendor_web.py --check  (are the files there the pinned ones?)

Each package is pinned by version and by the hash of its tarball, each file by its own.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parents[1] / "serving/web/static/vendor"


class Package(NamedTuple):
    """One npm package, and which of its files we keep."""

    name: str
    version: str
    sha256: str
    """Of its tarball."""
    files: dict[str, tuple[str, str]]
    """Path in the package to our name of it and the file's SHA-256."""


PACKAGES = (
    Package(
        "uplot",
        "1.6.32",
        "4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d",
        {
            "dist/uPlot.iife.min.js": (
                "uplot.js",
                "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
            ),
            "dist/uPlot.min.css": (
                "uplot.css",
                "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
            ),
            "LICENSE": (
                "uplot.LICENSE",
                "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
            ),
        },
    ),
)


def fetch(package: Package, folder: Path) -> None:
    """Have npm fetch a package, and keep its files once every hash is the pinned one.

    Raises:
        ValueError: a hash is another one; nothing was kept of the package.
    """
    wanted = f"{package.name}@{package.version}"
    subprocess.run(["npm", "pack", "--silent", wanted], cwd=folder, check=True)
    (tarball,) = folder.glob(f"{package.name}-*.tgz")
    _expect(wanted, tarball.read_bytes(), package.sha256)
    kept = {}
    with tarfile.open(tarball) as archive:
        for path, (name, sha256) in package.files.items():
            member = archive.extractfile(f"package/{path}")
            assert member is not None, path
            kept[name] = member.read()
            _expect(f"{wanted}, {path}", kept[name], sha256)
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, content in kept.items():
        (VENDOR / name).write_bytes(content)


def check() -> None:
    """Raise ValueError where a file is not the pinned one."""
    for package in PACKAGES:
        for name, sha256 in package.files.values():
            _expect(name, (VENDOR / name).read_bytes(), sha256)


def _expect(what: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{what}: its SHA-256 is {found}, the pinned one {sha256}.")


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        for package in PACKAGES:
            with tempfile.TemporaryDirectory() as folder:
                fetch(package, Path(folder))
    check()
    print(f"{VENDOR}: as pinned")
