"""Write a table to a file, at once or a block at a time; the file appears completely or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import polars as pl

from recsys_embed.errors import SettingError
from recsys_embed.storage.atomic import atomic_write

Append = Callable[[pl.DataFrame], None]


@contextlib.contextmanager
def _csv(file: BinaryIO) -> Iterator[Append]:
    first = True

    def append(frame: pl.DataFrame) -> None:
        nonlocal first
        frame.write_csv(file, include_header=first)
        first = False

    yield append


@contextlib.contextmanager
def _jsonl(file: BinaryIO) -> Iterator[Append]:
    yield lambda frame: frame.write_ndjson(file)


@contextlib.contextmanager
def _parquet(file: BinaryIO) -> Iterator[Append]:
    import pyarrow.parquet

    writer = None

    def append(frame: pl.DataFrame) -> None:
        nonlocal writer
        table = frame.to_arrow()
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)

    try:
        yield append
    finally:  # a writer that is left open complains when it is collected
        if writer is not None:
            writer.close()


FORMATS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}


@contextlib.contextmanager
def table_writer(path: Path) -> Iterator[Append]:
    """Give a function that appends a frame to a .parquet, .csv or .jsonl file.

    The file appears at `path` when the block ends without an error. Raises SettingError for another suffix.
    """
    if path.suffix not in FORMATS:
        raise SettingError(f"{path} must end in one of {', '.join(FORMATS)}")
    with atomic_write(path) as file, FORMATS[path.suffix](file) as append:
        yield append


def check_is_not_read(out: str | Path, **read: str | Path | None) -> None:
    """Raise SettingError for an output that is a file which is read, however it is spelled. read: by option."""
    for option, file in read.items():
        if file is not None and os.path.isfile(out) and os.path.isfile(file) and os.path.samefile(out, file):
            raise SettingError(f"{out} is the file that {option} reads, and would be lost: name another one to write")


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write one frame as .parquet, .csv or .jsonl."""
    with table_writer(path) as append:
        append(frame)
