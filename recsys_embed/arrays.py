"""Vectors as plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Keys that are gathered at once: a cache holds them.
_GATHERED = 1024


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Return vectors [n, d] at unit length; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def shrink(vectors: Floats) -> Floats:
    """Return what brings vectors [n, d] to unit length, [n]; 1 for zeros."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return np.asarray(1 / np.where(length > 0, length, 1), np.float32)


def dots(queries: Any, keys: Floats, rows: NDArray[np.int64] | None = None) -> Floats:
    """Return the products [b, n] of queries [b, d] with keys [n, d], or with those of some rows alone."""
    if rows is None:
        product: Floats = queries @ keys.T
        return product
    if len(rows) <= _GATHERED or queries.shape[0] > keys.shape[1]:
        return dots(queries, keys[rows])
    out, gathered = np.empty((len(queries), len(rows)), np.float32), np.empty((_GATHERED, keys.shape[1]), np.float32)
    for start in range(0, len(rows), _GATHERED):
        part = rows[start : start + _GATHERED]
        some = np.take(keys, part, axis=0, out=gathered[: len(part)], mode="clip")  # another mode copies once more
        np.matmul(queries, some.T, out=out[:, start : start + _GATHERED])
    return out
