"""Train word vectors on the user's own texts with gensim: word2vec or fastText."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from recsys_embed.errors import DataError, SettingError
from recsys_embed.words.corpus import Corpus, Texts
from recsys_embed.words.subwords import Subwords
from recsys_embed.words.vectors import WordVectors

Method = Literal["word2vec", "fasttext"]
# Called with what is done, all that there is to do, a note and the unit.
Progress = Callable[[float, float, str, str], None]

# Buckets of n-grams; fastText itself always has the maximum, which takes 800 MB for vectors of 100.
_BUCKETS_PER_WORD, _MIN_BUCKETS, _MAX_BUCKETS = 50, 100_000, 2_000_000


def train_words(
    texts: Texts,
    method: Method = "word2vec",
    dim: int = 100,
    epochs: int = 20,
    min_count: int = 3,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> WordVectors:
    """Train word vectors on texts (skip-gram, window 5, 5 negatives).

    texts: a column, an iterable of strings, which is read once, or a path of plain text with one text a line (see
    `sources.texts.read_texts`). Memory holds the vocabulary and the vectors, not the texts: their words lie in a
    temporary file. min_count: words that occur fewer times are dropped. workers: threads; with one, equal seeds give
    equal vectors, more are faster. The vectors of fastText come with those of n-grams, for words that were not in the
    texts. progress: called with what is read, in MB, and then with the words of all passes.
    Raises SettingError for settings that cannot be and without gensim, DataError if no word is left.
    """
    if method not in get_args(Method):
        raise SettingError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    whole = {"dim": (dim, 1), "epochs": (epochs, 1), "min_count": (min_count, 1), "seed": (seed, 0)}
    for name, (value, smallest) in (whole | {"workers": (workers, 1)}).items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < smallest:
            raise SettingError(f"{name} must be a whole number from {smallest} up, got {value!r}")
    try:
        from gensim.models import FastText, Word2Vec
    except ImportError:
        raise SettingError("training word vectors needs gensim: pip install 'recsys-embed[text]'") from None
    corpus = Corpus(texts, progress)
    counts = {
        word: n for word, n in sorted(corpus.counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_count
    }
    if not counts:
        raise DataError(f"no word occurs {min_count} times in these texts: they have {corpus.tokens:,} words")
    options: dict[str, Any] = {"vector_size": dim, "min_count": min_count, "sg": 1, "seed": seed, "workers": workers}
    if method == "fasttext":
        model = FastText(**options, bucket=min(max(_BUCKETS_PER_WORD * len(counts), _MIN_BUCKETS), _MAX_BUCKETS))
    else:
        model = Word2Vec(**options)
    model.build_vocab_from_freq(counts, corpus_count=corpus.texts)
    model.train(_Passes(corpus, epochs, progress), total_words=corpus.tokens, epochs=epochs)
    vectors = np.array(model.wv.vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise DataError("the training of word vectors diverged")
    words = pl.Series("word", model.wv.index_to_key, pl.String)
    subwords = _subwords(model.wv) if method == "fasttext" else None
    return WordVectors.of(words, vectors, f"{method} of {corpus.texts:,} texts", subwords)


class _Passes:
    """A corpus that reports how far the passes over it have come."""

    def __init__(self, corpus: Corpus, epochs: int, progress: Progress | None) -> None:
        self.corpus, self.epochs, self.progress = corpus, epochs, progress
        self.done, self.start = 0, time.monotonic()

    def __iter__(self) -> Iterator[list[str]]:
        reported = self.done
        for words in self.corpus:
            yield words
            self.done += len(words)
            if self.progress and (self.done - reported > 100_000 or self.done % self.corpus.tokens == 0):
                reported = self.done
                rate = self.done / max(time.monotonic() - self.start, 1e-9)
                self.progress(self.done, self.epochs * self.corpus.tokens, f"{rate:,.0f} words/s", "words")


def _subwords(keyed: Any) -> Subwords:
    """Return the vectors of the n-grams of the vocabulary; those of other buckets were never trained."""
    used = [np.asarray(rows, np.int64) for rows in keyed.buckets_word]
    rows = np.unique(np.concatenate(used)) if used else np.zeros(0, np.int64)
    return Subwords(rows, np.array(keyed.vectors_ngrams[rows], np.float32), keyed.bucket, keyed.min_n, keyed.max_n)
