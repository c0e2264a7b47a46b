"""What every model has to beat: popularity, recent popularity, and EASE."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.evaluation.protocol import Ranker, rank_metrics
from recsys_embed.kernels import worth
from recsys_embed.ratings.table import Ratings
from recsys_embed.recommend.index import ExactIndex

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# EASE inverts an items x items matrix: at 12,000 items 0.6 GB and about a minute on two cores.
EASE_ITEMS = 12_000
EASE_LAMBDAS = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0)
# Rows and columns of a block that is turned over at once; a cache holds it.
_MIRRORED = 128


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


def _together(history: csr_matrix) -> Floats:
    """Return how many users took both of two items, [items, items], of who took what as ones [users, items]."""
    if not worth("histories", history.nnz * history.shape[1]):
        both: Floats = (history.T @ history).toarray()
        return both
    from recsys_embed.kernels.compiled import over
    from recsys_embed.kernels.histories import together

    out, by_item = np.empty((history.shape[1],) * 2, np.float32), history.tocsc()
    over(len(out), together, out, by_item.indptr, by_item.indices, history.indptr, history.indices, least=16)
    return out


def _summed(history: csr_matrix, keys: Floats) -> Floats:
    """Return the product of who took what, as ones [b, n], with the transpose of keys [items, n]."""
    if not worth("histories", history.nnz * len(keys)):
        product: Floats = history @ keys.T
        return product
    from recsys_embed.kernels.compiled import over
    from recsys_embed.kernels.histories import summed

    out = np.empty((history.shape[0], len(keys)), np.float32)
    over(len(out), summed, out, history.indptr, history.indices, np.ascontiguousarray(keys.T), least=16)
    return out


class Ease:
    """EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, eq. 8).

    With G = X'X + regularization I and P = inv(G), the item-item weights are B = I - P / diag(P); scores are X B.
    """

    def __init__(self, train: Ratings) -> None:
        self.history = train.matrix()
        self.gram = _together(self.history)

    def rank(self, regularization: float) -> Ranker:
        """Return the ranking of a user by the items rated; its queries are rows of a sparse matrix of ones."""
        from scipy.linalg.lapack import spotrf, spotri

        inverse = self.gram.copy()
        np.fill_diagonal(inverse, inverse.diagonal() + np.float32(regularization))
        # In place: of a symmetric matrix, LAPACK's lower triangle by columns is the upper one by rows.
        for step in (spotrf, spotri):
            done, failed = step(inverse.T, lower=True, **{f"overwrite_{'a' if step is spotrf else 'c'}": True})
            if failed:
                raise np.linalg.LinAlgError(f"the Gram matrix of EASE has no inverse in float32 ({failed})")
            inverse = done.T
        for start in range(0, len(inverse), _MIRRORED):
            stop = start + _MIRRORED
            block = inverse[start:stop, start:stop]
            block[:] = np.triu(block) + np.triu(block, 1).T
            inverse[stop:, start:stop] = inverse[start:stop, stop:].T
        weights = np.divide(inverse, -inverse.diagonal(), out=inverse)
        np.fill_diagonal(weights, 0)
        return Ranker(ExactIndex(weights.T, _summed), lambda users: self.history[users])

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
        for way in (1, -1):
            while 0 <= at + way < len(EASE_LAMBDAS) and quality(at + way) > quality(at):
                at += way
        return EASE_LAMBDAS[at]
