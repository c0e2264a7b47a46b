"""What every model has to beat: popularity, recent popularity, and EASE."""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse

from recsys_embed.evaluation.protocol import Ranker, rank_metrics
from recsys_embed.model.plain import Floats
from recsys_embed.ratings.table import Ratings
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.index import ExactIndex

# EASE inverts an items x items matrix: at 12,000 items 0.6 GB and about a minute on two cores.
EASE_ITEMS = 12_000
EASE_LAMBDAS = (50.0, 100.0, 200.0, 500.0, 1000.0)


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


def _matrix(train: Ratings) -> sparse.csr_matrix:
    shape = (len(train.users), len(train.items))
    return sparse.csr_matrix((np.ones(len(train), np.float32), (train.user, train.item)), shape=shape)


def ease(train: Ratings, regularization: float) -> Ranker:
    """Rank by EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, eq. 8).

    With G = X'X + regularization I and P = inv(G), the item-item weights are B = I - P / diag(P); scores are X B.
    """
    matrix = _matrix(train)
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices_from(gram)] += regularization
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)

    def history(users: Rows) -> Floats:
        dense: Floats = matrix[users].toarray()
        return dense

    return Ranker(ExactIndex(np.ascontiguousarray(weights.T, dtype=np.float32)), history)


def choose_ease(train: Ratings, valid: Ratings) -> float:
    """Return the regularization of EASE that has the best NDCG@10 on validation data."""
    seen, counts = train.seen(), train.counts

    def quality(regularization: float) -> float:
        ranker = ease(train, regularization)
        return rank_metrics(ranker, valid, seen, counts, (10,)).metrics["ndcg_at_10"]

    return max(EASE_LAMBDAS, key=quality)
