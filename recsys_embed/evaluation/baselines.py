"""What every model has to beat: popularity, recent popularity, and EASE."""

from __future__ import annotations

from functools import cache

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.evaluation.protocol import Ranker, rank_metrics
from recsys_embed.ratings.table import Ratings
from recsys_embed.recommend.index import ExactIndex

# EASE inverts an items x items matrix: at 12,000 items 0.6 GB and about a minute on two cores.
EASE_ITEMS = 12_000
EASE_LAMBDAS = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0)


def _same_for_all(score: Floats) -> Ranker:
    """Rank the items alike for everybody."""
    return Ranker(ExactIndex(score[:, None]), lambda users: np.ones((len(users), 1), np.float32))


def popularity(train: Ratings) -> Ranker:
    """Rank the items by their number of ratings."""
    return _same_for_all(train.counts.astype(np.float32))


def recent_popularity(train: Ratings, share: float = 0.1) -> Ranker:
    """Rank the items by their number of ratings in the newest `share` of the ratings, then by all."""
    assert train.time is not None
    newest = train.take(train.time >= np.quantile(train.time, 1 - share))
    counts = train.counts
    return _same_for_all((newest.counts + counts / (counts.max() + 1)).astype(np.float32))


class Ease:
    """EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, eq. 8).

    With G = X'X + regularization I and P = inv(G), the item-item weights are B = I - P / diag(P); scores are X B.
    """

    def __init__(self, train: Ratings) -> None:
        self.history = train.matrix()
        self.gram = (self.history.T @ self.history).toarray()

    def rank(self, regularization: float) -> Ranker:
        """Return the ranking of a user by the items rated."""
        import torch

        gram = torch.from_numpy(self.gram.copy())
        gram.diagonal().add_(regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = (inverse / -inverse.diagonal()).fill_diagonal_(0)
        return Ranker(ExactIndex(weights.T.contiguous().numpy()), lambda users: self.history[users].toarray())

    def choose(self, train: Ratings, valid: Ratings, users: int = 2000) -> float:
        """Return the regularization with the best NDCG@10 on validation data (of that many users at most).

        The quality rises to one peak along `EASE_LAMBDAS`, so the walk from the middle ends where it falls.
        """
        rated = np.unique(valid.user)
        chosen = np.random.default_rng(0).permutation(rated)[:users]
        valid, seen = valid.take(np.isin(valid.user, chosen)), train.hidden()

        @cache
        def quality(at: int) -> float:
            ranker = self.rank(EASE_LAMBDAS[at])
            return rank_metrics(ranker, valid, seen, train.counts, (10,)).metrics["ndcg_at_10"]

        at = len(EASE_LAMBDAS) // 2
        while near := [n for n in (at - 1, at + 1) if 0 <= n < len(EASE_LAMBDAS) and quality(n) > quality(at)]:
            at = max(near, key=quality)
        return EASE_LAMBDAS[at]
