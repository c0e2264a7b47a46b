"""Rankings by descriptions alone, for cold items: baselines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys_embed.arrays import Floats, normalize
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.features.encoder import Features
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class ContentRidge:
    """Kernel ridge regression from descriptions to who rated an item. It is strong, but users share nothing.

    Let K be the inner products of the features of the rated items, K_x those with an item, and X the ratings as ones.
    Then the scores of the item for all users are X (K + lambda I)^-1 K_x.
    """

    def __init__(self, features: Features, train: Ratings) -> None:
        self.rated = np.flatnonzero(train.item_counts)
        kernel = np.asarray((features.bag @ features.bag[self.rated].T).todense(), np.float64)
        self.kernel = kernel + features.dense @ features.dense[self.rated].T.astype(np.float64)
        self.history = train.matrix()[:, self.rated]

    def fit(self, regularization: float) -> Ranker:
        """Return the ranking of all items."""
        gram = self.kernel[self.rated].copy()
        gram.flat[:: len(gram) + 1] += regularization * gram.diagonal().mean()
        weights = np.linalg.solve(gram, self.kernel.T).T.astype(np.float32)
        return Ranker(ExactIndex(weights), lambda users: self.history[users].toarray())

    def mean(self, regularization: float) -> Ranker:
        """Return the ranking by the mean score over all users: predicted popularity, the same for everyone."""
        weights = self.fit(regularization).index.keys
        mean = weights @ np.asarray(self.history.mean(axis=0)).ravel()
        return Ranker(ExactIndex(mean.astype(np.float32)[:, None]), lambda users: np.ones((len(users), 1), np.float32))

    def tune_regularization(self, quality: Callable[[Ranker], float]) -> float:
        """Return the regularization in `LAMBDAS` whose ranking has the best quality."""
        return max(LAMBDAS, key=lambda regularization: quality(self.fit(regularization)))


def content_neighbours(features: Floats, train: Ratings) -> Ranker:
    """Rank items by the sum of their cosines with the items in the user's history. features: [items, f]."""
    keys, history = normalize(features), train.matrix()
    return Ranker(ExactIndex(keys), lambda users: np.asarray(history[users] @ keys, np.float32))


def random_ranker(items: int, seed: int = 0) -> Ranker:
    """Rank items at random, differently for each user."""
    keys = np.random.default_rng(seed).normal(size=(items, 8)).astype(np.float32)

    def queries(users: Rows) -> Floats:
        return np.stack([np.random.default_rng((seed, int(u))).normal(size=8) for u in users]).astype(np.float32)

    return Ranker(ExactIndex(keys), queries)
