"""Read a Parquet file that nobody vouches for."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import polars as pl

from recsys_embed.errors import DataError


def read_parquet(source: bytes | Path | IO[bytes], name: object) -> pl.DataFrame:
    """Return the frame in a Parquet file. name: of the file, for messages. Raises DataError for a broken one."""
    data: Any = source
    try:
        return pl.read_parquet(data)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # a panic is no Exception
        raise DataError(f"{name} is not a readable Parquet file: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
