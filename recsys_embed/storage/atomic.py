"""Files that appear whole or not at all, and files that may be compressed."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recsys_embed.errors import DataError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong in reading a file, plain, gzipped or of text, into a DataError that names it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is needed")
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is no whole gzip file: it may have been cut short; fetch it again") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to; it appears under its name when all went well, and not before. Raises DataError."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
        fresh.chmod(0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without blanks at their ends. Raises DataError."""
    with reading(path):
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
