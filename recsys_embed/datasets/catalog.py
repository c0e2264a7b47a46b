"""One door to all data: load_dataset("movielens"), load_dataset("synthetic:users=100"), load_dataset("ratings.csv")."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_embed.config import DataConfig
from recsys_embed.datasets import movielens, synthetic
from recsys_embed.datasets.fetch import data_dir
from recsys_embed.datasets.files import Table, read_items, read_table
from recsys_embed.errors import DataError, SettingError
from recsys_embed.ratings.splits import Split, split_leave_last, split_random, split_time
from recsys_embed.ratings.table import COLUMN_NAMES, Ratings, find_columns
from recsys_embed.ratings.vocab import Vocab, id_column

# A loader takes (folder of downloads, offline) and gives (ratings, items).
DATASETS: dict[str, Callable[[Path, bool], tuple[pl.DataFrame, pl.DataFrame]]] = {
    "movielens": partial(movielens.load, "movielens-100k"),
    **{name: partial(movielens.load, name) for name in movielens.SOURCES},
    "synthetic": lambda _data, _offline: synthetic.make(),
}


class Catalog(NamedTuple):
    """A data set: its ratings, and what is known of its items (a frame with `item_id` first) or None.

    valid, test: held-out parts that came as files of their own; `ratings` is then the training part.
    """

    ratings: Ratings
    items: pl.DataFrame | None
    valid: Ratings | None = None
    test: Ratings | None = None

    def split(self, config: DataConfig) -> Split:
        """Return (train, valid, test): the files where there are such, else the split that the settings name.

        A validation file alone holds nothing out for test. A test file alone leaves validation to the split,
        which then carves it out of the training ratings.
        """
        if self.valid is not None:
            return Split(self.ratings, self.valid, self.test if self.test is not None else self.ratings.take(slice_of(0)))
        if self.test is not None:
            train, valid, rest = SPLITS[config.split](self.ratings, config, 0.0)
            return Split(train, valid if len(valid) else rest, self.test)
        return SPLITS[config.split](self.ratings, config, config.test_share)


def slice_of(n: int):  # type: ignore[no-untyped-def]
    """Return the first n rows, as an index."""
    return slice(0, n)


SPLITS: dict[str, Callable[[Ratings, DataConfig, float], Split]] = {
    "random": lambda r, c, test: split_random(r, c.valid_share, test, c.split_seed),
    "leave-last": lambda r, c, test: split_leave_last(r),
    "time": lambda r, c, test: split_time(r, c.valid_share, test),
}


def load_dataset(dataset: str = "movielens", config: DataConfig | None = None, **options: object) -> Catalog:
    """Load a data set by name or path.

    dataset: a name of `DATASETS`; "synthetic:users=600,items=300,ratings=20000,seed=0"; or the path of a
        ratings file. config or options: the other settings of `DataConfig` (items=…, columns=…, offline=…).
    Raises DataError where the name is not known, or the data is missing or broken.
    """
    config = config or DataConfig(dataset=dataset, **options)  # type: ignore[arg-type]
    name, _, sizes = dataset.partition(":")
    if name == "synthetic" and sizes:
        ratings, items = synthetic.make(**_sizes(sizes))
    elif dataset in DATASETS:
        ratings, items = DATASETS[dataset](data_dir(config.data_dir), config.offline)
    elif Path(dataset).exists() or "." in dataset or "/" in dataset:
        return _from_files(Path(dataset), config)
    else:
        raise DataError(f"there is no data set {dataset!r} and no such file; the names are {', '.join(DATASETS)}")
    table = Ratings.from_frame(ratings, duplicates=config.duplicates, from_text=True)
    return Catalog(table, items if config.items is None else _items(config))


def _sizes(text: str) -> dict[str, int]:
    allowed = list(inspect.signature(synthetic.make).parameters)
    sizes = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        if key not in allowed or not value.isdigit():
            raise SettingError(f"synthetic takes {', '.join(f'{a}=N' for a in allowed)}; it was given {pair!r}")
        sizes[key] = int(value)
    return sizes


def _items(config: DataConfig) -> pl.DataFrame | None:
    return read_items(Path(config.items), config.item_columns, config.item_col) if config.items else None


def _from_files(path: Path, config: DataConfig) -> Catalog:
    """Read a ratings file, and the files of the held-out parts, over shared vocabularies."""
    given = {"user": config.user_col, "item": config.item_col, "rating": config.rating_col, "time": config.time_col}
    header = tuple(n for names in COLUMN_NAMES.values() for n in names) + tuple(n for n in given.values() if n)
    tables = [read_table(Path(p), config.columns, header) for p in (path, config.valid, config.test) if p]
    vocabs = None
    if len(tables) > 1:
        vocabs = (_shared_vocab(tables, "user", given["user"]), _shared_vocab(tables, "item", given["item"]))
    parts = [
        Ratings.from_frame(
            t.frame, **given, duplicates=config.duplicates, vocabs=vocabs, from_text=t.text, first_row=t.first_row
        )
        for t in tables
    ]
    test = parts[-1] if config.test else None
    return Catalog(parts[0], _items(config), parts[1] if config.valid else None, test)


def _shared_vocab(tables: list[Table], side: str, named: str | None) -> Vocab:
    columns = [t.frame[find_columns(t.frame.columns, {side: named})[side]] for t in tables]
    if len({c.dtype for c in columns}) > 1:
        columns = [c.cast(pl.String) for c in columns]
    joined = pl.concat([c.alias(side) for c in columns])
    return Vocab.of(id_column(joined, side, from_text=all(t.text for t in tables)), side)
