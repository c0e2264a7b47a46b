"""Descriptions: everything that is known of the items of one vocabulary, ready for a tower."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config import ContentConfig, names_of
from recsys_embed.content.describe import Describer, Features
from recsys_embed.content.text import Kind
from recsys_embed.content.words import WordVectors
from recsys_embed.datasets.files import read_table
from recsys_embed.errors import DataError
from recsys_embed.ratings.vocab import Vocab, id_column

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
log = logging.getLogger("recsys_embed")


@dataclass(frozen=True)
class Descriptions:
    """describer: how tables become features. features: those of the items. word_bag: weights [n, words] of trained
    words, or None. pixels: uint8 [n, 3, size, size], or None; pictured: bool [n], which items have a picture.
    """

    describer: Describer
    features: Features
    word_bag: csr_matrix | None = None
    pixels: NDArray[np.uint8] | None = None
    pictured: NDArray[np.bool_] | None = None


def describe_items(
    table: pl.DataFrame, config: ContentConfig, data_dir: str | None = None, offline: bool = False
) -> Descriptions:
    """Learn the descriptions of an item table (`item_id` and columns, one row an item) as the settings say.

    data_dir, offline: for word vectors that have a name. Raises DataError.
    """
    ids = Vocab(table["item_id"], "item")
    vectors = read_item_vectors(Path(config.item_vectors), ids) if config.item_vectors else None
    words = WordVectors.load(config.vectors, data_dir, offline) if config.vectors else None
    for note, count in (words.notes if words else {}).items():
        log.warning("%s: %s %s were left out or mended", config.vectors, f"{count:,}", note)
    kinds: dict[str, Kind] = {name: "tags" for name in names_of(config.tags)}
    kinds |= {name: "words" for name in names_of(config.words)}
    pixels = pictured = None
    if config.images:
        from recsys_embed.content.images import read_images

        pixels, pictured = read_images(Path(config.images), ids, config.image_size)
    if config.columns or vectors is not None:
        describer = Describer.learn(table, config.columns, kinds, words, vectors)
        if config.train_words and describer.words is not None:
            describer = describer.with_trained(describer.words.vectors)
    else:
        describer = Describer([])
    features = describer.features(table, vectors)
    if describer.size == (0, 0) and pixels is None:
        raise DataError(
            f"no entry of {', '.join(config.columns)} stands in two items, so nothing can be learnt from them"
        )
    share = describer.coverage(table).drop_nulls()
    if len(share):
        log.info(
            "of the words of an item %.1f %% are known on average: they stand in another item too%s",
            100 * float(share.mean()), ", or have vectors" if words else "",  # type: ignore[arg-type]
        )  # fmt: skip
    nothing = (np.diff(features.bag.indptr) == 0) & ~features.dense.any(axis=1)
    if pictured is not None:
        nothing &= ~pictured
    bare = int(nothing.sum())
    if bare:
        log.warning(
            "%s items have no description: unrated, they stand where an average item does", f"{nothing.sum():,}"
        )
    bag = describer.word_bag(table) if config.train_words else None
    return Descriptions(describer, features, bag, pixels, pictured)


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
        raise DataError(
            f"{path}: the vector of item {ids[int(np.argmin(np.isfinite(vectors).all(axis=1)))]} is not finite"
        )
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


_IDS = ("item_id", "itemId", "movieId", "item", "id", "asin")


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
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is no whole .npy file of numbers: {str(error)[:100]}") from None
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {vectors.dtype} of the shape {vectors.shape}; numbers [items, dim] are needed")
    beside = next((path.with_suffix(s) for s in (".parquet", ".csv", ".txt") if path.with_suffix(s).is_file()), None)
    if beside is None:
        raise DataError(
            f"{path} says whose vectors it has in {path.stem}.parquet, .csv or .txt beside it: none is there"
        )
    if beside.suffix == ".txt":
        try:
            lines = [line.strip() for line in beside.read_text("utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise DataError(f"{beside} is not UTF-8 text: one item id a line is expected") from None
        ids = id_column(pl.Series("item", [line for line in lines if line], pl.String), "item", from_text=True)
    else:
        table = read_table(beside, known=_IDS)
        ids = _id_column(table.frame, beside, table.text)
    if len(ids) != len(vectors):
        raise DataError(f"{path} has {len(vectors):,} vectors, and {beside.name} {len(ids):,} ids")
    return ids, vectors.astype(np.float32)
