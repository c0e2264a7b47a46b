"""Examine data before a training, without stopping at the first mistake."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import as_polars, find_columns
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ids import RowLabel
from recsys_embed.data.splits import Split
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.time_formats import find_format
from recsys_embed.doctor.cells import find_odd_lines, readable_rows
from recsys_embed.doctor.codes import Finding, chosen, finding
from recsys_embed.doctor.ids import find_ids
from recsys_embed.doctor.numbers import (
    find_forms,
    find_refunds,
    find_time_like_column,
    find_times,
    find_units,
    find_values,
)
from recsys_embed.doctor.rows import find_leaks, find_loops, find_repeats, merged_repeats
from recsys_embed.doctor.splits import Preview, find_split_problems, preview, previews, suitable
from recsys_embed.doctor.types import find_events, unknown_types
from recsys_embed.doctor.usage import find_item_table, find_single, find_superhuman
from recsys_embed.errors import DataError
from recsys_embed.sources.extra_ratings import find_further_columns
from recsys_embed.sources.load import Tables, build_dataset, column_names, names_in, read_tables
from recsys_embed.sources.table import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Examination:
    """What was found.

    dataset: the readable part of the data, or None if nothing can be made of it. frame, columns: that part as a table,
    and the column of each role in it. splits: what each split would hold out. suits: the split that suits, and why.
    """

    findings: list[Finding] = field(default_factory=list)
    dataset: Dataset | None = None
    frame: pl.DataFrame | None = None
    columns: dict[str, str] = field(default_factory=dict)
    splits: dict[str, Preview] = field(default_factory=dict)
    suits: tuple[str, str] | None = None


def check(
    data: pl.DataFrame | pd.DataFrame | Dataset, config: DataConfig | None = None, split: Split | None = None
) -> list[Finding]:
    """Return what is wrong with data, or good to know of it, the most severe first.

    data: a frame with a row for each rating or event, or a data set. A frame shows more: which rows are copies, which
    values are broken. config: the names of its columns, and how it is to be split. split: the parts, if they are made
    already. Raises DataError only for a frame without columns of users and items.
    """
    config = config or DataConfig()
    if not isinstance(data, Dataset):
        frame = with_joined_times(as_polars(data), config.time_col)
        table, columns = Table(frame, is_text=False, row_label=RowLabel()), find_columns(frame, column_names(config))
        times = frame[columns["time"]] if "time" in columns else None
        time_format = config.time_format if times is None else find_format(times, config.time_format).format
        return examine(Tables(table, columns, time_format=time_format), config).findings
    found = [*merged_repeats(data, config.duplicates), *_find_in(data, config, None, time.time())]
    if split is not None:
        found += find_split_problems(data, config, preview(split, config.min_rating))
    else:
        found += previews(data, config)[1]
    return chosen(found)


def examine(tables: Tables, config: DataConfig, now: float | None = None) -> Examination:
    """Examine tables as they were read.

    now: seconds since 1970, the clock's by default. Raises DataError for tables without columns of users and items.
    """
    frame, columns, is_log = tables.ratings.frame, tables.columns, config.is_event_log
    if is_log and "event" not in columns:
        raise DataError("there is no column of event types: name it with --event-col")
    main = readable_rows(frame, columns, tables.ratings.row_label, time_format=tables.time_format)
    found = [*find_odd_lines(tables.ratings.odd_lines), *main.findings]
    result = Examination(found, frame=main.frame, columns=main.columns)
    if "time" in columns:
        result.findings += find_forms(frame[columns["time"]], config.time_format)
    if "time" in main.columns:
        name = main.columns["time"]
        found, seconds = find_units(main.frame[name], tables.time_format)
        result.findings += found
        if seconds is not None:
            result.frame = main.frame.with_columns(seconds.alias(name))
    if is_log and "event" in main.columns:
        counts = result.frame[main.columns["event"]].cast(pl.String).str.strip_chars().value_counts(name="n")  # type: ignore[index]
        unknown = list(unknown_types(dict(counts.sort("n", descending=True).iter_rows()), config))
        result.findings += unknown
        config = _without_unknown(config, unknown)
    held_out: dict[str, Any] = {}
    for name, table in (("valid", tables.valid), ("test", tables.test)):
        if table is not None:
            given = names_in(table, columns, config) | ({"weight": None} if name == "test" else {})
            found_columns = find_columns(table.frame, given)
            part = readable_rows(
                table.frame, found_columns, table.row_label, f" of the {name} file", tables.time_format
            )
            result.findings += [*find_odd_lines(table.odd_lines, f" of the {name} file"), *part.findings]
            held_out[name] = table._replace(frame=part.frame, row_label=RowLabel())
    result.findings += find_odd_lines(tables.item_lines, f" of {config.items}")
    extra, found = _readable_extra(tables, main.columns, config)
    result.findings += found
    assert result.frame is not None
    ratings = tables.ratings._replace(frame=result.frame, row_label=RowLabel())
    built = tables._replace(ratings=ratings, columns=main.columns, extra=extra, **held_out)
    try:
        with _without_warnings():
            result.dataset = build_dataset(built, _named(config, main.columns))
    except DataError as error:
        result.findings.append(finding("D110", 1, f"nothing can be made of the rows that can be read: {error}"))
        result.findings = chosen(result.findings)
        return result
    _examine_dataset(result, config, now or time.time())
    return result


def _readable_extra(
    tables: Tables, columns: dict[str, str], config: DataConfig
) -> tuple[tuple[tuple[Table, str], ...] | None, list[Finding]]:
    """Return the rows of further ratings that can be read, and what is wrong with the others.

    columns: those of the ratings that can be read. A row without a type of event is a target, and no mistake. What has
    no columns of users and items stays as it is: nothing can be made of it.
    """
    if tables.extra is None:
        return None, []
    extra: list[tuple[Table, str]] = []
    findings: list[Finding] = []
    for table, name in tables.extra:
        source, frame = f" of {name}", table.frame
        findings += find_odd_lines(table.odd_lines, source)
        with _without_warnings(), suppress(DataError):
            named = find_further_columns(frame, name, columns, config)
            named.pop("event", None)
            part = readable_rows(frame, named, table.row_label, source, tables.time_format)
            findings += part.findings
            if part.n_dropped or part.frame.width < frame.width:
                table = table._replace(frame=part.frame, row_label=RowLabel())
        extra.append((table, name))
    return tuple(extra), findings


def _examine_dataset(result: Examination, config: DataConfig, now: float) -> None:
    assert result.dataset is not None and result.frame is not None
    rows_as_read = config.extra_ratings is None and config.max_age is None  # otherwise others were added, or left out
    if rows_as_read:
        repeats = find_repeats(result.frame, result.columns, result.dataset, config.duplicates)
        is_error = config.duplicates == "error"
        result.findings += [replace(f, severity="error") for f in repeats] if is_error else repeats
    else:
        result.findings += merged_repeats(result.dataset, config.duplicates)
    found = list(_find_in(result.dataset, config, result.frame, now))
    if "time" not in result.columns:
        found += find_time_like_column(result.frame, result.columns.values())
    if result.dataset.ratings.is_graph:
        found += find_loops(result.frame, result.columns)
    result.splits, problems = previews(result.dataset, config)
    findings = chosen([*result.findings, *found, *find_leaks(result.dataset), *problems])
    result.suits = suitable(result.splits, findings)
    if result.suits is not None:
        advice = f"--split {result.suits[0]} suits: {result.suits[1]}"
        findings = [replace(f, remedy=advice) if f.code == "D703" else f for f in findings]
        if result.suits[0] == "random":
            findings = [f for f in findings if f.code != "D703"]
    result.findings = findings


def _find_in(dataset: Dataset, config: DataConfig, frame: pl.DataFrame | None, now: float) -> Iterator[Finding]:
    """Yield what can be found in a data set itself."""
    ratings = dataset.ratings
    rows = ratings if dataset.log is None else dataset.log
    user_counts = np.bincount(ratings.user, minlength=len(ratings.users))
    is_alone = dataset.valid is None and dataset.test is None and config.extra_ratings is None
    sides = [(ratings.users, user_counts), (ratings.items, ratings.item_counts)]
    for vocab, counts in sides[: 1 + (not ratings.is_graph)]:
        if (counts > 0).sum() < 2:
            yield finding("D204", 1, f"there is one {vocab.name} alone: {vocab.ids([int(counts.argmax())])[0]}")
        yield from find_ids(vocab, counts, is_fixed=is_alone)
        yield from find_single(vocab, counts)
    if dataset.log is None:
        yield from find_values(ratings, config.min_rating)
    if rows.time is not None:
        yield from find_times(rows.time, now)
    if not ratings.is_graph:
        yield from find_superhuman(rows.users, rows.user, rows.time)
    yield from find_refunds(dataset)
    yield from find_item_table(dataset)
    yield from find_events(dataset, frame)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leave out what this thread logs: findings say it too."""
    thread, logger = threading.get_ident(), logging.getLogger("recsys_embed")

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def errors_of(out: Path, config: DataConfig, columns: dict[str, str]) -> list[Finding]:
    """Return the errors that a repaired file still has. columns: its column of each role."""
    alone = replace(config, dataset=str(out), query=None, columns=None, items=None, extra_ratings=None)
    try:
        with _without_warnings():
            found = examine(read_tables(str(out), _named(alone, columns), tolerant=True), _named(alone, columns))
    except DataError as error:
        return [finding("D110", 1, str(error))]
    return [f for f in found.findings if f.severity == "error"]


def _named(config: DataConfig, columns: dict[str, str]) -> DataConfig:
    """Return settings under which the readable columns are a data set: no repeated row is an error."""
    names = {f"{role}_col": columns.get(role) for role in ("user", "item", "time")}
    if "event" in columns:
        return replace(config, **names, event_col=columns["event"])  # type: ignore[arg-type]
    plain: dict[str, Any] = {"event_col": None, "event_weights": None, "target": None, "hide": None}
    names |= {"rating_col": columns.get("rating"), "weight_col": columns.get("weight")}
    duplicates = "last" if config.duplicates == "error" else config.duplicates
    return replace(config, **plain, **names, duplicates=duplicates)  # type: ignore[arg-type]


def _without_unknown(config: DataConfig, unknown: list[Finding]) -> DataConfig:
    """Return settings without the options that name types of events which do not occur."""
    return (
        replace(config, event_weights=None, target=None, hide=None, event_col=config.event_col) if unknown else config
    )
