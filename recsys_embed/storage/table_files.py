"""Lists of many users, written to a file a block at a time: whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from recsys_embed.errors import SettingError
from recsys_embed.storage.atomic import writing_whole

if TYPE_CHECKING:
    pass


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

    yield append
    if writer is not None:
        writer.close()


FORMATS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Append]:
    """Give a function that appends frames; the file appears under its name when all went well, and not before."""
    if path.suffix not in FORMATS:
        raise SettingError(f"{path} must end in one of {', '.join(FORMATS)}")
    with writing_whole(path) as file, FORMATS[path.suffix](file) as append:
        yield append


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write one frame as .parquet, .csv or .jsonl."""
    with writing(path) as append:
        append(frame)
