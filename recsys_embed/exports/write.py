"""The vectors of a model, or of words, as files that other programs open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars.selectors as cs

from recsys_embed.errors import SettingError
from recsys_embed.exports.folder import fill
from recsys_embed.exports.formats import EXPORTS, Layout, Part

if TYPE_CHECKING:
    from recsys_embed.recommender import Recommender
    from recsys_embed.words.vectors import WordVectors

__all__ = ["EXPORTS", "export", "export_words"]

log = logging.getLogger("recsys_embed")

# Columns that an export adds; a column of the item table that has such a name is renamed.
_OWN = ("ratings", "vector", "x", "y", "neighbors")


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
    """Write the items' vectors, without biases, and what is known of the items to a folder; return it.

    to: one of EXPORTS. users: the users' vectors too, in files of their own. neighbours (of each row, 0 for none),
    method and seed (of the picture; see `show.project`): of a Parquet export.
    In a folder that is there already only files of an earlier export are replaced. Raises SettingError for an unknown
    form, and DataError where something else has the name of a file.
    """
    if users and recommender.shared:
        raise SettingError("--users: users and items of this model are the same nodes, which are exported anyway")
    parts = [_items(recommender), *([_users(recommender)] if users else [])]
    return _write(parts, to, Path(out), Layout(neighbours, method, seed))


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
    """Write the first `limit` words, which are the most frequent where the file has them so; see `export`."""
    if limit < 1:
        raise SettingError(f"the limit of words must be at least 1, got {limit}")
    first = vectors.take(np.arange(min(limit, len(vectors))))
    part = Part("words", first.words.series.alias("word").to_frame(), first.vectors)
    return _write([part], to, Path(out), Layout(neighbours, method, seed))


def _write(parts: Sequence[Part], to: str, out: Path, layout: Layout) -> Path:
    if to not in EXPORTS:
        raise SettingError(f"there is no export to {to!r}; there are {', '.join(EXPORTS)}")
    if layout.neighbours < 0:
        raise SettingError(f"the number of neighbours must not be below 0, got {layout.neighbours}")
    fill(out, EXPORTS[to].files(parts, layout), to)
    return out


def _items(recommender: Recommender) -> Part:
    table = recommender.table.select("item_id", "title", cs.all() - cs.by_name("item_id", "title") - cs.object())
    for name in [name for name in table.columns if name in _OWN]:
        free = f"item_{name}"
        while free in table.columns:
            free = f"item_{free}"
        log.info("the column %s of the item table is called %s in the export", name, free)
        table = table.rename({name: free})
    # What is not known is missing, never NaN: JSON and the projector cannot say NaN.
    table = table.with_columns(cs.float().fill_nan(None), ratings=recommender.counts)
    return Part("items", table, recommender.state.embeddings.items, recommender.state.embeddings.item_bias)


def _users(recommender: Recommender) -> Part:
    table = pl.DataFrame({"user_id": recommender.users.series, "ratings": recommender.seen.count})
    return Part("users", table, recommender.state.embeddings.users, recommender.state.embeddings.user_bias)
