"""Linear item-item models: EASE."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ratings import Ratings
from recsys_embed.kernels import use_kernel
from recsys_embed.models.ranker import Ranker
from recsys_embed.retrieval.exact import ExactIndex

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


# EASE inverts an items x items matrix: with 12,000 items, 0.6 GB and about a minute on two cores.
EASE_MAX_ITEMS = 12_000

EASE_LAMBDAS = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0)


# Side of the blocks in which a triangle is mirrored, small enough for a cache.
_MIRROR_BLOCK = 128


def _cooccurrences(history: csr_matrix) -> Floats:
    """Return how many users have both of two items, [items, items]; with other amounts than ones in the history [users,
    items], the sum of their products."""
    if not use_kernel("histories", history.nnz * history.shape[1]) or not _are_ones(history):
        gram: Floats = (history.T @ history).toarray()
        return gram
    from recsys_embed.kernels.compiled import parallel_for
    from recsys_embed.kernels.histories import cooccurrences

    out, by_item = np.empty((history.shape[1],) * 2, np.float32), history.tocsc()
    parallel_for(
        len(out), cooccurrences, out, by_item.indptr, by_item.indices, history.indptr, history.indices, min_rows=16
    )
    return out


def _are_ones(history: csr_matrix) -> bool:
    """Return whether all amounts are 1; the kernels do not look at them."""
    return bool((history.data == 1).all())


def _history_scores(history: csr_matrix, keys: Floats) -> Floats:
    """Return the product [b, items] of histories [b, n] with the transpose of keys [items, n]."""
    if not use_kernel("histories", history.nnz * len(keys)) or not _are_ones(history):
        product: Floats = history @ keys.T
        return product
    from recsys_embed.kernels.compiled import parallel_for
    from recsys_embed.kernels.histories import sum_rows

    out = np.empty((history.shape[0], len(keys)), np.float32)
    parallel_for(len(out), sum_rows, out, history.indptr, history.indices, np.ascontiguousarray(keys.T), min_rows=16)
    return out


class Ease:
    """EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, eq. 8).

    With G = X'X + regularization I and P = inv(G), the item-item weights are B = I - P / diag(P); scores are X B.
    X has the amounts of the ratings [n], by default ones.
    """

    def __init__(self, train: Ratings, amounts: Floats | None = None) -> None:
        self.history = train.matrix(amounts)
        self.gram = _cooccurrences(self.history)

    def fit(self, regularization: float) -> Ranker:
        """Return the fitted ranking; its queries are the users' histories, as sparse rows."""
        return self.ranker(self.weights(regularization))

    def ranker(self, weights: Floats) -> Ranker:
        """Return the ranking by weights, as `weights` returns them."""
        return Ranker(ExactIndex(weights.T, _history_scores), lambda users: self.history[users])

    def weights(self, regularization: float) -> Floats:
        """Return the fitted weights [items, items]: what each item, a row, adds to the others."""
        from scipy.linalg.lapack import spotrf, spotri

        inverse = self.gram.copy()
        np.fill_diagonal(inverse, inverse.diagonal() + np.float32(regularization))
        # In place. LAPACK is column-major, so its lower triangle of a symmetric matrix is the upper one here.
        for step in (spotrf, spotri):
            result, failed = step(inverse.T, lower=True, **{f"overwrite_{'a' if step is spotrf else 'c'}": True})
            if failed:
                raise np.linalg.LinAlgError(f"the Gram matrix of EASE has no inverse in float32 ({failed})")
            inverse = result.T
        for start in range(0, len(inverse), _MIRROR_BLOCK):
            stop = start + _MIRROR_BLOCK
            block = inverse[start:stop, start:stop]
            block[:] = np.triu(block) + np.triu(block, 1).T
            inverse[stop:, start:stop] = inverse[start:stop, stop:].T
        weights = np.divide(inverse, -inverse.diagonal(), out=inverse)
        np.fill_diagonal(weights, 0)
        return weights

    def tune_regularization(self, quality: Callable[[Ranker], float]) -> float:
        """Return the regularization in `EASE_LAMBDAS` whose ranking has the best quality; see `tune`."""
        return self.tune(lambda weights: quality(self.ranker(weights)))

    def tune(self, quality: Callable[[Floats], float]) -> float:
        """Return the regularization in `EASE_LAMBDAS` whose weights have the best quality.

        Quality has a single peak along them, so the search climbs from the middle and stops where quality falls.
        """

        @cache
        def quality_at(index: int) -> float:
            return quality(self.weights(EASE_LAMBDAS[index]))

        best = len(EASE_LAMBDAS) // 2
        for step in (1, -1):
            while 0 <= best + step < len(EASE_LAMBDAS) and quality_at(best + step) > quality_at(best):
                best += step
        return EASE_LAMBDAS[best]
