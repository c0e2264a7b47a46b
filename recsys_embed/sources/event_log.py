"""The file in which `recsys serve` keeps what was rated, read as ratings."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import polars as pl

from recsys_embed.errors import DataError

SQLITE = b"SQLite format 3\x00"
_COLUMNS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}


def read_events(path: Path) -> pl.DataFrame:
    """Return user_id, item_id (text), rating and timestamp of all events, oldest first; a service may go on writing.

    A like is a rating half way from the mean to the highest one; where all are likes, there is no column of ratings.
    An event without a time has that of its arrival. Raises DataError for another SQLite file.
    """
    try:
        connection = sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True)
        rows = connection.execute(
            "SELECT user, item, rating, coalesce(timestamp, CAST(received AS INTEGER)) AS time "
            "FROM events ORDER BY time, seq"
        ).fetchall()
        connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path} is a SQLite file, but not one of recsys serve's events ({error})") from None
    return with_likes(pl.DataFrame(rows, schema=_COLUMNS, orient="row"), "rating")


def with_likes(frame: pl.DataFrame, rating: str) -> pl.DataFrame:
    """Return ratings with a value in place of each that is missing, as `read_events` says."""
    known = pl.col(rating)
    if frame[rating].null_count() == frame.height:
        return frame.drop(rating)
    return frame.with_columns(known.fill_null((known.mean() + known.max()) / 2))
