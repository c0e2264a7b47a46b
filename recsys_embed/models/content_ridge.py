"""Rankings by descriptions alone, for items without ratings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_embed.arrays import Floats, unit
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.features.encoder import Features
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class ContentRidge:
    """Kernel ridge regression from descriptions to who rated an item; strong, and blind to what users share.

    With K the inner products of the items' features and X the ratings as ones, users' scores of an item with the
    features x are X (K + lambda I)^-1 K_x.
    """

    def __init__(self, features: Features, train: Ratings) -> None:
        self.fitted = np.flatnonzero(train.counts)
        likeness = np.asarray((features.bag @ features.bag[self.fitted].T).todense(), np.float64)
        self.likeness = likeness + features.dense @ features.dense[self.fitted].T.astype(np.float64)
        self.history = train.matrix()[:, self.fitted]

    def rank(self, regularization: float) -> Ranker:
        """Return the ranking of all items."""
        square = self.likeness[self.fitted].copy()
        square.flat[:: len(square) + 1] += regularization * square.diagonal().mean()
        weights = np.linalg.solve(square, self.likeness.T).T.astype(np.float32)
        return Ranker(ExactIndex(weights), lambda users: self.history[users].toarray())

    def mean(self, regularization: float) -> Ranker:
        """Return the ranking by the mean of all users' scores: what is expected to be popular, alike for everybody."""
        weights = self.rank(regularization).index.keys
        mean = weights @ np.asarray(self.history.mean(axis=0)).ravel()
        return Ranker(ExactIndex(mean.astype(np.float32)[:, None]), lambda users: np.ones((len(users), 1), np.float32))

    def choose(self, quality: Callable[[Ranker], float]) -> float:
        """Return the regularization of the ranking with the best quality."""
        return max(LAMBDAS, key=lambda regularization: quality(self.rank(regularization)))


def content_neighbours(features: Floats, train: Ratings) -> Ranker:
    """Rank items by the sum of their cosines with what the user has rated. features: [items, f]."""
    keys, history = unit(features), train.matrix()
    return Ranker(ExactIndex(keys), lambda users: np.asarray(history[users] @ keys, np.float32))


def at_random(items: int, seed: int = 0) -> Ranker:
    """Rank by chance, differently for every user."""
    keys = np.random.default_rng(seed).normal(size=(items, 8)).astype(np.float32)

    def queries(users: Rows) -> Floats:
        return np.stack([np.random.default_rng((seed, int(u))).normal(size=8) for u in users]).astype(np.float32)

    return Ranker(ExactIndex(keys), queries)
