"""Unpack what was compressed: gzip, bzip2, xz, Zstandard, and zip archives that hold one table."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from recsys_embed.errors import DataError
from recsys_embed.sources.locations import tables_among


def _zstd(data: bytes) -> bytes:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd").read()


# The first bytes of each format, its name, and what unpacks it.
_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.decompress),
    (b"BZh", "bzip2", bz2.decompress),
    (b"\xfd7zXZ\x00", "xz", lzma.decompress),
    (b"\x28\xb5\x2f\xfd", "Zstandard", _zstd),
)
_BZIP2_BLOCK = b"1AY&SY"  # what follows BZh and a digit; without it, the bytes are text
_ZIP = b"PK\x03\x04"


def unpack(data: bytes, name: str, member: str | None = None) -> bytes:
    """Return data as they were before they were compressed, once or twice over; other data as they are.

    name: of the file, for messages. member: the file to read of a zip archive that holds several. Raises DataError.
    """
    for _ in range(3):
        if data.startswith(_ZIP):
            data, member = _from_zip(data, name, member), None
            continue
        format_ = next((f for f in _FORMATS if data.startswith(f[0])), None)
        if format_ is None or (format_[1] == "bzip2" and data[4:10] != _BZIP2_BLOCK):
            break
        try:
            data = format_[2](data)
        except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError):
            raise DataError(
                f"{name} is not a complete {format_[1]} file: it may have been cut short; download it again"
            ) from None
    return data


@contextmanager
def unpacked_stream(stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give the unpacked bytes of a buffered stream, which need not fit into memory; those of a plain one as they are.

    name: of the file, for messages. Raises DataError, also while the stream is read inside the `with` block.
    """
    head = stream.peek(10)[:10]  # type: ignore[attr-defined]
    format_ = next((f[1] for f in _FORMATS if head.startswith(f[0])), None)
    if head.startswith(_ZIP):
        raise DataError(f"{name} is a zip archive: unpack it first")
    if format_ is None or (format_ == "bzip2" and head[4:10] != _BZIP2_BLOCK):
        yield stream
        return
    try:
        yield _open_packed(stream, format_)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name} is not a complete {format_} file: it may have been cut short; download it again"
        ) from None


def _open_packed(stream: IO[bytes], format_: str) -> Any:
    if format_ == "Zstandard":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")
    return {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[format_](stream, "rb")  # type: ignore[operator]


def _from_zip(data: bytes, name: str, member: str | None) -> bytes:
    """Return the one table of a zip archive, or the member that is named."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info.filename for info in archive.infolist() if not info.is_dir()]
            if member is not None:
                if member not in files:
                    raise DataError(f"{name} holds no {member}; it holds {', '.join(files)[:300]}")
                return archive.read(member)
            tables = tables_among(files)
            if not tables:
                raise DataError(
                    f"{name} is a zip archive without a table; it holds {', '.join(files)[:300] or 'nothing'}"
                )
            if len(tables) > 1:
                raise DataError(
                    f"{name} is a zip archive of {len(tables)} tables: name one of them, such as {name}/{tables[0]} "
                    f"({', '.join(tables)[:300]})"
                )
            return archive.read(tables[0])
    except DataError:
        raise
    except NotImplementedError:
        raise DataError(f"{name} is packed by a method that Python does not read: unpack it first") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, IndexError):
        raise DataError(
            f"{name} is not a complete zip archive: it may have been cut short; download it again"
        ) from None
    except RuntimeError:  # zipfile's way to say that a password is needed
        raise DataError(f"{name} is encrypted: unpack it first") from None
