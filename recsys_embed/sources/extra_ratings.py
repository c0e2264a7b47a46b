"""Append further ratings or events, such as those that a service received, to a table of them."""

from __future__ import annotations

import logging

import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import find_columns
from recsys_embed.data.event_types import says_no
from recsys_embed.data.ids import RowLabel
from recsys_embed.data.time_formats import settled_format
from recsys_embed.data.values import by_part_of_second, parse_times
from recsys_embed.sources.serving_events import fill_likes
from recsys_embed.sources.table import Table

log = logging.getLogger("recsys_embed")


def append_ratings(
    table: Table, more: Table, columns: dict[str, str], config: DataConfig, time_format: str | None = None
) -> Table:
    """Return a table followed by further rows, whose columns have the same names or the usual ones.

    columns: the column of each role in the table. Rows without a rating are likes, see `fill_likes`; those without a
    weight weigh what others do on average; those without a type of event are targets. time_format: how dates of the
    table are written; those of the further rows may be written in another way. Raises DataError.
    """
    given = {role: name if name in more.frame.columns else None for role, name in columns.items()}
    if not config.is_event_log:
        given["event"] = None  # so that what says no is not trained on
    found = find_columns(more.frame, given)
    table, more = _in_seconds(table, columns, time_format), _in_seconds(more, found, time_format)
    if not config.is_event_log and "event" in found:
        more = more._replace(frame=_without_noes(more.frame, found["event"]))
    added = more.frame.select(pl.col(found[role]).alias(name) for role, name in columns.items() if role in found)
    if "event" in columns:
        added = _with_types(added, table.frame, columns["event"], config)
    ids = [columns["user"], columns["item"]]
    frames, is_text = [table.frame, added], table.is_text and more.is_text
    if any(table.frame.schema[name] != added.schema[name] for name in ids):
        frames, is_text = [frame.with_columns(pl.col(ids).cast(pl.String)) for frame in frames], True
    frame = pl.concat(frames, how="diagonal_relaxed")
    numbers = [columns[role] for role in ("rating", "weight") if role in columns and role not in found]
    frame = frame.with_columns(pl.col(numbers).cast(pl.Float64, strict=False))
    if "weight" in columns and "weight" not in found:
        frame = frame.with_columns(pl.col(columns["weight"]).fill_null(pl.col(columns["weight"]).mean()))
    if "rating" in columns and "rating" not in found:
        frame = fill_likes(frame, columns["rating"])
    return Table(frame, is_text, RowLabel())


def _in_seconds(table: Table, columns: dict[str, str], time_format: str | None) -> Table:
    """Return a table with times as seconds since 1970, and its rows in the order of parts of seconds if it has any."""
    if "time" not in columns or table.frame.is_empty():
        return table
    times = table.frame[columns["time"]]
    form = settled_format(times, time_format)
    frame = table.frame.with_columns(parse_times(times, table.row_label, form).alias(times.name))
    order = by_part_of_second(times)
    return table._replace(frame=frame if order is None else frame[order])


def _without_noes(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the rows of ratings that are no events which say no."""
    names = frame[column].cast(pl.String).unique().drop_nulls().to_list()
    noes = [name for name in names if says_no(name)]
    kept = frame.filter(pl.col(column).is_null() | ~pl.col(column).cast(pl.String).is_in(noes))
    if kept.height < frame.height:
        log.warning("%s events are not trained on: %s", f"{frame.height - kept.height:,}", ", ".join(sorted(noes)))
    return kept


def _with_types(added: pl.DataFrame, frame: pl.DataFrame, column: str, config: DataConfig) -> pl.DataFrame:
    """Return added events with a type for all: those without one are of the first target or, if none is named, of the
    type with the highest weight, or the most frequent one."""
    weights = config.weights_of_events or {}
    names = config.names_of(config.target) or sorted(weights, key=lambda name: -weights[name])
    name = names[0] if names else frame[column].cast(pl.String).mode().sort()[0]
    if column not in added.columns:
        return added.with_columns(pl.lit(name).alias(column))
    return added.with_columns(pl.col(column).cast(pl.String).fill_null(name))
