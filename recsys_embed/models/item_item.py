"""Linear item-item models: EASE."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ratings import Ratings
from recsys_embed.kernels import worth
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


# EASE inverts an items x items matrix: at 12,000 items 0.6 GB and about a minute on two cores.
EASE_ITEMS = 12_000


EASE_LAMBDAS = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0)


# Rows and columns of a block that is turned over at once; a cache holds it.
_MIRRORED = 128


def _cooccurrences(history: csr_matrix) -> Floats:
    """Return how many users took both of two items, [items, items]; history: ones [users, items]."""
    if not worth("histories", history.nnz * history.shape[1]):
        both: Floats = (history.T @ history).toarray()
        return both
    from recsys_embed.kernels.compiled import over
    from recsys_embed.kernels.histories import together

    out, by_item = np.empty((history.shape[1],) * 2, np.float32), history.tocsc()
    over(len(out), together, out, by_item.indptr, by_item.indices, history.indptr, history.indices, least=16)
    return out


def _history_scores(history: csr_matrix, keys: Floats) -> Floats:
    """Return the product of histories, as ones [b, n], with the transpose of keys [items, n]."""
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
        self.gram = _cooccurrences(self.history)

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
        return Ranker(ExactIndex(weights.T, _history_scores), lambda users: self.history[users])

    def choose(self, quality: Callable[[Ranker], float]) -> float:
        """Return the regularization of the ranking with the best quality.

        Quality rises to one peak along `EASE_LAMBDAS`, so the walk from the middle ends where it falls.
        """

        @cache
        def quality_at(place: int) -> float:
            return quality(self.rank(EASE_LAMBDAS[place]))

        place = len(EASE_LAMBDAS) // 2
        for way in (1, -1):
            while 0 <= place + way < len(EASE_LAMBDAS) and quality_at(place + way) > quality_at(place):
                place += way
        return EASE_LAMBDAS[place]
