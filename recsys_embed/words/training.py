"""Word vectors from the user's own texts, by gensim: word2vec or fastText."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from recsys_embed.errors import DataError, SettingError
from recsys_embed.words import tokens as text
from recsys_embed.words.vectors import WordVectors

Method = Literal["word2vec", "fasttext"]


def train_words(
    texts: pl.Series, method: Method = "word2vec", dim: int = 100, epochs: int = 20, least: int = 3, seed: int = 0
) -> WordVectors:
    """Train word vectors on texts (skip-gram, window 5, 5 negatives); words of fewer than `least` places are left out.

    One thread, so that equal seeds give equal vectors. Raises SettingError without gensim, DataError where too few
    words are left.
    """
    try:
        from gensim.models import FastText, Word2Vec
    except ImportError:
        raise SettingError("training word vectors needs gensim: pip install 'recsys-embed[text]'") from None
    sentences = [tokens for tokens in text.words(texts).to_list() if tokens]
    options = {
        "vector_size": dim,
        "window": 5,
        "min_count": least,
        "sg": 1,
        "epochs": epochs,
        "seed": seed,
        "workers": 1,
    }
    try:
        model = (Word2Vec if method == "word2vec" else FastText)(sentences, **options)
    except RuntimeError as error:  # gensim's word for an empty vocabulary
        raise DataError(f"no word stands in {least} places of these texts: {error}") from None
    words = pl.Series("word", model.wv.index_to_key, pl.String)
    return WordVectors.of(words, np.array(model.wv.vectors, np.float32), f"{method} of {len(sentences):,} texts")
