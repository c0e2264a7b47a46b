"""Read the SQLite file in which `recsys serve` keeps its events, as ratings."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import polars as pl

from recsys_embed.errors import DataError

_COLUMNS = {
    "user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64, "event": pl.String,
}  # fmt: skip


def is_event_store(path: Path) -> bool:
    """Return whether a SQLite file is one in which `recsys serve` keeps its events, or cannot be read."""
    try:
        connection = sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True)
        names = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        connection.close()
    except sqlite3.Error:
        return True
    return {"user", "item", "rating", "timestamp", "received"} <= names


def read_events(path: Path) -> pl.DataFrame:
    """Return user_id, item_id (both text), rating, timestamp and event (the type) of all events, oldest first.

    A service may go on writing meanwhile. An event is no later than its arrival, and without a time of its own has
    that. Likes get a rating as in `fill_likes`; if all events are likes, there is no column of ratings, and none of
    types if no event has one. Raises DataError for another SQLite file.
    """
    try:
        connection = sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro", uri=True)
        names = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        event = "event" if "event" in names else "NULL"  # files of earlier versions know no types
        rows = connection.execute(
            "SELECT user, item, rating, CAST(min(coalesce(timestamp, received), received) AS INTEGER) AS time, "
            f"{event} FROM events ORDER BY time, seq"
        ).fetchall()
        connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path} is a SQLite file, but not one of recsys serve's events ({error})") from None
    frame = pl.DataFrame(rows, schema=_COLUMNS, orient="row")
    return fill_likes(frame.drop("event") if frame["event"].null_count() == frame.height else frame, "rating")


def fill_likes(frame: pl.DataFrame, rating: str) -> pl.DataFrame:
    """Replace missing ratings, which are likes, by the value half way between the mean and the highest rating.

    rating: the column's name; the column is dropped if all its values are missing.
    """
    if frame[rating].null_count() == frame.height:
        return frame.drop(rating)
    value = pl.col(rating)
    return frame.with_columns(value.fill_null((value.mean() + value.max()) / 2))
