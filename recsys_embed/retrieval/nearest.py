"""Nearest neighbours among a few rows, by cosine."""

from __future__ import annotations

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows


def nearest_of(vectors: Floats, candidates: Rows, rows: Rows, n: int) -> tuple[Floats, Rows]:
    """Return the n' = min(n, candidates) candidate rows nearest to each of some rows of vectors [I, d].

    Both results are [b, n']: cosines, and positions in `candidates`. Of equal cosines, the first candidate comes first.
    A vector of zeros has the cosine 0 with every other.
    """
    keys, queries = vectors[candidates], vectors[rows]
    cosine = queries @ keys.T
    cosine /= _lengths(keys)
    cosine /= _lengths(queries)[:, None]
    n, line = min(n, len(candidates)), np.arange(len(rows))
    best_cosines, positions = np.empty((len(rows), n), np.float32), np.empty((len(rows), n), np.int64)
    for rank in range(n):
        best = positions[:, rank] = cosine.argmax(axis=1)
        best_cosines[:, rank] = cosine[line, best]
        cosine[line, best] = -np.inf
    return best_cosines, positions


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths [n] of vectors [n, d], or 1 for vectors of zeros."""
    square = np.einsum("nd,nd->n", vectors, vectors)
    square[square == 0] = 1
    return np.sqrt(square)
