"""Ranker: ranks items for trained users, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.base import ScoringModel
from recsys_embed.retrieval.base import Mask
from recsys_embed.retrieval.exact import ExactIndex, query_batch_size
from recsys_embed.retrieval.fixed_order import FixedOrderIndex


@dataclass(frozen=True)
class Ranker:
    """Anything that ranks items for users: an index, and `queries`, from user rows [b] to queries [b, d]."""

    index: ExactIndex
    queries: Callable[[Rows], Any]

    @classmethod
    def of(cls, model: ScoringModel) -> Ranker:
        """Rank items by the scores of a model."""
        return cls(ExactIndex.of(model), model.queries)

    def scores(self, users: Rows) -> Floats:
        """Return the scores of all items for users [b], [b, items]."""
        return self.index.scores(self.queries(users))

    def top_k(self, users: Rows, k: int, seen: UserItems, allowed: Mask | None = None) -> Iterator[tuple[Rows, Rows]]:
        """Yield blocks of users [b] and their k best unseen, allowed items [b, k'], as in `Index.search`."""
        step = query_batch_size(len(self.index))
        for start in range(0, len(users), step):
            block = users[start : start + step]
            yield block, self.index.search(self.queries(block), k, allowed, seen.pairs_of(block))[1]


@dataclass(frozen=True)
class RankerOfKnown(Ranker):
    """A ranker that ranks for users of whom nothing is known by the same order. known [users]: of whom something is."""

    known: Mask
    order: FixedOrderIndex

    def scores(self, users: Rows) -> Floats:
        """See `Ranker`."""
        out = np.empty((len(users), len(self.index)), np.float32)
        known = self.known[users]
        out[known] = super().scores(users[known])
        out[~known] = self.order.keys[:, 0]
        return out

    def top_k(self, users: Rows, k: int, seen: UserItems, allowed: Mask | None = None) -> Iterator[tuple[Rows, Rows]]:
        """See `Ranker`."""
        step, k = query_batch_size(len(self.index)), min(k, len(self.index))
        for start in range(0, len(users), step):
            block = users[start : start + step]
            rows, known = np.empty((len(block), k), np.int64), self.known[block]
            some, others = block[known], block[~known]
            rows[known] = self.index.search(self.queries(some), k, allowed, seen.pairs_of(some))[1]
            rows[~known] = self.order.search(others, k, allowed, seen.pairs_of(others))[1]
            yield block, rows
