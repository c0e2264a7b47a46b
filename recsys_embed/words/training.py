"""Train word vectors on the user's own texts with gensim: word2vec or fastText."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from recsys_embed.errors import DataError, SettingError
from recsys_embed.words.tokens import split_words
from recsys_embed.words.vectors import WordVectors

Method = Literal["word2vec", "fasttext"]


def train_words(
    texts: pl.Series, method: Method = "word2vec", dim: int = 100, epochs: int = 20, min_count: int = 3, seed: int = 0
) -> WordVectors:
    """Train word vectors on texts (skip-gram, window 5, 5 negatives).

    min_count: words that occur fewer times are dropped. Training uses one thread, so equal seeds give equal vectors.
    Raises SettingError without gensim, DataError if no word is left.
    """
    try:
        from gensim.models import FastText, Word2Vec
    except ImportError:
        raise SettingError("training word vectors needs gensim: pip install 'recsys-embed[text]'") from None
    sentences = [tokens for tokens in split_words(texts).to_list() if tokens]
    options = {
        "vector_size": dim,
        "window": 5,
        "min_count": min_count,
        "sg": 1,
        "epochs": epochs,
        "seed": seed,
        "workers": 1,
    }
    try:
        model = (Word2Vec if method == "word2vec" else FastText)(sentences, **options)
    except RuntimeError as error:  # gensim raises it for an empty vocabulary
        raise DataError(f"no word occurs {min_count} times in these texts: {error}") from None
    words = pl.Series("word", model.wv.index_to_key, pl.String)
    return WordVectors.of(words, np.array(model.wv.vectors, np.float32), f"{method} of {len(sentences):,} texts")
