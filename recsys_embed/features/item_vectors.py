"""Ready-made vectors of the items: sentence embeddings, CLIP, another model's export."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import id_column
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.sources.delimited import read_table
from recsys_embed.storage.atomic import read_lines, reading

log = logging.getLogger("recsys_embed")

_IDS = ("item_id", "itemId", "movieId", "item", "id", "asin")


def read_item_vectors(path: Path, items: Vocab) -> Floats:
    """Read ready-made vectors, [items, f], in the order of the vocabulary; zeros where the file has none.

    .parquet: a column of ids (item_id, movieId, id, …) and either one column of lists or many of numbers.
    .npy: [n, f], with the ids in NAME.parquet, NAME.csv or NAME.txt (one a line) beside it.
    Raises DataError.
    """
    if path.suffix == ".npy":
        ids, vectors = _read_npy(path)
    else:
        ids, vectors = _read_parquet(path)
    if not vectors.size:
        raise DataError(f"{path} has no vectors: their shape is {vectors.shape}")
    if not np.isfinite(vectors).all():
        bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise DataError(f"{path}: the vector of item {ids[bad]} is not finite")
    if ids.n_unique() < len(ids):
        raise DataError(f"{path} has more than one vector for item {ids.filter(ids.is_duplicated())[0]}")
    rows = items.rows(ids.to_list(), missing="negative")
    if not (rows >= 0).any():
        raise DataError(f"{path} has no vector of an item of this data; its ids are like {ids[0]!r}")
    found = np.zeros((len(items), vectors.shape[1]), np.float32)
    found[rows[rows >= 0]] = vectors[rows >= 0]
    without = len(items) - int((rows >= 0).sum())
    log.info("%s: vectors of %d numbers; %s items have none", path.name, vectors.shape[1], f"{without:,}")
    return found


def _id_column(frame: pl.DataFrame, path: Path, text: bool = False) -> pl.Series:
    name = next((n for n in _IDS if n in frame.columns), None)
    if name is None:
        raise DataError(
            f"{path} has no column of item ids ({', '.join(_IDS)}); it has {', '.join(frame.columns)[:100]}"
        )
    return id_column(frame[name], "item", from_text=text)


def _read_parquet(path: Path) -> tuple[pl.Series, Floats]:
    table = read_table(path)
    frame = table.frame
    ids = _id_column(frame, path, table.text)
    rest = frame.select(pl.exclude(ids.name, r"^__index_level_\d+__$"))
    kinds = {c: kind for c, kind in rest.schema.items() if isinstance(kind, pl.List | pl.Array)}
    lists = [c for c, kind in kinds.items() if kind.inner.is_numeric()]
    if lists:
        column = rest[next((c for c in ("vector", "embedding") if c in lists), lists[0])]
        log.info("%s: the vectors are those of the column %s", path.name, column.name)
        column = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        sizes = column.list.len().unique()
        if len(sizes) != 1 or column.null_count():
            raise DataError(f"{path}: the lists of {column.name!r} differ in length or are missing")
        vectors = column.explode().cast(pl.Float32).to_numpy().reshape(len(column), int(sizes[0]))
    else:
        numeric = (
            rest.select(pl.all().cast(pl.Float32, strict=False)) if table.text else rest.select(pl.selectors.numeric())
        )
        if not numeric.width or any(numeric[c].null_count() for c in numeric.columns):
            raise DataError(f"{path} has no vectors: a column of lists, or columns of numbers without gaps are needed")
        log.info("%s: the vectors are made of the columns %s", path.name, ", ".join(numeric.columns)[:200])
        vectors = numeric.to_numpy().astype(np.float32)
    return ids, vectors


def _read_npy(path: Path) -> tuple[pl.Series, Floats]:
    with reading(path):
        try:
            vectors = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is no whole .npy file of numbers: {str(error)[:100]}") from None
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {vectors.dtype} of the shape {vectors.shape}; numbers [items, dim] are needed")
    beside = next((path.with_suffix(s) for s in (".parquet", ".csv", ".txt") if path.with_suffix(s).is_file()), None)
    if beside is None:
        raise DataError(
            f"{path} says whose vectors it has in {path.stem}.parquet, .csv or .txt beside it: none is there"
        )
    if beside.suffix == ".txt":
        lines = [line for line in read_lines(beside) if line]
        ids = id_column(pl.Series("item", lines, pl.String), "item", from_text=True)
    else:
        table = read_table(beside, known=_IDS)
        ids = _id_column(table.frame, beside, table.text)
    if len(ids) != len(vectors):
        raise DataError(f"{path} has {len(vectors):,} vectors, and {beside.name} {len(ids):,} ids")
    return ids, vectors.astype(np.float32)
