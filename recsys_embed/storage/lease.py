"""Lease: a claim that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_CANNOT = (OSError, Timeout, NotImplementedError)
_IS_WINDOWS = os.name == "nt"


@contextlib.contextmanager
def lease(path: Path) -> Iterator[None]:
    """Hold a lease: a file that is locked meanwhile, which the operating system undoes if the process is killed.

    The file is deleted in the end. Where none can be made, or nothing can be locked, nothing is held.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except _CANNOT:
        yield
        return
    try:
        yield
    finally:
        # Before it is released, so that nobody takes it for one of a dead process, and no later: the file may be the
        # next owner's by then. Windows deletes no file that is open, so it needs it the other way; there the next
        # owner's is safe for the same reason.
        if not _IS_WINDOWS:
            _delete(path)
        lock.release()
        if _IS_WINDOWS:
            _delete(path)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Return whether a process that lives holds a lease."""
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except _CANNOT:
        return True
    lock.release()
    return False
