"""Add items to a fitted state without training: their vectors are predicted from their descriptions."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.data.item_table import new_item_rows
from recsys_embed.data.vocab import Vocab
from recsys_embed.features.images import find_images
from recsys_embed.features.item_vectors import read_item_vectors
from recsys_embed.models.hybrid import HybridModel
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")


def add_items(
    state: FittedState, table: pl.DataFrame, item_vectors: str | Path | None, images: str | Path | None
) -> FittedState:
    """Return a new state with more items; see `Recommender.add_items`. `state` does not change."""
    content = state.require_content_model()
    vocab, rows = new_item_rows(table, state.items, state.table)
    vectors = read_item_vectors(Path(item_vectors), vocab) if item_vectors else None
    image_files = find_images(Path(images), vocab) if images else None
    features = content.encode_items(table, vectors, image_files)
    undescribed = int((~content.has_features(features)).sum())
    if undescribed:
        log.warning(
            "%d of the %d new items have no usable description: they get the vector of an average item",
            undescribed,
            len(vocab),
        )
    with_items = state.model.with_items if isinstance(state.model, HybridModel) else state.embeddings.with_items
    encoded, bias = replace(state.embeddings, feature_map=content.feature_map).encode(features)
    coverage = content.encoder.coverage(table)
    return state.replace(
        items=Vocab(pl.concat([state.items.series, vocab.series]), "item"),
        table=pl.concat([state.table, rows.with_columns(known_words=coverage)], how="diagonal"),
        model=with_items(encoded, bias),
        trend=None if state.trend is None else state.trend.with_items(len(state.items) + len(vocab)),
        item_counts=np.concatenate((state.item_counts, np.zeros(len(vocab), np.int64))),
        content=content.with_items(features, encoded),
    )
