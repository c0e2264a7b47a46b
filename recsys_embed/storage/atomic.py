"""Atomic writes, whose files and folders have the mode of any other new one, and read errors that name the file."""

from __future__ import annotations

import gzip
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from recsys_embed.errors import DataError


@contextmanager
def wrap_read_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file, be it binary, text or gzipped, into a DataError that names the file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is needed")
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is not a complete gzip file: it may have been cut short; download it again") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def make_hidden(path: Path, make: Callable[[Path], object]) -> Path:
    """Make a file or a folder beside `path` that is to get its name when it is complete, and return it.

    make: makes it, or raises FileExistsError. The functions of `tempfile` make what nobody else may read, and it would
    stay so under its name; what is made like anything else has the mode that the umask gives.
    """
    while True:
        hidden = path.parent / f".{path.name}-{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            make(hidden)
            return hidden


def publish_new(complete: Path, path: Path) -> None:
    """Give a complete file its name, unless another process was faster: then that one's file stays."""
    try:
        os.link(complete, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            complete.replace(path)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    # Some systems cannot open a folder; there the rename alone must do.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to `path` if no error is raised. Raises DataError.

    The file is flushed to disk before the rename, so `path` never holds a part of the content.
    """
    try:
        temporary = make_hidden(path, lambda hidden: hidden.touch(exist_ok=False))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with temporary.open("wb") as file:
            yield file
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, stripped of white space at both ends. Raises DataError."""
    with wrap_read_errors(path):
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
