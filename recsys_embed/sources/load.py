"""load_dataset: load any data set by name or path, such as "movielens", "synthetic:users=100" or "ratings.csv"."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_embed.config.addresses import scheme, several_locations, without_password
from recsys_embed.config.fields import parse_names
from recsys_embed.config.settings import DataConfig
from recsys_embed.data.column_guess import negative_amounts
from recsys_embed.data.columns import COLUMN_NAMES, find_columns, find_event_like_column
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.disk import Disk
from recsys_embed.data.event_types import event_types
from recsys_embed.data.events import EventLog
from recsys_embed.data.ids import RowLabel, as_text, id_column
from recsys_embed.data.item_table import with_numbers
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.time_formats import settled_format
from recsys_embed.data.values import parse_times
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.forks import needs_threads
from recsys_embed.sources import movielens, synthetic
from recsys_embed.sources.download import data_dir
from recsys_embed.sources.extra_ratings import append_ratings
from recsys_embed.sources.locations import is_path
from recsys_embed.sources.long_tables import LongTable, ratings_on_disk
from recsys_embed.sources.memory import long_table
from recsys_embed.sources.odd_lines import OddLine
from recsys_embed.sources.read import read_item_table, read_table
from recsys_embed.sources.remote import is_remote
from recsys_embed.sources.table import Table

log = logging.getLogger("recsys_embed")

# A loader takes (folder of downloads, offline) and returns (ratings, items).
DATASETS: dict[str, Callable[[Path, bool], tuple[pl.DataFrame, pl.DataFrame]]] = {
    "movielens": partial(movielens.load, "movielens-100k"),
    **{name: partial(movielens.load, name) for name in movielens.SOURCES},
    "synthetic": lambda _data, _offline: synthetic.generate(),
}

# Column names that mark a first line as a header.
_HEADER_NAMES = tuple(name for names in COLUMN_NAMES.values() for name in names)


class Tables(NamedTuple):
    """What a data set is read into, before ids and values are parsed.

    columns: the column of each role in `ratings`. valid, test: tables of held-out ratings. time_format: how dates are
    written; None: numbers or ISO. item_lines: odd lines of the item table, see `Table`. extra: further ratings with the
    names of their files; None: they are still to be read.
    """

    ratings: Table
    columns: dict[str, str]
    items: pl.DataFrame | None = None
    valid: Table | None = None
    test: Table | None = None
    time_format: str | None = None
    item_lines: tuple[OddLine, ...] = ()
    extra: tuple[tuple[Table, str], ...] | None = None


@needs_threads("reading data")
def load_dataset(dataset: str | Path = "movielens", config: DataConfig | None = None, **options: object) -> Dataset:
    """Load a data set by name, or your own data from wherever they lie.

    dataset: a name of `DATASETS`, "synthetic:users=600,items=300,ratings=20000,seed=0", or a file, a folder or pattern
        of files, "-" (standard input) or an address; see `read_table`.
    config or options: the other settings of `DataConfig` (items=…, columns=…, query=…, offline=…).
    Raises DataError if the name is unknown, or the data is missing or broken.
    """
    dataset = without_password(str(dataset))
    config = config or DataConfig(dataset=dataset, **options)  # type: ignore[arg-type]
    if long := long_table(dataset, config):
        return _on_disk(*long, config)
    return build_dataset(read_tables(dataset, config), config)


def _on_disk(table: LongTable, disk: Disk, config: DataConfig) -> Dataset:
    """Load ratings that are longer than memory."""
    head = table.head(config.time_col)
    if head.is_empty():
        raise DataError("there are no ratings: the data has no row")
    columns = find_columns(head, column_names(config))
    time_format = settled_format(head[columns["time"]], config.time_format) if "time" in columns else None
    ratings = ratings_on_disk(table, columns, disk, config.duplicates, time_format)
    event_like = find_event_like_column(head, columns.values())
    return Dataset(ratings, _read_items(config, columns["item"])[0], None, None, None, event_like, time_format)


def load_further(dataset: str, config: DataConfig) -> Dataset:
    """Load further data for a model: as `load_dataset` does, but their columns may be called as in the settings of the
    training or as is usual."""
    return build_dataset(read_tables(without_password(dataset), config, further=True), config)


def read_tables(dataset: str, config: DataConfig, further: bool = False, tolerant: bool = False) -> Tables:
    """Read a data set as it is, see `load_dataset`.

    further: see `load_further`. tolerant: see `read_table`. Raises DataError if it is unknown, missing or without rows.
    """
    _check_locations(dataset, config)
    name, _, sizes = dataset.partition(":")
    items = None
    item_lines: tuple[OddLine, ...] = ()
    if name == "synthetic" and sizes:
        frame, items = synthetic.generate(**_parse_sizes(sizes))
        ratings = _as_table(frame)
    elif dataset in DATASETS:
        frame, items = DATASETS[dataset](data_dir(config.data_dir), config.offline)
        ratings = _as_table(frame)
    elif is_path(dataset):
        ratings = _read_ratings(dataset, config, config.query, further, tolerant)
    else:
        raise DataError(f"there is no data set {dataset!r} and no such file; the names are {', '.join(DATASETS)}")
    if ratings.frame.is_empty():
        raise DataError("there are no ratings: the data has a header but no row")
    given = column_names(config)
    names = _names_there(ratings.frame, given) if further else given
    columns = find_columns(ratings.frame, names)  # once: what is guessed is said once
    if config.items:
        items, item_lines = _read_items(config, columns["item"], tolerant)
    valid, test = (
        _read_ratings(location, config, None, True, tolerant) if location else None
        for location in (config.valid, config.test)
    )
    times = ratings.frame[columns["time"]] if "time" in columns else None
    time_format = config.time_format if times is None else settled_format(times, config.time_format)
    extra = read_extra(config, tolerant) if tolerant else None
    return Tables(ratings, columns, items, valid, test, time_format, item_lines, extra)


def read_extra(config: DataConfig, tolerant: bool = False) -> tuple[tuple[Table, str], ...]:
    """Read the further ratings that the settings name; return the tables with the names of their files."""
    return tuple(
        (_read_ratings(location, config, further=True, tolerant=tolerant), location)
        for location in several_locations(config.extra_ratings or "")
    )


def _read_items(
    config: DataConfig, item_column: str, tolerant: bool = False
) -> tuple[pl.DataFrame | None, tuple[OddLine, ...]]:
    """Return the item table that the settings name, or None, and its odd lines."""
    if not config.items:
        return None, ()
    table = read_item_table(config.items, config.item_columns, config.item_col, item_column, tolerant)
    return with_numbers(table.frame) if table.is_text else table.frame, table.odd_lines


def _as_table(ratings: pl.DataFrame) -> Table:
    return Table(ratings, is_text=ratings.dtypes[0] == pl.String, row_label=RowLabel())


def _check_locations(dataset: str, config: DataConfig) -> None:
    """Raise SettingError where the settings contradict each other in where the data lie."""
    given = [dataset, *filter(None, (config.valid, config.test, config.items))]
    given += several_locations(config.extra_ratings or "")
    if given.count("-") > 1:
        raise SettingError("standard input (-) can be read once: give the other tables as files")
    if config.offline and (remote := next((g for g in given if is_remote(g) and scheme(g) != "file"), None)):
        raise SettingError(f"--offline forbids the network, and {remote} is there")
    if config.query and (dataset in DATASETS or not is_path(dataset)):
        raise SettingError(f"--query goes with a database, and {dataset} is none")


def _parse_sizes(text: str) -> dict[str, int]:
    """Parse the options of a synthetic data set, "users=600,items=300"."""
    allowed = list(inspect.signature(synthetic.generate).parameters)
    sizes = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        if key not in allowed or not value.isdecimal():
            raise SettingError(f"synthetic takes {', '.join(f'{a}=N' for a in allowed)}; got {pair!r}")
        sizes[key] = int(value)
    return sizes


def column_names(config: DataConfig) -> dict[str, str | None]:
    """Return the column name that the settings give each role, or None."""
    names = {"user": config.user_col, "item": config.item_col, "time": config.time_col}
    if config.is_event_log:
        return {**names, "event": config.event_col}
    return {**names, "rating": config.rating_col, "weight": config.weight_col}


def _header_names(config: DataConfig) -> tuple[str, ...]:
    """Return the column names that mark a first line as a header: the usual ones and those of the settings."""
    return _HEADER_NAMES + tuple(
        name for given in column_names(config).values() for name in (given, *parse_names(given)) if name
    )


def _read_ratings(
    location: str, config: DataConfig, query: str | None = None, further: bool = False, tolerant: bool = False
) -> Table:
    table = read_table(location, config.columns, _header_names(config), query, tolerant=tolerant)
    return table._replace(frame=with_joined_times(table.frame, config.time_col, further))


def names_in(table: Table, columns: dict[str, str], config: DataConfig) -> dict[str, str | None]:
    """Return the names of the columns in a further table: those of the first one, or None for what it has instead."""
    return _names_there(table.frame, column_names(config) | columns)


def _names_there(frame: pl.DataFrame, names: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the names that a frame has a column of, and None in place of the others."""
    return {role: name if name in frame.columns else None for role, name in names.items()}


def build_dataset(tables: Tables, config: DataConfig) -> Dataset:
    """Turn a table of ratings, and the tables of held-out ratings, into Ratings over shared vocabularies."""
    table, columns, time_format = tables.ratings, tables.columns, tables.time_format
    for more in read_extra(config) if tables.extra is None else tables.extra:
        table = append_ratings((table, config.dataset), more, columns, config, time_format)
        time_format = None  # they are seconds now
    table = _without_old(table, columns, config, time_format)
    names = {role: columns.get(role) for role in column_names(config)}
    if config.is_event_log:
        types_of = partial(event_types, config=config)
        events = EventLog.from_frame(table.frame, names, types_of, table.is_text, table.row_label, time_format)
        trained = [type_.name for type_ in events.types if type_.weight > 0]
        is_trained = pl.col(columns["event"]).cast(pl.String).str.strip_chars().is_in(trained)
        refunds = negative_amounts(table.frame, set(columns.values()), is_trained)
        return Dataset(events.ratings(), tables.items, log=events, time_format=tables.time_format, refunds=refunds)
    read, forms, vocabs = [(table, names)], [time_format], None
    for further in (tables.valid, tables.test):
        if further is not None:
            read.append((further, names_in(further, columns, config)))
            forms.append(tables.time_format)
    if len(read) > 1 and config.shared_ids:
        vocabs = (_shared_vocab(read, "node", ("user", "item")),) * 2
    elif len(read) > 1:
        vocabs = _shared_vocab(read, "user", ("user",)), _shared_vocab(read, "item", ("item",))
    if tables.test is not None:
        read[-1][1]["weight"] = None
    ratings = [
        Ratings.from_frame(
            t.frame,
            **named,
            duplicates=config.duplicates,
            shared_ids=config.shared_ids,
            vocabs=vocabs,
            from_text=t.is_text,
            row_label=t.row_label,
            time_format=form,
        )
        for (t, named), form in zip(read, forms, strict=True)
    ]
    valid, test = ratings[1] if tables.valid is not None else None, ratings[-1] if tables.test is not None else None
    event_like = find_event_like_column(table.frame, columns.values())
    # With ratings, these say what was liked.
    refunds = None if "rating" in columns else negative_amounts(table.frame, set(columns.values()))
    return Dataset(ratings[0], tables.items, valid, test, None, event_like, tables.time_format, refunds)


def _without_old(table: Table, columns: dict[str, str], config: DataConfig, time_format: str | None) -> Table:
    """Return a table without rows that are older than the settings want."""
    most = config.max_age_seconds
    if most is None:
        return table
    if "time" not in columns:
        raise DataError("--max-age needs times, and this data has none: name the column with --time-col")
    times = parse_times(table.frame[columns["time"]], table.row_label, time_format).to_numpy()
    kept = table.frame.filter(times >= times.max(initial=0) - most)
    if kept.height < table.frame.height:
        log.info("left out %s rows older than %s", f"{table.frame.height - kept.height:,}", config.max_age)
        table = table._replace(frame=kept, row_label=RowLabel())
    return table


def _shared_vocab(tables: list[tuple[Table, dict[str, str | None]]], name: str, roles: tuple[str, ...]) -> Vocab:
    """Build one vocabulary from the id columns of several tables.

    tables: with the names of their columns by role. name: what messages call an id. roles: those of the columns.
    """
    found = [(t, find_columns(t.frame, {role: names[role] for role in ("user", "item")})) for t, names in tables]
    columns = [as_text(t.frame[names[role]]) for t, names in found for role in roles]
    if len({c.dtype for c in columns}) > 1:
        columns = [c.cast(pl.String) for c in columns]
    joined = pl.concat([c.alias(name) for c in columns])
    return Vocab.of(id_column(joined, name, from_text=all(t.is_text for t, _ in tables)), name)
