"""Lease: a claim that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from recsys_embed.storage.atomic import make_hidden, publish_new

_IS_WINDOWS = os.name == "nt"
# Whoever asks whether a lease is held locks it for a moment: nobody may miss theirs for that.
_PATIENCE_S = 1.0
# In a folder with leases: a random text that tells this folder from one of the same path on another machine.
_PLACE = ".recsys-place"


@contextlib.contextmanager
def lease(path: Path, patience: float = _PATIENCE_S) -> Iterator[bool | None]:
    """Hold a lease: a file that is locked meanwhile, which the operating system undoes if the process is killed.

    patience: seconds to try. The file is deleted in the end. Yields True; False where another holds it; and None where
    no file can be made, or nothing can be locked. In the last two cases nothing is held.
    """
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire(poll_interval=0.01)
    except Timeout:  # an OSError too
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
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
    except (OSError, Timeout, NotImplementedError):
        return True
    lock.release()
    return False


def place_of(folder: Path) -> str | None:
    """Return the name by which a folder with leases is known, or None if it has none or cannot be read.

    A path says little: on another machine, or in another container, it is another folder.
    """
    try:
        return (folder / _PLACE).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def named_place(folder: Path) -> str | None:
    """Return the name of a folder as `place_of` does; it gets one, for good, if it has none and can be written to."""
    if (name := place_of(folder)) is not None:
        return name
    with contextlib.suppress(OSError):
        file = folder / _PLACE
        complete = make_hidden(file, lambda hidden: hidden.touch(exist_ok=False))
        try:
            complete.write_text(secrets.token_hex(16), encoding="utf-8")
            publish_new(complete, file)
        finally:
            complete.unlink(missing_ok=True)
    return place_of(folder)
