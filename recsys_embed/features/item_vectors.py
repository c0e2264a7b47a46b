"""Read ready-made item vectors: sentence embeddings, CLIP, or the export of another model."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import id_column
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.sources.read import read_table
from recsys_embed.storage.atomic import read_lines, wrap_read_errors

log = logging.getLogger("recsys_embed")

_ID_NAMES = ("item_id", "itemId", "movieId", "item", "id", "asin")


def read_item_vectors(path: Path, items: Vocab) -> Floats:
    """Read item vectors [items, f] in the order of the vocabulary; zeros for items that the file lacks.

    .parquet: a column of ids (item_id, movieId, id, …), and one column of lists or several of numbers.
    .npy: [n, f], with the ids in NAME.parquet, NAME.csv or NAME.txt (one per line) beside it.
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
        raise DataError(f"{path} has no vector of an item of this data; its ids look like {ids[0]!r}")
    known = rows >= 0
    aligned = np.zeros((len(items), vectors.shape[1]), np.float32)
    aligned[rows[known]] = vectors[known]
    n_missing = len(items) - int(known.sum())
    log.info("%s: vectors of %d numbers; %s items have none", path.name, vectors.shape[1], f"{n_missing:,}")
    return aligned


def _find_ids(frame: pl.DataFrame, path: Path, is_text: bool = False) -> pl.Series:
    name = next((n for n in _ID_NAMES if n in frame.columns), None)
    if name is None:
        raise DataError(
            f"{path} has no column of item ids ({', '.join(_ID_NAMES)}); it has {', '.join(frame.columns)[:100]}"
        )
    return id_column(frame[name], "item", from_text=is_text)


def _read_parquet(path: Path) -> tuple[pl.Series, Floats]:
    table = read_table(path)
    frame = table.frame
    ids = _find_ids(frame, path, table.is_text)
    rest = frame.select(pl.exclude(ids.name, r"^__index_level_\d+__$"))
    dtypes = {c: dtype for c, dtype in rest.schema.items() if isinstance(dtype, pl.List | pl.Array)}
    lists = [c for c, dtype in dtypes.items() if dtype.inner.is_numeric()]
    if lists:
        column = rest[next((c for c in ("vector", "embedding") if c in lists), lists[0])]
        log.info("%s: the vectors are in the column %s", path.name, column.name)
        column = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        sizes = column.list.len().unique()
        if len(sizes) != 1 or column.null_count():
            raise DataError(f"{path}: the lists of {column.name!r} differ in length or are missing")
        vectors = column.explode().cast(pl.Float32).to_numpy().reshape(len(column), int(sizes[0]))
    else:
        numeric = (
            rest.select(pl.all().cast(pl.Float32, strict=False))
            if table.is_text
            else rest.select(pl.selectors.numeric())
        )
        if not numeric.width or any(numeric[c].null_count() for c in numeric.columns):
            raise DataError(f"{path} has no vectors: a column of lists, or columns of numbers without gaps are needed")
        log.info("%s: the vectors consist of the columns %s", path.name, ", ".join(numeric.columns)[:200])
        vectors = numeric.to_numpy().astype(np.float32)
    return ids, vectors


def _read_npy(path: Path) -> tuple[pl.Series, Floats]:
    with wrap_read_errors(path):
        try:
            vectors = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is not a complete .npy file of numbers: {str(error)[:100]}") from None
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {vectors.dtype} of the shape {vectors.shape}; numbers [items, dim] are needed")
    ids_path = next((path.with_suffix(s) for s in (".parquet", ".csv", ".txt") if path.with_suffix(s).is_file()), None)
    if ids_path is None:
        raise DataError(f"{path} needs a file of item ids beside it: {path.stem}.parquet, .csv or .txt")
    if ids_path.suffix == ".txt":
        lines = [line for line in read_lines(ids_path) if line]
        ids = id_column(pl.Series("item", lines, pl.String), "item", from_text=True)
    else:
        table = read_table(ids_path, known=_ID_NAMES)
        ids = _find_ids(table.frame, ids_path, table.is_text)
    if len(ids) != len(vectors):
        raise DataError(f"{path} has {len(vectors):,} vectors, but {ids_path.name} has {len(ids):,} ids")
    return ids, vectors.astype(np.float32)
