"""ItemFeatures: the descriptions of items as numbers, ready for a content tower."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.fields import parse_names
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
    """The descriptions of n items, and how they were encoded.

    encoder: turns item tables into features. features: those of the items. coverage: the share of each item's words
    that are known, null for an item without words. word_bag: weights [n, words] of the words in each item if word
    vectors are trained, else None. pixels: uint8 [n, 3, size, size], or None without pictures. has_picture: bool [n].
    """

    encoder: FeatureEncoder
    features: Features
    coverage: pl.Series
    word_bag: csr_matrix | None = None
    pixels: NDArray[np.uint8] | None = None
    has_picture: NDArray[np.bool_] | None = None


def encode_items(
    table: pl.DataFrame, config: ContentConfig, data_dir: str | None = None, offline: bool = False
) -> ItemFeatures:
    """Encode an item table (`item_id` and other columns, one row per item) as the settings say.

    data_dir, offline: the folder of downloads and whether to download nothing, for word vectors given by name.
    Raises DataError.
    """
    ids = Vocab(table["item_id"], "item")
    vectors = read_item_vectors(Path(config.item_vectors), ids) if config.item_vectors else None
    words = WordVectors.load(config.vectors, data_dir, offline) if config.vectors else None
    for note, count in (words.notes if words else {}).items():
        log.warning("%s: %s %s were skipped or repaired", config.vectors, f"{count:,}", note)
    kinds: dict[str, Kind] = {name: "tags" for name in parse_names(config.tags)}
    kinds |= {name: "words" for name in parse_names(config.words)}
    pixels = has_picture = None
    if config.images:
        from recsys_embed.features.images import read_images

        pixels, has_picture = read_images(Path(config.images), ids, config.image_size)
    if config.columns or vectors is not None:
        encoder = FeatureEncoder.fit(table, config.columns, kinds, words, vectors)
        if config.train_words and encoder.words is not None:
            encoder = encoder.with_trained_words(encoder.words.vectors)
    else:
        encoder = FeatureEncoder([])
    features = encoder.transform(table, vectors)
    if encoder.size == (0, 0) and pixels is None:
        raise DataError(
            f"no two items share a word or tag in {', '.join(config.columns)}, so nothing can be learnt from them"
        )
    coverage = encoder.coverage(table)
    share = coverage.drop_nulls()
    if len(share):
        log.info(
            "on average %.1f %% of the words of an item are known: they occur in another item too%s",
            100 * float(share.mean()), ", or have vectors" if words else "",  # type: ignore[arg-type]
        )  # fmt: skip
    undescribed = (np.diff(features.bag.indptr) == 0) & ~features.dense.any(axis=1)
    if has_picture is not None:
        undescribed &= ~has_picture
    if undescribed.any():
        log.warning(
            "%d items have no description: those without ratings get the vector of an average item", undescribed.sum()
        )
    bag = encoder.word_bag(table) if config.train_words else None
    return ItemFeatures(encoder, features, coverage, bag, pixels, has_picture)
