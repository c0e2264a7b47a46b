"""Scores the other way round: of all users for some items, on one scale for all users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, dot_products
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.base import ScoringModel
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.hybrid import HybridModel
from recsys_embed.models.item_weights import Histories, Ints, ItemWeights, length_factors

Doubles = NDArray[np.float64]

# Items drawn to learn what scores each user gives (experiments/LOG.md).
_DRAWN = 2048
# Scores computed at once: 64 MB of float32; for models that know no better way, a sixteenth, as an MLP needs more.
_BLOCK, _USER_BLOCK = 1 << 24, 1 << 20


class UserScorer(Protocol):
    """Scores users for items."""

    def scores(self, items: Rows, users: Rows | None = None) -> Floats:
        """Return the scores of all users, or of some user rows, for item rows [b]: a new array [b, users]."""
        ...

    def scaled(self, scale: Floats, shift: Floats) -> Self:
        """Return the scorer whose scores are scale x score + shift; both are [users]."""
        ...


def user_scorer(model: ScoringModel, users: int) -> UserScorer:
    """Return the scorer of a model's users, of whom there are so many; scores are those of `model.score`."""
    if isinstance(model, EmbeddingModel) and not model.layers:
        return _DotScorer(model.queries(np.arange(users)), model.items, model.item_bias)
    if isinstance(model, HybridModel) and model.boosts is None:
        return _HybridScorer.of(model, users)
    return _BlockScorer(model, np.ones(users, np.float32), np.zeros(users, np.float32))


def comparable(scorer: UserScorer, owners: UserItems, history_sizes: Rows, counts: Rows) -> UserScorer:
    """Return the scorer on one scale for all users: z + log n.

    z is by how many standard deviations the score is above the mean of those that the user gives to items they do not
    have, so that neither long vectors nor a user who likes everything decide; n is the number of the user's items,
    since who takes more items is more likely to take this one. (For both see experiments/LOG.md.) Means and deviations
    come from 2,048 items, drawn among those with ratings.

    owners: the users of each item. history_sizes [users]: n. counts [items]: ratings.
    """
    items = np.flatnonzero(counts) if counts.any() else np.arange(len(counts))
    if len(items) > _DRAWN:
        items = np.sort(np.random.default_rng(0).choice(items, _DRAWN, replace=False))
    mean, deviation = _moments(scorer, owners, items, len(history_sizes))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-5 * np.abs(mean) + 1e-12)
    shift = np.log(np.maximum(1, history_sizes)) - mean * scale
    return scorer.scaled(scale.astype(np.float32), shift.astype(np.float32))


def _moments(scorer: UserScorer, owners: UserItems, items: Rows, users: int) -> tuple[Doubles, Doubles]:
    """Return the mean and the standard deviation of each user's scores of those items that they do not have, [users].

    Both are 0 for a user who has all of them.
    """
    first, total, squares, number = (np.zeros(users) for _ in range(4))
    step = max(1, _BLOCK // max(1, users))
    for start in range(0, len(items), step):
        block = items[start : start + step]
        scores = scorer.scores(block)
        if not start:
            first = scores[0].astype(np.float64)
        scores -= first.astype(np.float32)  # squares of differences lose less to rounding
        line, user = owners.pairs_of(block)
        scores[line, user] = 0
        number += len(block) - np.bincount(user, minlength=users)
        total += scores.sum(axis=0, dtype=np.float64)
        squares += np.einsum("bu,bu->u", scores, scores, dtype=np.float64)
    mean = total / np.maximum(1, number)
    deviation = np.sqrt(np.maximum(0, squares / np.maximum(1, number) - mean**2))
    return np.where(number > 0, mean + first, 0), deviation


@dataclass(frozen=True)
class _DotScorer:
    """Dot products: scales and shifts go into the users' vectors. keys: all users as `EmbeddingModel.queries`."""

    keys: Floats
    items: Floats
    bias: Floats

    def scores(self, items: Rows, users: Rows | None = None) -> Floats:
        ones = np.ones(len(items), np.float32)
        return dot_products(np.column_stack((self.items[items], ones, self.bias[items])), self.keys, users)

    def scaled(self, scale: Floats, shift: Floats) -> _DotScorer:
        keys = self.keys * scale[:, None]
        keys[:, -2] += shift
        return replace(self, keys=keys)


@dataclass(frozen=True)
class _BlockScorer:
    """Any model, in blocks of users."""

    model: ScoringModel
    scale: Floats
    shift: Floats

    def scores(self, items: Rows, users: Rows | None = None) -> Floats:
        rows = np.arange(len(self.scale)) if users is None else users
        out, step = np.empty((len(items), len(rows)), np.float32), max(1, _USER_BLOCK // max(1, len(items)))
        for start in range(0, len(rows), step):
            queries = self.model.queries(rows[start : start + step])
            out[:, start : start + step] = self.model.score(queries, items).T
        out *= self.scale[rows]
        out += self.shift[rows]
        return out

    def scaled(self, scale: Floats, shift: Floats) -> _BlockScorer:
        return replace(self, scale=self.scale * scale, shift=self.shift * scale + shift)


@dataclass(frozen=True)
class _HybridScorer:
    """Item neighbours, summed from the item's side, and the embeddings if they count.

    sources: what adds to each item, as the history of the item. amounts: how much each item counts for its users, with
    users as targets. log_counts [items], powers [users]: the discount on popular items (`Neighbours`).
    """

    embedding: UserScorer | None
    sources: Histories
    amounts: ItemWeights
    log_counts: Floats
    powers: Floats
    scale: Floats
    shift: Floats

    @classmethod
    def of(cls, model: HybridModel, users: int) -> _HybridScorer:
        ones, none = np.ones(users, np.float32), np.zeros(users, np.float32)
        embedding = user_scorer(model.embedding, users) if model.embedding_scale else None
        if embedding is not None:
            embedding = embedding.scaled(np.float32(model.embedding_scale) * ones, none)
        neighbours, histories = model.neighbours, model.histories
        weights, totals = neighbours.weights, histories.totals
        sources = Histories(*_transposed(weights.indptr, weights.target, weights.weight, len(weights)))
        amounts = ItemWeights(*_transposed(histories.indptr, histories.item, histories.amount, len(weights)))
        powers = neighbours.powers(totals)
        return cls(embedding, sources, amounts, neighbours.log_counts, powers, length_factors(totals), none)

    def scores(self, items: Rows, users: Rows | None = None) -> Floats:
        out = self.amounts.scores(self.sources[items], targets=len(self.scale))
        if self.powers.any():
            out *= np.exp(-self.log_counts[items, None] * self.powers)
        out *= self.scale
        out += self.shift if self.embedding is None else self.embedding.scores(items)
        return out if users is None else out[:, users]

    def scaled(self, scale: Floats, shift: Floats) -> _HybridScorer:
        embedding = None if self.embedding is None else self.embedding.scaled(scale, shift)
        return replace(self, embedding=embedding, scale=self.scale * scale, shift=self.shift * scale + shift)


def _transposed(indptr: Rows, column: Ints, value: Floats, columns: int) -> tuple[Rows, Ints, Floats]:
    """Return a matrix in compressed sparse rows, transposed; rows stay ascending within a column."""
    row = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    order = np.argsort(column, kind="stable")
    edges = np.concatenate(([0], np.cumsum(np.bincount(column, minlength=columns))))
    return edges, row[order], value[order]
