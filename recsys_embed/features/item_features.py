"""Descriptions: everything that is known of the items of one vocabulary, ready for a tower."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.fields import names_of
from recsys_embed.config.settings import ContentConfig
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError
from recsys_embed.features.encoder import FeatureEncoder, Features
from recsys_embed.features.item_vectors import read_item_vectors
from recsys_embed.words.tokens import Kind
from recsys_embed.words.vectors import WordVectors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

log = logging.getLogger("recsys_embed")


@dataclass(frozen=True)
class ItemFeatures:
    """What a tower takes, for n items.

    describer: how tables become features. features: those of the items. coverage: the share of each item's words that
    is known, null for an item without words. word_bag: weights [n, words] of trained words, or None.
    pixels: uint8 [n, 3, size, size], or None; pictured: bool [n], which items have a picture.
    """

    encoder: FeatureEncoder
    features: Features
    coverage: pl.Series
    word_bag: csr_matrix | None = None
    pixels: NDArray[np.uint8] | None = None
    pictured: NDArray[np.bool_] | None = None


def encode_items(
    table: pl.DataFrame, config: ContentConfig, data_dir: str | None = None, offline: bool = False
) -> ItemFeatures:
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
        from recsys_embed.features.images import read_images

        pixels, pictured = read_images(Path(config.images), ids, config.image_size)
    if config.columns or vectors is not None:
        encoder = FeatureEncoder.learn(table, config.columns, kinds, words, vectors)
        if config.train_words and encoder.words is not None:
            encoder = encoder.with_trained(encoder.words.vectors)
    else:
        encoder = FeatureEncoder([])
    features = encoder.features(table, vectors)
    if encoder.size == (0, 0) and pixels is None:
        raise DataError(
            f"no entry of {', '.join(config.columns)} stands in two items, so nothing can be learnt from them"
        )
    coverage = encoder.coverage(table)
    share = coverage.drop_nulls()
    if len(share):
        log.info(
            "of the words of an item %.1f %% are known on average: they stand in another item too%s",
            100 * float(share.mean()), ", or have vectors" if words else "",  # type: ignore[arg-type]
        )  # fmt: skip
    nothing = (np.diff(features.bag.indptr) == 0) & ~features.dense.any(axis=1)
    if pictured is not None:
        nothing &= ~pictured
    if nothing.any():
        log.warning("%d items have no description: unrated, they stand where an average item does", nothing.sum())
    bag = encoder.word_bag(table) if config.train_words else None
    return ItemFeatures(encoder, features, coverage, bag, pixels, pictured)
