"""Items that nobody has rated, for a model that is trained: they stand where their descriptions say."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys_embed.content.images import find_images
from recsys_embed.content.item_vectors import read_item_vectors
from recsys_embed.ratings.vocab import Vocab
from recsys_embed.recommend.tables import new_rows

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender

log = logging.getLogger("recsys_embed")


def add_items(
    recommender: Recommender, table: pl.DataFrame, item_vectors: str | Path | None, images: str | Path | None
) -> Recommender:
    """Do what `Recommender.add_items` says."""
    described = recommender.need_described()
    vocab, added = new_rows(table, recommender.items, recommender.table)
    vectors = read_item_vectors(Path(item_vectors), vocab) if item_vectors else None
    pictures = find_images(Path(images), vocab) if images else None
    features = described.features(table, vectors, pictures)
    nothing = int((~described.known(features)).sum())
    if nothing:
        log.warning(
            "nothing is known of %d of the %d new items: they stand where an average item does", nothing, len(vocab)
        )
    encoded, bias = replace(recommender.plain, map=described.map).encode(features)
    # Nothing can fail from here on, so that no half of the items is added.
    recommender._described = described.with_items(features, encoded)
    coverage = described.describer.coverage(table)
    recommender.table = pl.concat([recommender.table, added.with_columns(known_words=coverage)], how="diagonal")
    recommender.plain = recommender.plain.with_items(encoded, bias)
    recommender.items = Vocab(pl.concat([recommender.items.series, vocab.series]), "item")
    recommender.counts = np.concatenate((recommender.counts, np.zeros(len(vocab), np.int64)))
    recommender._forget()
    return recommender
