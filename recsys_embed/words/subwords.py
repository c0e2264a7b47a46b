"""Subwords: vectors of character n-grams, which give a word that was not in training a vector (fastText)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows

_FNV_OFFSET, _FNV_PRIME = 2_166_136_261, 16_777_619


@dataclass(frozen=True)
class Subwords:
    """Vectors of the n-grams of words, as fastText learns them (Bojanowski and others, TACL 2017).

    An n-gram is a run of min_n to max_n characters of `<word>`; a hash puts it into one of `buckets`. rows: int [m],
    the buckets that have a vector, ascending; vectors: float32 [m, dim].
    """

    rows: Rows
    vectors: Floats
    buckets: int
    min_n: int = 3
    max_n: int = 6

    def compose(self, word: str) -> Floats | None:
        """Return the mean of the vectors of a word's n-grams, [dim]; None if none of them has one."""
        wanted = np.array([ngram_hash(ngram) % self.buckets for ngram in ngrams(word, self.min_n, self.max_n)], int)
        at = np.searchsorted(self.rows, wanted)
        known = at[at < len(self.rows)][self.rows[at[at < len(self.rows)]] == wanted[at < len(self.rows)]]
        return np.asarray(self.vectors[known].mean(axis=0), np.float32) if len(known) else None


def ngrams(word: str, min_n: int = 3, max_n: int = 6) -> list[str]:
    """Return the n-grams of `<word>`, the short ones first: "<ca", "cat", "at>", "<cat", "cat>", "<cat>"."""
    marked = f"<{word}>"
    return [marked[at : at + n] for n in range(min_n, max_n + 1) for at in range(len(marked) - n + 1)]


def ngram_hash(ngram: str) -> int:
    """Return fastText's hash of an n-gram: 32-bit FNV-1a over its bytes, each taken as a signed number."""
    value = _FNV_OFFSET
    for byte in ngram.encode():
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _FNV_PRIME) & 0xFFFFFFFF
    return value
