"""FixedOrderIndex: top-k where everyone gets the same order."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.retrieval.base import Mask, Pairs, check_exclusions
from recsys_embed.retrieval.exact import BLOCK, ExactIndex


class FixedOrderIndex(ExactIndex):
    """Keys with the same scores [n] for every query: sorted once, and no query scores them. Implements `Index`.

    Queries are anything with a length. Equal scores go by row, as in `ExactIndex`.
    """

    def __init__(self, scores: Floats) -> None:
        super().__init__(scores[:, None])
        self.order = np.argsort(-scores, kind="stable")

    def search(
        self, queries: Any, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """See `Index`."""
        b, n, k = len(queries), len(self), min(k, len(self))
        query, excluded = check_exclusions(n, allowed, exclude)
        order = self.order if allowed is None else self.order[allowed[self.order]]
        scores, rows = np.full((b, k), -np.inf, np.float32), np.full((b, k), -1, np.int64)
        # Of the first k + (excluded keys) in the order, k are left.
        width = min(len(order), k + int(np.bincount(query, minlength=b).max(initial=0)))
        place = np.full(n, width)
        place[order[:width]] = np.arange(width)
        step = max(1, BLOCK // (4 * (width + 1)))
        for start in range(0, b, step):
            stop = min(b, start + step)
            pairs = slice(*np.searchsorted(query, (start, stop)))
            free = np.ones((stop - start, width + 1), bool)
            free[query[pairs] - start, place[excluded[pairs]]] = False
            free[:, width] = False
            number = free.cumsum(axis=1, dtype=np.int32)
            line, column = np.nonzero(free & (number <= k))
            at = start + line, number[line, column] - 1
            rows[at], scores[at] = order[column], self.keys[order[column], 0]
        return scores, rows
