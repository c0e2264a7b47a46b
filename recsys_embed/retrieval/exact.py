"""Exact top-k: every allowed key is scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_embed.arrays import Floats, dot_products, inverse_lengths
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import MIN_KERNEL_WORK
from recsys_embed.retrieval.base import NO_ROWS, ItemScorer, Mask, Pairs, check_exclusions
from recsys_embed.retrieval.topk import as_table, choose_topk, topk_of

# Most scores in a block: 64 MB of float32.
BLOCK = 1 << 24

# With a smaller share of the keys allowed, gathering them is faster than scoring all.
_FEW = 0.2


class ExactIndex:
    """Score all allowed keys, in blocks of queries, and return the best. Implements `Index`.

    keys: [n, d]. score: (queries [b, d], keys [n, d]) -> scores [b, n], a new array, which is overwritten; the default
    is the dot product. Queries are whatever `score` takes, if its rows can be sliced: sparse matrices too.
    """

    def __init__(self, keys: Floats, score: Callable[[Any, Floats], Floats] | None = None) -> None:
        self.keys = keys
        self._score = score

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(model: ItemScorer) -> ExactIndex:
        """Index the items of a model, with their biases; search it with `model.queries(users)`. Nothing is copied."""
        return ItemIndex(model)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries for all keys, [b, n], or for some rows of them, [b, rows]."""
        if self._score is None:
            return dot_products(queries, self.keys, rows)
        return self._score(queries, self.keys if rows is None else self.keys[rows])

    def search(
        self, queries: Any, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See `Index`."""
        b, n, k = queries.shape[0], len(self), min(k, len(self))
        query, excluded = check_exclusions(n, allowed, exclude)
        scores, rows = np.full((b, k), -np.inf, np.float32), np.full((b, k), -1, np.int64)
        blocked, subset = NO_ROWS, None
        if allowed is not None and np.count_nonzero(allowed) < n * _FEW:
            subset = np.flatnonzero(allowed)
            query, excluded = _pairs_within(subset, query, excluded)
        elif allowed is not None:
            blocked = np.flatnonzero(~allowed)
        width = n if subset is None else len(subset)
        n_ranked = min(k, width)
        edges = np.searchsorted(query, np.arange(b + 1))
        rank, step = choose_topk(b * width), max(1, BLOCK // max(1, width))
        for start in range(0, b if n_ranked else 0, step):
            block = slice(start, start + step)
            table = as_table(self.scores(queries[block], subset))
            block_edges = edges[start : start + len(table) + 1]
            if n_ranked == k:
                rank(table, blocked, block_edges, excluded, scores[block], rows[block])
            else:
                best = topk_of(rank, table, blocked, block_edges, excluded, n_ranked)
                scores[block, :n_ranked], rows[block, :n_ranked] = best
        if subset is not None and len(subset):
            rows[:] = np.where(rows < 0, -1, subset[rows])
        return scores, rows


class ItemIndex(ExactIndex):
    """The items of a model, scored by the model itself; nothing is copied."""

    def __init__(self, model: ItemScorer) -> None:
        super().__init__(model.item_vectors)
        self.model = model

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See `ExactIndex`."""
        return self.model.score(queries, rows)


class CosineIndex(ExactIndex):
    """Vectors [n, d] of any length, ranked by their cosine with queries of unit length; they are not copied."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__(vectors)
        self.inverse_lengths = inverse_lengths(vectors)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See `ExactIndex`."""
        scale = self.inverse_lengths if rows is None else self.inverse_lengths[rows]
        if len(queries) > self.keys.shape[1]:  # scaling a copy of the keys is then less work than scaling the scores
            return dot_products(queries, (self.keys if rows is None else self.keys[rows]) * scale[:, None])
        out = dot_products(queries, self.keys, rows)
        out *= scale
        return out

    def directions(self, rows: Rows) -> Floats:
        """Return the vectors of some rows, normalized to unit length, [b, d]; zeros stay zeros."""
        normalized: Floats = self.keys[rows] * self.inverse_lengths[rows, None]
        return normalized

    def neighbours(self, rows: Rows, k: int, allowed: Mask | None = None) -> tuple[Floats, Rows]:
        """Return the k nearest neighbours of each row, without itself: cosines and rows [b, k'], as in `search`."""
        return self.search(self.directions(rows), k, allowed, (np.arange(len(rows)), rows))


def _pairs_within(subset: Rows, query: Rows, keys: Rows) -> Pairs:
    """Return the (query, key) pairs whose key is in a subset, in their order, with the key's position in it."""
    position = np.searchsorted(subset, keys)
    inside = position < len(subset)
    inside[inside] = subset[position[inside]] == keys[inside]
    return query[inside], position[inside]


def query_batch_size(keys: int) -> int:
    """Return how many queries to search at once: few enough for memory, enough to be worth a compiled kernel."""
    return max(8192, MIN_KERNEL_WORK // max(1, keys))
