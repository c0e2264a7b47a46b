"""Exact indexes: every key that is allowed is scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_embed.arrays import Floats, dots, shrink
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import MANY
from recsys_embed.retrieval.base import NO_ROWS, ItemScorer, Mask, Pairs, check_exclusions
from recsys_embed.retrieval.topk import as_table, choose_topk, topk_of

# Scores that a block may hold: 64 MB of float32.
BLOCK = 1 << 24


# Share of the keys below which it pays to gather those that are allowed.
_FEW = 0.2


class ExactIndex:
    """Scores all keys that are allowed, in blocks of queries, and takes the best.

    keys: [n, d]. score: how (queries [b, d], keys [n, d]) become scores [b, n], a new array, since it is written to; a
    dot product by default. Queries are whatever `score` takes, in rows that can be sliced: sparse ones too.
    """

    def __init__(self, keys: Floats, score: Callable[[Any, Floats], Floats] | None = None) -> None:
        self.keys = keys
        self._score = score

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(model: ItemScorer) -> ExactIndex:
        """Index the items of a model, with their biases; ask it with `model.queries(users)`. It copies nothing."""
        return ItemIndex(model)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries with all keys, [b, n], or with those of some rows, [b, rows]."""
        if self._score is None:
            return dots(queries, self.keys, rows)
        return self._score(queries, self.keys if rows is None else self.keys[rows])

    def search(
        self, queries: Any, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See Index."""
        b, n, k = queries.shape[0], len(self), min(k, len(self))
        query, hidden = check_exclusions(n, allowed, exclude)
        scores, rows = np.full((b, k), -np.inf, np.float32), np.full((b, k), -1, np.int64)
        blocked, among = NO_ROWS, None
        if allowed is not None and np.count_nonzero(allowed) < n * _FEW:
            among = np.flatnonzero(allowed)
            query, hidden = _within(among, query, hidden)
        elif allowed is not None:
            blocked = np.flatnonzero(~allowed)
        width = n if among is None else len(among)
        first = min(k, width)
        edge = np.searchsorted(query, np.arange(b + 1))
        best, step = choose_topk(b * width), max(1, BLOCK // max(1, width))
        for start in range(0, b if first else 0, step):
            block = slice(start, start + step)
            table = as_table(self.scores(queries[block], among))
            edges = edge[start : start + len(table) + 1]
            if first == k:
                best(table, blocked, edges, hidden, scores[block], rows[block])
            else:
                scores[block, :first], rows[block, :first] = topk_of(best, table, blocked, edges, hidden, first)
        if among is not None and len(among):
            rows[:] = np.where(rows < 0, -1, among[rows])
        return scores, rows


class ItemIndex(ExactIndex):
    """The items of a model, scored as it scores, where they lie: nothing is copied."""

    def __init__(self, model: ItemScorer) -> None:
        super().__init__(model.item_vectors)
        self.model = model

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See ExactIndex."""
        return self.model.score(queries, rows)


class CosineIndex(ExactIndex):
    """Vectors [n, d], of any length, by their cosine with queries of unit length; they are not copied."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__(vectors)
        self.shrink = shrink(vectors)

    def scores(self, queries: Any, rows: Rows | None = None) -> Floats:
        """See ExactIndex."""
        by = self.shrink if rows is None else self.shrink[rows]
        if len(queries) > self.keys.shape[1]:  # of many, a copy of the keys is less work, and less than the scores
            return dots(queries, (self.keys if rows is None else self.keys[rows]) * by[:, None])
        out = dots(queries, self.keys, rows)
        out *= by
        return out

    def directions(self, rows: Rows) -> Floats:
        """Return the vectors of some rows at unit length, [b, d]; zeros stay zeros."""
        made: Floats = self.keys[rows] * self.shrink[rows, None]
        return made

    def neighbours(self, rows: Rows, k: int) -> tuple[Floats, Rows]:
        """Return, for some rows, the k others nearest to each: cosines and rows, both [b, k'], as `search` does."""
        return self.search(self.directions(rows), k, exclude=(np.arange(len(rows)), rows))


def _within(among: Rows, query: Rows, hidden: Rows) -> Pairs:
    """Return the (query, key) pairs whose key is one of `among`, ascending, as places in it."""
    place = np.searchsorted(among, hidden)
    inside = place < len(among)
    inside[inside] = among[place[inside]] == hidden[inside]
    return query[inside], place[inside]


def query_batch_size(keys: int) -> int:
    """Return how many queries to search with at once: few enough for the memory, and enough to be worth a kernel."""
    return max(8192, MANY // max(1, keys))
