"""API keys: shown once, kept as hashes, each with what it is for.

A key is 256 random bits. No dictionary holds it, so a slow hash such as bcrypt, made for passwords that
people think of, would make it no harder to guess: plain SHA-256 does.
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pitwise.errors import ParamsError, StoreError
from pitwise.workspace import replacing

PREFIX = "pw_"  # so that people and secret scanners know one when they see it
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SCOPES = ("predict", "bars", "model")
"""What keys are for: forecasts and features; sending and withdrawing bars; the champion's figures."""
DEFAULT_SCOPES = ("predict",)
"""Of a new key. One of a file of before there were scopes has all of them, as it had."""
logger = logging.getLogger("pitwise.serving")


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key."""

    name: str
    sha256: str
    """Of the key, hex."""
    created: str
    """ISO 8601, UTC."""
    scopes: tuple[str, ...] = SCOPES
    expires: str | None = None
    """The last day on which it is valid, ISO 8601, in UTC; None for no end."""
    per_minute: int | None = None
    """Requests; None for `serve.requests_per_minute`."""
    per_day: int | None = None
    """Requests; None for any number."""

    def expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC).date().isoformat() > self.expires


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def list_keys(path: Path) -> list[dict[str, Any]]:
    """`name`, `created`, `scopes`, `expires`, `per_minute` and `per_day` of each key, as `Key` has them.

    Raises:
        StoreError: the file cannot be read, or is none of ours.
    """
    shown = []
    for key in _read(path).values():
        entry = asdict(key) | {"scopes": list(key.scopes)}
        del entry["sha256"]
        shown.append(entry)
    return shown


def _read(path: Path) -> dict[str, Key]:
    """Name to key.

    Raises:
        StoreError: the file cannot be read, or is none of ours.
    """
    try:
        document = json.loads(path.read_text())
        return {str(name): _key(str(name), entry) for name, entry in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: is no file of API keys ({error}). Delete it and add the keys anew."
        ) from error


def _key(name: str, entry: dict[str, Any]) -> Key:
    """Raises ValueError, KeyError or TypeError where the entry is none."""
    scopes = entry.get("scopes", list(SCOPES))
    if not isinstance(scopes, list) or not set(scopes) <= set(SCOPES):
        raise ValueError(f"the scopes of '{name}' are {scopes!r}")
    expires, per_minute, per_day = (entry.get(part) for part in ("expires", "per_minute", "per_day"))
    if expires is not None:
        date.fromisoformat(expires)
    for limit in (per_minute, per_day):
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(f"a limit of '{name}' is {limit!r}")
    return Key(
        name,
        str(entry["sha256"]),
        str(entry["created"]),
        tuple(scope for scope in SCOPES if scope in scopes),
        expires,
        per_minute,
        per_day,
    )


def add_key(
    path: Path,
    name: str,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    expires: date | None = None,
    per_minute: int | None = None,
    per_day: int | None = None,
) -> str:
    """Add a key.

    Args:
        scopes: of SCOPES.
        expires, per_minute, per_day: see `Key`.

    Returns:
        the key, which nobody can read again.

    Raises:
        ParamsError: the name is taken, or is not letters, digits, `.`, `_` and `-`; a scope is none; the
            last day is over.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(f"{name!r} cannot name a key: use up to 64 letters, digits, '.', '_' and '-'.")
    scopes = list(scopes)
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ParamsError(f"{', '.join(scopes) or 'none'}: a key's scopes are of {', '.join(SCOPES)}.")
    if expires and expires < datetime.now(UTC).date():
        raise ParamsError(f"{expires:%Y-%m-%d} is over: a key is valid up to a day to come.")
    secret = PREFIX + secrets.token_urlsafe(32)
    with _lock(path):
        keys = _read(path)
        if name in keys:
            raise ParamsError(
                f"{path}: has a key named '{name}'. Revoke it first, or take another name."
            )
        key = Key(
            name,
            _hash(secret),
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(scope for scope in SCOPES if scope in scopes),
            expires.isoformat() if expires else None,
            per_minute,
            per_day,
        )
        _write(path, keys | {name: key})
    return secret


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
        _write(path, {other: key for other, key in keys.items() if other != name})


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(path: Path, keys: dict[str, Key]) -> None:
    document = {}
    for name, key in keys.items():
        entry = {part: value for part, value in asdict(key).items() if value is not None}
        del entry["name"]
        document[name] = entry
    with replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)  # before there is anything to read in it
        temporary.write_text(json.dumps(document, indent=2) + "\n")


class Keys:
    """The keys of a file, read again whenever it changes.

    Raises:
        StoreError: the file is there and cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stamp = self._now()
        self._keys = list(_read(path).values())
        self._required = bool(self._keys)

    @property
    def required(self) -> bool:
        """Whether a request needs a key. Once it does, it does to the end of the process: a service that
        was closed does not open because its last key was revoked or its file is broken."""
        self._follow()
        return self._required

    def check(self, presented: str) -> Key | None:
        """The key that this is, expired or not, or None; in the same time for every wrong key."""
        self._follow()
        wanted = _hash(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def holds(self, key: Key) -> bool:
        """Whether a key that was valid once still is."""
        self._follow()
        return key in self._keys and not key.expired()

    def _now(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _follow(self) -> None:
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = list(_read(self.path).values())
        except StoreError as error:
            logger.error("no key is valid until this is mended: %s", error)
            self._keys = []
        self._required = self._required or bool(self._keys)
