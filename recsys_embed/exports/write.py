"""Export the vectors of a model, or of words, to files for other programs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars.selectors as cs

from recsys_embed.errors import SettingError
from recsys_embed.exports.folder import write_files
from recsys_embed.exports.formats import EXPORTS, EmbeddingTable, ParquetOptions

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender
    from recsys_embed.words.vectors import WordVectors

__all__ = ["EXPORTS", "export", "export_words"]

log = logging.getLogger("recsys_embed")

# Columns that an export adds; an item table's column of such a name is renamed.
_RESERVED_COLUMNS = ("ratings", "vector", "x", "y", "neighbors")


def export(
    recommender: Recommender,
    to: str = "projector",
    out: str | Path = "export",
    *,
    users: bool = False,
    neighbours: int = 10,
    method: str = "auto",
    seed: int = 0,
) -> Path:
    """Write the item vectors, without biases, and the item table to a folder; return the folder.

    to: one of EXPORTS. users: write the user vectors too, to separate files. neighbours (of each row, 0 for none),
    method and seed (of x and y; see `projection.project`) apply to a Parquet export.
    In an existing folder only files of an earlier export are replaced. Raises SettingError for an unknown format, and
    DataError if another file has one of the names.
    """
    if users and recommender.is_graph:
        raise SettingError("--users: users and items of this model are the same nodes, which are exported anyway")
    tables = [_item_table(recommender), *([_user_table(recommender)] if users else [])]
    return _write(tables, to, Path(out), ParquetOptions(neighbours, method, seed))


def export_words(
    vectors: WordVectors,
    to: str = "projector",
    out: str | Path = "words-export",
    limit: int = 10_000,
    *,
    neighbours: int = 10,
    method: str = "auto",
    seed: int = 0,
) -> Path:
    """Write the first `limit` words, which in most files are the most frequent ones; see `export`."""
    if limit < 1:
        raise SettingError(f"the limit of words must be at least 1, got {limit}")
    first = vectors.take(np.arange(min(limit, len(vectors))))
    table = EmbeddingTable("words", first.words.series.alias("word").to_frame(), first.vectors)
    return _write([table], to, Path(out), ParquetOptions(neighbours, method, seed))


def _write(tables: Sequence[EmbeddingTable], to: str, out: Path, options: ParquetOptions) -> Path:
    if to not in EXPORTS:
        raise SettingError(f"there is no export to {to!r}; there are {', '.join(EXPORTS)}")
    if options.neighbours < 0:
        raise SettingError(f"neighbours must be 0 or more, got {options.neighbours}")
    write_files(out, EXPORTS[to].files(tables, options), to)
    return out


def _item_table(recommender: Recommender) -> EmbeddingTable:
    table = recommender.table.select("item_id", "title", cs.all() - cs.by_name("item_id", "title") - cs.object())
    for name in [name for name in table.columns if name in _RESERVED_COLUMNS]:
        free = f"item_{name}"
        while free in table.columns:
            free = f"item_{free}"
        log.info("the column %s of the item table is called %s in the export", name, free)
        table = table.rename({name: free})
    # Missing values are null, never NaN, which JSON and the projector lack.
    table = table.with_columns(cs.float().fill_nan(None), ratings=recommender.item_counts)
    return EmbeddingTable("items", table, recommender.state.embeddings.items, recommender.state.embeddings.item_bias)


def _user_table(recommender: Recommender) -> EmbeddingTable:
    table = pl.DataFrame({"user_id": recommender.users.series, "ratings": recommender.seen.count})
    return EmbeddingTable("users", table, recommender.state.embeddings.users, recommender.state.embeddings.user_bias)
