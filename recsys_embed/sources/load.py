"""load_dataset: load any data set by name or path, such as "movielens", "synthetic:users=100" or "ratings.csv"."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import COLUMN_NAMES, find_columns, find_event_like_column
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.event_types import event_types
from recsys_embed.data.events import EventLog
from recsys_embed.data.ids import RowLabel, id_column
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.values import parse_times
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources import movielens, synthetic
from recsys_embed.sources.delimited import Table, read_items, read_table
from recsys_embed.sources.download import data_dir
from recsys_embed.sources.extra_ratings import append_ratings

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
    """What a data set is read into, before ids and values are parsed. valid, test: files of held-out ratings."""

    ratings: Table
    items: pl.DataFrame | None = None
    valid: Table | None = None
    test: Table | None = None


def load_dataset(dataset: str = "movielens", config: DataConfig | None = None, **options: object) -> Dataset:
    """Load a data set by name or path.

    dataset: a name of `DATASETS`, "synthetic:users=600,items=300,ratings=20000,seed=0", or the path of a ratings file.
    config or options: the other settings of `DataConfig` (items=…, columns=…, offline=…).
    Raises DataError if the name is unknown, or the data is missing or broken.
    """
    config = config or DataConfig(dataset=dataset, **options)  # type: ignore[arg-type]
    return build_dataset(read_tables(dataset, config), config)


def read_tables(dataset: str, config: DataConfig) -> Tables:
    """Read a data set as it is, see `load_dataset`. Raises DataError if it is unknown or missing."""
    name, _, sizes = dataset.partition(":")
    items = None
    if name == "synthetic" and sizes:
        ratings, items = synthetic.generate(**_parse_sizes(sizes))
    elif dataset in DATASETS:
        ratings, items = DATASETS[dataset](data_dir(config.data_dir), config.offline)
    elif Path(dataset).exists() or "." in dataset or "/" in dataset:
        valid, test = (_read_ratings(path, config) if path else None for path in (config.valid, config.test))
        return Tables(_read_ratings(dataset, config), _read_item_table(config), valid, test)
    else:
        raise DataError(f"there is no data set {dataset!r} and no such file; the names are {', '.join(DATASETS)}")
    table = Table(ratings, is_text=ratings.dtypes[0] == pl.String, row_label=RowLabel())
    valid, test = (_read_ratings(path, config) if path else None for path in (config.valid, config.test))
    return Tables(table, items if config.items is None else _read_item_table(config), valid, test)


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


def _read_item_table(config: DataConfig) -> pl.DataFrame | None:
    return read_items(Path(config.items), config.item_columns, config.item_col) if config.items else None


def column_names(config: DataConfig) -> dict[str, str | None]:
    """Return the column name that the settings give each role, or None."""
    names = {"user": config.user_col, "item": config.item_col, "time": config.time_col}
    if config.is_event_log:
        return {**names, "event": config.event_col}
    return {**names, "rating": config.rating_col, "weight": config.weight_col}


def _header_names(config: DataConfig) -> tuple[str, ...]:
    """Return the column names that mark a first line as a header: the usual ones and those of the settings."""
    return _HEADER_NAMES + tuple(n for n in column_names(config).values() if n)


def _read_ratings(path: str, config: DataConfig) -> Table:
    return read_table(Path(path), config.columns, _header_names(config))


def build_dataset(data: Tables, config: DataConfig) -> Dataset:
    """Turn a table of ratings, and the files with held-out ratings, into Ratings over shared vocabularies."""
    table, items = data.ratings, data.items
    if config.extra_ratings:
        more = read_table(Path(config.extra_ratings), config.columns, _header_names(config))
        table = append_ratings(table, more, find_columns(table.frame.columns, column_names(config)), config)
    table = _without_old(table, config)
    if config.is_event_log:
        types_of = partial(event_types, config=config)
        events = EventLog.from_frame(table.frame, column_names(config), types_of, table.is_text, table.row_label)
        return Dataset(events.ratings(), items, log=events)
    tables = [table, *(held_out for held_out in (data.valid, data.test) if held_out is not None)]
    names, vocabs = column_names(config), None
    if len(tables) > 1 and config.shared_ids:
        vocabs = (_shared_vocab(tables, "node", {side: names[side] for side in ("user", "item")}),) * 2
    elif len(tables) > 1:
        user, item = (_shared_vocab(tables, side, {side: names[side]}) for side in ("user", "item"))
        vocabs = user, item
    ratings = [
        Ratings.from_frame(
            t.frame,
            **(names if t is not data.test else names | {"weight": None}),
            duplicates=config.duplicates,
            shared_ids=config.shared_ids,
            vocabs=vocabs,
            from_text=t.is_text,
            row_label=t.row_label,
        )
        for t in tables
    ]
    test = ratings[-1] if data.test is not None else None
    event_like = find_event_like_column(table.frame, find_columns(table.frame.columns, names).values())
    return Dataset(
        ratings[0], items, ratings[1] if data.valid is not None else None, test, event_like_column=event_like
    )


def _without_old(table: Table, config: DataConfig) -> Table:
    """Return a table without rows that are older than the settings want."""
    most = config.max_age_seconds
    if most is None:
        return table
    columns = find_columns(table.frame.columns, column_names(config))
    if "time" not in columns:
        raise DataError("--max-age needs times, and this data has none: name the column with --time-col")
    times = parse_times(table.frame[columns["time"]], table.row_label).to_numpy()
    kept = table.frame.filter(times >= times.max(initial=0) - most)
    if kept.height < table.frame.height:
        log.info("left out %s rows older than %s", f"{table.frame.height - kept.height:,}", config.max_age)
        table = table._replace(frame=kept, row_label=RowLabel())
    return table


def _shared_vocab(tables: list[Table], name: str, roles: dict[str, str | None]) -> Vocab:
    """Build one vocabulary from the id columns of several tables.

    name: what messages call an id. roles: the roles of the columns, each with its name or None.
    """
    columns = [t.frame[c] for t in tables for c in find_columns(t.frame.columns, roles).values()]
    if len({c.dtype for c in columns}) > 1:
        columns = [c.cast(pl.String) for c in columns]
    joined = pl.concat([c.alias(name) for c in columns])
    return Vocab.of(id_column(joined, name, from_text=all(t.is_text for t in tables)), name)
