"""New items for a fitted state, without training: they get the vectors that their descriptions predict."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.data.item_table import new_rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.features.images import find_images
from recsys_embed.features.item_vectors import read_item_vectors
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")


def add_items(
    state: FittedState, table: pl.DataFrame, item_vectors: str | Path | None, images: str | Path | None
) -> FittedState:
    """Return a state that knows more items; see `Recommender.add_items`. `state` is left as it is."""
    content = state.require_content_model()
    vocab, rows = new_rows(table, state.items, state.table)
    vectors = read_item_vectors(Path(item_vectors), vocab) if item_vectors else None
    pictures = find_images(Path(images), vocab) if images else None
    features = content.features(table, vectors, pictures)
    nothing = int((~content.known(features)).sum())
    if nothing:
        log.warning(
            "nothing is known of %d of the %d new items: they stand where an average item does", nothing, len(vocab)
        )
    encoded, bias = replace(state.embeddings, feature_map=content.feature_map).encode(features)
    coverage = content.encoder.coverage(table)
    return state.but(
        items=Vocab(pl.concat([state.items.series, vocab.series]), "item"),
        table=pl.concat([state.table, rows.with_columns(known_words=coverage)], how="diagonal"),
        model=state.embeddings.with_items(encoded, bias),
        counts=np.concatenate((state.counts, np.zeros(len(vocab), np.int64))),
        content=content.with_items(features, encoded),
        fold_in_of=None,
    )
