"""One door to all data: load_dataset("movielens"), load_dataset("synthetic:users=100"), load_dataset("ratings.csv")."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import COLUMN_NAMES, find_columns
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ids import RowLabel, id_column
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources import movielens, synthetic
from recsys_embed.sources.delimited import Table, read_items, read_table
from recsys_embed.sources.download import data_dir
from recsys_embed.sources.event_log import with_likes

# A loader takes (folder of downloads, offline) and gives (ratings, items).
DATASETS: dict[str, Callable[[Path, bool], tuple[pl.DataFrame, pl.DataFrame]]] = {
    "movielens": partial(movielens.load, "movielens-100k"),
    **{name: partial(movielens.load, name) for name in movielens.SOURCES},
    "synthetic": lambda _data, _offline: synthetic.make(),
}


# Names that make a header of a first line.
_USUAL = tuple(name for names in COLUMN_NAMES.values() for name in names)


def load_dataset(dataset: str = "movielens", config: DataConfig | None = None, **options: object) -> Dataset:
    """Load a data set by name or path.

    dataset: a name of `DATASETS`; "synthetic:users=600,items=300,ratings=20000,seed=0"; or the path of a
        ratings file. config or options: the other settings of `DataConfig` (items=…, columns=…, offline=…).
    Raises DataError where the name is not known, or the data is missing or broken.
    """
    config = config or DataConfig(dataset=dataset, **options)  # type: ignore[arg-type]
    name, _, sizes = dataset.partition(":")
    items = None
    if name == "synthetic" and sizes:
        ratings, items = synthetic.make(**_sizes(sizes))
    elif dataset in DATASETS:
        ratings, items = DATASETS[dataset](data_dir(config.data_dir), config.offline)
    elif Path(dataset).exists() or "." in dataset or "/" in dataset:
        return _assemble(_read(dataset, config), _items(config), config)
    else:
        raise DataError(f"there is no data set {dataset!r} and no such file; the names are {', '.join(DATASETS)}")
    table = Table(ratings, text=ratings.dtypes[0] == pl.String, place=RowLabel())
    return _assemble(table, items if config.items is None else _items(config), config)


def _sizes(text: str) -> dict[str, int]:
    allowed = list(inspect.signature(synthetic.make).parameters)
    sizes = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        if key not in allowed or not value.isdecimal():
            raise SettingError(f"synthetic takes {', '.join(f'{a}=N' for a in allowed)}; it was given {pair!r}")
        sizes[key] = int(value)
    return sizes


def _items(config: DataConfig) -> pl.DataFrame | None:
    return read_items(Path(config.items), config.item_columns, config.item_col) if config.items else None


def _roles(config: DataConfig) -> dict[str, str | None]:
    return {"user": config.user_col, "item": config.item_col, "rating": config.rating_col, "time": config.time_col}


def _read(path: str, config: DataConfig) -> Table:
    return read_table(Path(path), config.columns, _USUAL + tuple(n for n in _roles(config).values() if n))


def _assemble(table: Table, items: pl.DataFrame | None, config: DataConfig) -> Dataset:
    """Turn a table of ratings, and the files of the held-out parts, into Ratings over shared vocabularies."""
    if config.add:
        table = _joined(table, read_table(Path(config.add), known=_USUAL), config)
    tables = [table, *(_read(path, config) for path in (config.valid, config.test) if path)]
    roles, vocabs = _roles(config), None
    if len(tables) > 1 and config.shared_ids:
        vocabs = (_shared_vocab(tables, "node", {side: roles[side] for side in ("user", "item")}),) * 2
    elif len(tables) > 1:
        user, item = (_shared_vocab(tables, side, {side: roles[side]}) for side in ("user", "item"))
        vocabs = user, item
    parts = [
        Ratings.from_frame(
            t.frame,
            **roles,
            duplicates=config.duplicates,
            shared_ids=config.shared_ids,
            vocabs=vocabs,
            from_text=t.text,
            place=t.place,
        )
        for t in tables
    ]
    test = parts[-1] if config.test else None
    return Dataset(parts[0], items, parts[1] if config.valid else None, test)


def _joined(table: Table, more: Table, config: DataConfig) -> Table:
    """Return a table of ratings with further ones behind it; what has no rating there is a like."""
    roles = find_columns(table.frame.columns, _roles(config))
    theirs = find_columns(more.frame.columns, dict.fromkeys(roles))
    added = more.frame.select(pl.col(theirs[role]).alias(name) for role, name in roles.items() if role in theirs)
    ids = [roles["user"], roles["item"]]
    text = table.text and more.text
    if any(table.frame.schema[name] != added.schema[name] for name in ids):
        frames, text = [frame.with_columns(pl.col(ids).cast(pl.String)) for frame in (table.frame, added)], True
    else:
        frames = [table.frame, added]
    frame = pl.concat(frames, how="diagonal_relaxed")
    if "rating" in roles and "rating" not in theirs:
        frame = with_likes(frame.with_columns(pl.col(roles["rating"]).cast(pl.Float64, strict=False)), roles["rating"])
    return Table(frame, text, RowLabel())


def _shared_vocab(tables: list[Table], name: str, roles: dict[str, str | None]) -> Vocab:
    columns = [t.frame[c] for t in tables for c in find_columns(t.frame.columns, roles).values()]
    if len({c.dtype for c in columns}) > 1:
        columns = [c.cast(pl.String) for c in columns]
    joined = pl.concat([c.alias(name) for c in columns])
    return Vocab.of(id_column(joined, name, from_text=all(t.text for t in tables)), name)
