"""Nearest neighbours among a few rows."""

from __future__ import annotations

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows


def cosines(vectors: Floats, candidates: Rows, rows: Rows) -> Floats:
    """Return the cosines [b, n] of some rows of vectors [I, d] with candidate rows; 0 for a vector of zeros."""
    keys, queries = vectors[candidates], vectors[rows]
    cosine: Floats = queries @ keys.T
    cosine /= _lengths(keys)
    cosine /= _lengths(queries)[:, None]
    return cosine


def largest(table: Floats, n: int) -> tuple[Floats, Rows]:
    """Return the n' = min(n, columns) largest values of each line of [b, columns], and their columns, both [b, n'].

    Of equal values, the first comes first. The table is overwritten.
    """
    n, line = min(n, table.shape[1]), np.arange(len(table))
    values, columns = np.empty((len(table), n), np.float32), np.empty((len(table), n), np.int64)
    for rank in range(n):
        best = columns[:, rank] = table.argmax(axis=1)
        values[:, rank] = table[line, best]
        table[line, best] = -np.inf
    return values, columns


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths [n] of vectors [n, d], or 1 for vectors of zeros."""
    square = np.einsum("nd,nd->n", vectors, vectors)
    square[square == 0] = 1
    return np.sqrt(square)
