"""Greedy reranking: group limits and diversity (maximal marginal relevance, MMR)."""

from __future__ import annotations

import numpy as np

from recsys_embed.arrays import Floats, normalize
from recsys_embed.data.ids import Rows
from recsys_embed.rules.columns import Mask
from recsys_embed.rules.compile import CompiledRules


class GreedyReranker:
    """Chooses a list item by item from pools of the best items.

    Each step chooses the item with the largest (1 - diversity) x relevance - diversity x (greatest cosine with a chosen
    item), among items none of whose groups is full. This is maximal marginal relevance (Carbonell and Goldstein, SIGIR
    1998), where relevance is the score scaled to 0..1 over the pool. Ties are broken by the position in the pool, so
    that without diversity the order is that of the scores.

    rows, scores: the items chosen so far. full: the groups that are full.
    """

    def __init__(self, rules: CompiledRules, k: int) -> None:
        self.rules, self.k = rules, k
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.full: list[int] = []
        self._counts: dict[int, int] = {}

    def select_from(self, scores: Floats, rows: Rows) -> None:
        """Choose items from a pool, sorted by score, until the list or the pool is exhausted; ignore rows of -1."""
        rows = rows[rows >= 0]
        relevance = _MarginalRelevance(self.rules, scores[: len(rows)], rows, self.rows)
        available, limits = np.ones(len(rows), bool), self.rules.limits
        position, group = (rows[:0], rows[:0]) if limits is None else limits.of(rows)
        while len(self.rows) < self.k and available.any():
            best = relevance.best(available)
            self.rows.append(int(rows[best]))
            self.scores.append(float(scores[best]))
            available[best] = False
            for full in self._count(group[position == best]):
                available[position[group == full]] = False
            relevance.add_chosen(best)

    def _count(self, groups: Rows) -> list[int]:
        """Count an item in its groups, and return those that became full."""
        limits, full = self.rules.limits, []
        for group in groups.tolist():
            self._counts[group] = count = self._counts.get(group, 0) + 1
            if limits is not None and count == limits.max_per_group[group]:
                full.append(group)
        self.full += full
        return full


class _MarginalRelevance:
    """Marginal relevance of the items of a pool, given the items chosen so far (rows)."""

    def __init__(self, rules: CompiledRules, scores: Floats, rows: Rows, chosen: list[int]) -> None:
        self.diversity = rules.diversity
        if rules.vectors is None or not len(rows):
            return
        self.vectors = normalize(rules.vectors[rows])
        score_range = float(scores[0]) - float(scores[-1])
        self.relevance = (1 - self.diversity) * (scores.astype(np.float64) - scores[-1]) / (score_range or 1.0)
        self.nearest = np.full(len(rows), -np.inf)
        self.marginal = self.relevance
        if chosen:
            self._compare(normalize(rules.vectors[chosen]))

    def best(self, available: Mask) -> int:
        """Return the position of the available item with the largest marginal relevance."""
        return int(np.argmax(np.where(available, self.marginal, -np.inf) if self.diversity else available))

    def add_chosen(self, position: int) -> None:
        """Update the relevance after an item was chosen."""
        if self.diversity:
            self._compare(self.vectors[position : position + 1])

    def _compare(self, others: Floats) -> None:
        self.nearest = np.maximum(self.nearest, (self.vectors @ others.T).max(axis=1))
        self.marginal = self.relevance - self.diversity * self.nearest
