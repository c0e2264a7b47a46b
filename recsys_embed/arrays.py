"""Helpers for vectors as plain NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Keys gathered per matrix product, few enough to stay in a cache.
_GATHER_BLOCK = 1024


def normalize(vectors: NDArray[np.floating]) -> Floats:
    """Scale each row of vectors [n, d] to unit length; rows of zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def inverse_lengths(vectors: Floats) -> Floats:
    """Return the factor [n] that scales each row of vectors [n, d] to unit length; 1 for rows of zeros."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return np.asarray(1 / np.where(length > 0, length, 1), np.float32)


def dot_products(queries: Any, keys: Floats, rows: NDArray[np.int64] | None = None) -> Floats:
    """Return the dot products [b, n] of queries [b, d] with keys [n, d], or with only the given rows of the keys."""
    if rows is None:
        product: Floats = queries @ keys.T
        return product
    if len(rows) <= _GATHER_BLOCK or queries.shape[0] > keys.shape[1]:
        return dot_products(queries, keys[rows])
    out = np.empty((len(queries), len(rows)), np.float32)
    gathered = np.empty((_GATHER_BLOCK, keys.shape[1]), np.float32)
    for start in range(0, len(rows), _GATHER_BLOCK):
        block = rows[start : start + _GATHER_BLOCK]
        block_keys = np.take(keys, block, axis=0, out=gathered[: len(block)], mode="clip")  # other modes copy
        np.matmul(queries, block_keys.T, out=out[:, start : start + _GATHER_BLOCK])
    return out
