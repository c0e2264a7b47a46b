"""Lists chosen item by item: limits for groups, and diversity (MMR)."""

from __future__ import annotations

import numpy as np

from recsys_embed.arrays import Floats, unit
from recsys_embed.data.ids import Rows
from recsys_embed.rules.compile import CompiledRules
from recsys_embed.rules.evaluate import Mask


class GreedyReranker:
    """One list, chosen item by item from pools of the best.

    An item is chosen only while none of its groups is full. The next one has the largest
    (1 - diversity) x relevance - diversity x (greatest cosine with a chosen item): maximal marginal relevance
    (Carbonell and Goldstein, SIGIR 1998), where relevance is the score scaled to 0..1 over the pool. Ties go by the
    place in the pool, so that without diversity the order is that of the scores.

    rows, scores: what was chosen so far; full: the groups that are full.
    """

    def __init__(self, rules: CompiledRules, k: int) -> None:
        self.rules, self.k = rules, k
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.full: list[int] = []
        self._counts: dict[int, int] = {}

    def take(self, scores: Floats, rows: Rows) -> None:
        """Choose from a pool, best first, until it has nothing more to choose; row -1 is none."""
        rows = rows[rows >= 0]
        open_, relevance = (
            np.ones(len(rows), bool),
            _MarginalRelevance(self.rules, scores[: len(rows)], rows, self.rows),
        )
        limits = self.rules.limits
        place, group = (rows[:0], rows[:0]) if limits is None else limits.of(rows)
        while len(self.rows) < self.k and open_.any():
            at = relevance.best(open_)
            self.rows.append(int(rows[at]))
            self.scores.append(float(scores[at]))
            open_[at] = False
            for full in self._counted(group[place == at]):
                open_[place[group == full]] = False
            relevance.chosen(at)

    def _counted(self, groups: Rows) -> list[int]:
        """Count an item in its groups, and return those that are full now."""
        limits, full = self.rules.limits, []
        for group in groups.tolist():
            self._counts[group] = count = self._counts.get(group, 0) + 1
            if limits is not None and count == limits.max_per_group[group]:
                full.append(group)
        self.full += full
        return full


class _MarginalRelevance:
    """Marginal relevance of the items of a pool, given those that were chosen already."""

    def __init__(self, rules: CompiledRules, scores: Floats, rows: Rows, chosen: list[int]) -> None:
        self.diversity = rules.diversity
        if rules.vectors is None or not len(rows):
            return
        self.vectors = unit(rules.vectors[rows])
        width = float(scores[0]) - float(scores[-1])
        self.relevance = (1 - self.diversity) * (scores.astype(np.float64) - scores[-1]) / (width or 1.0)
        self.nearest = np.full(len(rows), -np.inf)
        self.marginal = self.relevance
        if chosen:
            self._compare(unit(rules.vectors[chosen]))

    def best(self, open_: Mask) -> int:
        """Return the place of the most relevant item among those that may still be chosen."""
        return int(np.argmax(np.where(open_, self.marginal, -np.inf) if self.diversity else open_))

    def chosen(self, at: int) -> None:
        """Take note that an item was chosen."""
        if self.diversity:
            self._compare(self.vectors[at : at + 1])

    def _compare(self, others: Floats) -> None:
        self.nearest = np.maximum(self.nearest, (self.vectors @ others.T).max(axis=1))
        self.marginal = self.relevance - self.diversity * self.nearest
