"""Append further ratings or events, such as those that a service received, to a table of them."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import find_columns
from recsys_embed.data.event_types import says_no
from recsys_embed.data.ids import RowLabel
from recsys_embed.data.time_formats import settled_format
from recsys_embed.data.values import are_days, read_times
from recsys_embed.errors import DataError
from recsys_embed.sources.serving_events import fill_likes
from recsys_embed.sources.table import Table

log = logging.getLogger("recsys_embed")


def append_ratings(
    first: tuple[Table, str],
    more: tuple[Table, str],
    columns: dict[str, str],
    config: DataConfig,
    time_format: str | None = None,
) -> Table:
    """Return a table followed by further rows, whose columns have the same names or the usual ones.

    first, more: the tables, with the names of their files. columns: the column of each role in the first. Rows without
    a rating are likes, see `fill_likes`; those without a weight weigh what others do on average; those without a type
    of event are targets. Rows that the table has already, to the second, are taken once. time_format: how dates of the
    table are written; those of the further rows may be written in another way. Raises DataError.
    """
    table, added = _labelled(*first), _labelled(*more)
    found = find_further_columns(added.frame, more[1], columns, config)
    read = table.frame
    table, added = _in_seconds(table, columns, time_format), _in_seconds(added, found, time_format)
    if not config.is_event_log and "event" in found:
        added = _without_noes(added, found["event"])
    frame = added.frame.select(pl.col(found[role]).alias(name) for role, name in columns.items() if role in found)
    if "event" in columns:
        frame = _with_types(frame, table.frame, columns["event"], config)
    added = added._replace(frame=frame)
    # A file that has grown and the file of the week hold the same events; of the same day may be others too.
    if "time" in found and (name := columns.get("time")) and not are_days(read[name], table.frame[name]):
        added = _without_known(added, table, columns, more[1])
    return _completed(_joined(table, added, columns), columns, found)


def find_further_columns(frame: pl.DataFrame, name: str, columns: dict[str, str], config: DataConfig) -> dict[str, str]:
    """Return the column of each role in a frame of further ratings. name: of its file. columns: those of the first
    table."""
    given = {role: column if column in frame.columns else None for role, column in columns.items()}
    if not config.is_event_log:
        given["event"] = None  # so that what says no is not trained on
    try:
        return find_columns(frame, given)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _labelled(table: Table, name: str) -> Table:
    """Return a table whose messages name its file."""
    return table._replace(row_label=RowLabel(files=table.row_label.named(name, table.frame.height)))


def _joined(table: Table, added: Table, columns: dict[str, str]) -> Table:
    """Return the rows of both tables; ids are text if those of one are."""
    frames, is_text = [table.frame, added.frame], table.is_text and added.is_text
    ids = [columns["user"], columns["item"]]
    if any(table.frame.schema[name] != added.frame.schema[name] for name in ids):
        frames, is_text = [frame.with_columns(pl.col(ids).cast(pl.String)) for frame in frames], True
    labels = table.row_label.files, added.row_label.files
    label = RowLabel(files=labels[0] + labels[1]) if all(labels) else RowLabel()
    return Table(pl.concat(frames, how="diagonal_relaxed"), is_text, label)


def _completed(table: Table, columns: dict[str, str], found: dict[str, str]) -> Table:
    """Return a table with values for the roles that further rows do not have. found: the roles that they have."""
    numbers = [columns[role] for role in ("rating", "weight") if role in columns and role not in found]
    frame = table.frame.with_columns(pl.col(numbers).cast(pl.Float64, strict=False))
    if "weight" in columns and "weight" not in found:
        frame = frame.with_columns(pl.col(columns["weight"]).fill_null(pl.col(columns["weight"]).mean()))
    if "rating" in columns and "rating" not in found:
        frame = fill_likes(frame, columns["rating"])
    return table._replace(frame=frame)


def _without_known(added: Table, table: Table, columns: dict[str, str], name: str) -> Table:
    """Return further rows without those that the table has. name: of the further file."""
    keys = [
        columns[role]
        for role in ("user", "item", "event", "time", "rating")
        if columns.get(role) in added.frame.columns
    ]
    # A rating that cannot be compared, such as "4,5", makes no copy: how pairs are merged decides then.
    forms = {columns.get("time"): pl.Int64, columns.get("rating"): pl.Float64}
    as_keys = [pl.col(name).cast(forms.get(name, pl.String), strict=False) for name in keys]
    rows, others = (frame.select(as_keys) for frame in (added.frame, table.frame))
    known = rows.with_row_index("row").join(others, on=keys, how="semi")["row"]
    if not len(known):
        return added
    log.warning(
        "%s of the %s rows of %s are there already, and are taken once", f"{len(known):,}", f"{rows.height:,}", name
    )
    is_new = np.ones(rows.height, bool)
    is_new[known.to_numpy()] = False
    return added._replace(frame=added.frame.filter(is_new), row_label=RowLabel())


def _in_seconds(table: Table, columns: dict[str, str], time_format: str | None) -> Table:
    """Return a table with times as seconds since 1970, and its rows in the order of parts of seconds if it has any."""
    if "time" not in columns or table.frame.is_empty():
        return table
    times = table.frame[columns["time"]]
    seconds, order = read_times(times, table.row_label, settled_format(times, time_format))
    frame = table.frame.with_columns(seconds.alias(times.name))
    if order is None:
        return table._replace(frame=frame)
    return table._replace(frame=frame[order], row_label=RowLabel())


def _without_noes(table: Table, column: str) -> Table:
    """Return the rows of ratings that are no events which say no."""
    frame = table.frame
    names = frame[column].cast(pl.String).unique().drop_nulls().to_list()
    noes = [name for name in names if says_no(name)]
    kept = frame.filter(pl.col(column).is_null() | ~pl.col(column).cast(pl.String).is_in(noes))
    if kept.height < frame.height:
        log.warning("%s events are not trained on: %s", f"{frame.height - kept.height:,}", ", ".join(sorted(noes)))
        table = table._replace(frame=kept, row_label=RowLabel())
    return table


def _with_types(added: pl.DataFrame, frame: pl.DataFrame, column: str, config: DataConfig) -> pl.DataFrame:
    """Return added events with a type for all: those without one are of the first target or, if none is named, of the
    type with the highest weight, or the most frequent one."""
    weights = config.weights_of_events or {}
    names = config.names_of(config.target) or sorted(weights, key=lambda name: -weights[name])
    name = names[0] if names else frame[column].cast(pl.String).mode().sort()[0]
    if column not in added.columns:
        return added.with_columns(pl.lit(name).alias(column))
    return added.with_columns(pl.col(column).cast(pl.String).fill_null(name))
