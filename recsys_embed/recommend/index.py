"""Exact top-k: the one place that ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.vocab import Rows

# Numbers that a block of scores may hold: 64 MB of float32.
BLOCK = 1 << 24

Pairs = tuple[Rows, Rows]


class Index(Protocol):
    """Finds the k best keys of queries."""

    def search(
        self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """Return (scores [b, k'], rows [b, k']), best first, for queries [b, d]; k' = min(k, keys).

        allowed: bool [n], keys that may be found. exclude: (query, key) pairs, ascending by query, that may not.
        Where fewer are left, the end of a line holds row -1 and score -inf. Equal scores go by ascending row.
        """
        ...


class ExactIndex:
    """Scores all keys, in blocks of queries, and takes the best.

    keys: [n, d]. score: how (queries [b, d], keys [n, d]) become scores [b, n]; a dot product by default.
    """

    def __init__(self, keys: Floats, score: Callable[[Floats, Floats], Floats] | None = None) -> None:
        self.keys = keys
        self.score = score or (lambda queries, keys: queries @ keys.T)

    @classmethod
    def of(cls, model: PlainModel) -> ExactIndex:
        """Index the items of a model, with their biases; ask it with `model.queries(users)`."""
        return cls(model.keys(), model.score)

    def search(
        self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        n, k = len(self.keys), min(k, len(self.keys))
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        step = max(1, BLOCK // max(1, n))
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            table = self.score(queries[block], self.keys)
            if allowed is not None:
                table[:, ~allowed] = -np.inf
            if exclude is not None:
                ends = np.searchsorted(exclude[0], (start, start + len(table)))
                table[exclude[0][slice(*ends)] - start, exclude[1][slice(*ends)]] = -np.inf
            scores[block], rows[block] = top(table, k)
        return scores, rows


def neighbours(directions: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
    """Return, for some rows of unit vectors [n, d], the k others nearest to each: cosines and rows, both [b, k'].

    Where there are fewer than k others, the end of a line is as in `Index.search`.
    """
    return ExactIndex(directions).search(directions[rows], k, exclude=(np.arange(len(rows)), rows))


def top(table: Floats, k: int) -> tuple[Floats, Rows]:
    """Return the k best of each line of [b, n], best first; equal scores by ascending row, -inf as row -1."""
    b, n = table.shape
    if k < n:
        rows = np.argpartition(table, n - k, axis=1)[:, n - k :]
        least = np.take_along_axis(table, rows, 1).min(axis=1)
        # Equal scores at the edge: which of them came in is chance, so those lines choose anew among all that are
        # good enough, the lowest rows first.
        for line in np.flatnonzero((table >= least[:, None]).sum(axis=1) > k):
            good = np.flatnonzero(table[line] >= least[line])
            rows[line] = good[np.argsort(-table[line, good], kind="stable")[:k]]
    else:
        rows = np.broadcast_to(np.arange(n), (b, n))
    rows = np.sort(rows, axis=1)
    scores = np.take_along_axis(table, rows, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return scores, np.where(np.isneginf(scores), -1, rows)
