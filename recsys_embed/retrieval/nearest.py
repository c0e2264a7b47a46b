"""The nearest of a few items by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows

if TYPE_CHECKING:
    pass


def nearest_of(items: Floats, own: Rows, rows: Rows, n: int) -> tuple[Floats, Rows]:
    """Return, for each of some rows of items [I, d], the nearest of `own` rows: cosines and places in own, [b, n'].

    n' is min(n, own); of equal ones the first of own comes first. A vector of zeros is as far as one at right angles.
    """
    theirs, these = items[own], items[rows]
    table = these @ theirs.T
    table /= _lengths(theirs)
    table /= _lengths(these)[:, None]
    n, line = min(n, len(own)), np.arange(len(rows))
    cosines, places = np.empty((len(rows), n), np.float32), np.empty((len(rows), n), np.int64)
    for at in range(n):
        best = places[:, at] = table.argmax(axis=1)
        cosines[:, at] = table[line, best]
        table[line, best] = -np.inf
    return cosines, places


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths of vectors [n, d], [n]; 1 for one of zeros."""
    square = np.einsum("nd,nd->n", vectors, vectors)
    square[square == 0] = 1
    return np.sqrt(square)
