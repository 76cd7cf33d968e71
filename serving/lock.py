"""What one process at a time may do."""

from pathlib import Path

from filelock import FileLock, Timeout

from pitwise.errors import StoreError


class HeldError(StoreError):
    """Another process holds the lock."""


def acquired_lock(path: Path, refusal: str) -> FileLock:
    """A lock that this process holds until it ends or releases it, from any thread.

    Raises:
        HeldError: another process holds it; `refusal` says what that means and what to do.
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HeldError(refusal) from error
    return lock
