"""API keys: shown once, kept as hashes.

A key is 256 random bits. No dictionary holds it, so a slow hash such as bcrypt, made for passwords that
people think of, would make it no harder to guess: plain SHA-256 does.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pitwise.errors import ParamsError, StoreError
from pitwise.workspace import replacing

PREFIX = "pw_"  # so that people and secret scanners know one when they see it
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("pitwise.serving")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def list_keys(path: Path) -> list[dict[str, str]]:
    """`name` and `created` (ISO 8601, UTC) of each key.

    Raises:
        StoreError: the file cannot be read, or is none of ours.
    """
    return [{"name": name, "created": entry["created"]} for name, entry in _read(path).items()]


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Name to `sha256` (hex) and `created` of each key.

    Raises:
        StoreError: the file cannot be read, or is none of ours.
    """
    try:
        document = json.loads(path.read_text())
        return {
            str(name): {"sha256": str(entry["sha256"]), "created": str(entry["created"])}
            for name, entry in document.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: is no file of API keys ({error}). Delete it and add the keys anew."
        ) from error


def add_key(path: Path, name: str) -> str:
    """Add a key.

    Returns:
        the key, which nobody can read again.

    Raises:
        ParamsError: the name is taken, or is not letters, digits, `.`, `_` and `-`.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(f"{name!r} cannot name a key: use up to 64 letters, digits, '.', '_' and '-'.")
    key = PREFIX + secrets.token_urlsafe(32)
    with _lock(path):
        keys = _read(path)
        if name in keys:
            raise ParamsError(
                f"{path}: has a key named '{name}'. Revoke it first, or take another name."
            )
        created = datetime.now(UTC).isoformat(timespec="seconds")
        _write(path, keys | {name: {"sha256": _hash(key), "created": created}})
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key away; a running service knows from its next request on.

    Raises:
        ParamsError: there is no such key.
    """
    with _lock(path):
        keys = _read(path)
        if name not in keys:
            known = ", ".join(keys) or "none"
            raise ParamsError(f"{path}: has no key named '{name}'. It has: {known}.")
        _write(path, {other: entry for other, entry in keys.items() if other != name})


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(path: Path, keys: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)  # before there is anything to read in it
        temporary.write_text(json.dumps(keys, indent=2) + "\n")


class Keys:
    """The keys of a file, read again whenever it changes.

    Raises:
        StoreError: the file is there and cannot be read.
    """

    def __init__(self, path: Path):
        self._path = path
        self._stamp = self._now()
        self._hashes = {name: entry["sha256"] for name, entry in _read(path).items()}
        self._required = bool(self._hashes)

    @property
    def required(self) -> bool:
        """Whether a request needs a key. Once it does, it does to the end of the process: a service that
        was closed does not open because its last key was revoked or its file is broken."""
        self._follow()
        return self._required

    def check(self, presented: str) -> str | None:
        """The name of a key, or None; in the same time for every wrong key."""
        self._follow()
        wanted = _hash(presented)
        found = None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, wanted):
                found = name
        return found

    def _now(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _follow(self) -> None:
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._hashes = {name: entry["sha256"] for name, entry in _read(self._path).items()}
        except StoreError as error:
            logger.error("no key is valid until this is mended: %s", error)
            self._hashes = {}
        self._required = self._required or bool(self._hashes)
