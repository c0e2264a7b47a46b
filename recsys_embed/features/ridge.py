"""Ridge regression from item features to item vectors, in closed form: it gives vectors to items without ratings.

The vectors v_i of the rated items are regressed on their features x_i. With weights w_i for how certain each vector is
(the square root of its number of ratings), the map minimises

    sum_i w_i |v_i - m - M x_i|^2 + lambda |M|^2,

which is kernel ridge regression with the inner product of the features as kernel, or the posterior mean of a Gaussian
process (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.25). lambda minimises the
leave-one-out error, which needs no refit (ibid., eq. 5.12); the vectors have one lambda and the biases another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.features.encoder import Features

LAMBDAS = np.geomspace(0.003, 10, 15)
# Up to this many items the kernel matrix is decomposed exactly; with more, its `_RANK` largest eigenvalues are used.
_MAX_EXACT = 5_000
_RANK = 512
# The weight of an item is its number of ratings to this power.
_WEIGHT_POWER = 0.5
# The regression uses at most this many items, those with the most ratings. That bounds the memory to some 500 MB.
_MAX_ITEMS = 20_000


class FeatureMap(NamedTuple):
    """The linear map from features to vectors: bag @ tokens [T, d] + dense @ dense [f, d] + centre [d]."""

    tokens: Floats
    dense: Floats
    centre: Floats

    def __call__(self, features: Features) -> Floats:
        """Return the vectors [n, d] of items with these features."""
        return np.asarray(features.bag @ self.tokens + features.dense @ self.dense + self.centre, np.float32)


class Ridge:
    """Weighted ridge regression of any targets on the features of the items that have ratings.

    The kernel matrix is decomposed once, when the object is created; each `fit` costs a few matrix products.
    """

    def __init__(self, features: Features, counts: Rows) -> None:
        """Decompose the kernel matrix. counts: the number of ratings of each item, int64 [items]."""
        self.source, rows = (features, counts), np.flatnonzero(counts)
        if len(rows) > _MAX_ITEMS:
            rows = np.sort(rows[np.argsort(-counts[rows], kind="stable")[:_MAX_ITEMS]])
        self.rows, n = rows, len(rows)
        self.sqrt_weight = (counts[self.rows] / counts[self.rows].mean()) ** (_WEIGHT_POWER / 2)
        self.features = Features(features.bag[self.rows], features.dense[self.rows])
        # The kernel is divided by its mean diagonal, so that a lambda means the same for any features.
        self.scale = self._mean_diagonal()
        eigenvalues, eigenvectors = (
            self._decompose() if n > _MAX_EXACT else np.linalg.eigh(self._kernel_times(np.eye(n)))
        )
        self.eigenvalues, self.eigenvectors = np.maximum(eigenvalues, 0), eigenvectors
        self.squared_eigenvectors = eigenvectors**2

    def is_fitted_on(self, features: Features, counts: Rows) -> bool:
        """Return whether this was created from this very object of features and equal counts."""
        return self.source[0] is features and np.array_equal(self.source[1], counts)

    def _mean_diagonal(self) -> float:
        bag, dense = self.features
        total = float(bag.multiply(bag).sum()) + float((dense.astype(float) ** 2).sum())
        return total / max(1, len(self.rows)) or 1.0

    def _kernel_times(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weighted kernel matrix of the items times columns [n, c]."""
        bag, dense = self.features
        inner = self.sqrt_weight[:, None] * columns
        product = bag @ (bag.T @ inner) + dense @ (dense.T @ inner)
        return self.sqrt_weight[:, None] * product / self.scale

    def _decompose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the largest eigenvalues and eigenvectors, by random projection (Halko et al., SIAM Review 2011)."""
        basis = np.random.default_rng(0).normal(size=(len(self.rows), _RANK))
        for _ in range(2):
            basis = np.linalg.qr(self._kernel_times(basis))[0]
        eigenvalues, eigenvectors = np.linalg.eigh(basis.T @ self._kernel_times(basis))
        return eigenvalues, basis @ eigenvectors

    def fit(self, targets: Floats) -> FeatureMap:
        """Regress targets [items, d] on the features; the last column has a lambda of its own."""
        centre = np.average(targets[self.rows], axis=0, weights=self.sqrt_weight**2)
        weighted = self.sqrt_weight[:, None] * (targets[self.rows] - centre)
        inside = self.eigenvectors.T @ weighted
        outside = weighted - self.eigenvectors @ inside  # zero if the decomposition is exact
        coefficients = np.zeros_like(weighted)
        for part in (slice(None, -1), slice(-1, None)):
            best_error = np.inf
            for lambda_ in LAMBDAS:
                shrunk = 1 / (self.eigenvalues + lambda_)
                solution = self.eigenvectors @ (shrunk[:, None] * inside[:, part]) + outside[:, part] / lambda_
                diagonal = self.squared_eigenvectors @ (shrunk - 1 / lambda_) + 1 / lambda_
                error = float(((solution / diagonal[:, None]) ** 2).sum())
                if error < best_error:
                    best_error, coefficients[:, part] = error, solution
        scaled = self.sqrt_weight[:, None] * coefficients / self.scale
        bag, dense = self.features
        token_map, dense_map = np.asarray(bag.T @ scaled, np.float32), np.asarray(dense.T @ scaled, np.float32)
        return FeatureMap(token_map, dense_map, centre.astype(np.float32))
