"""From descriptions to vectors, in closed form: what an item without ratings is taken to be.

The vectors v_i of the rated items are regressed on their features x_i. With weights w_i that say how well a vector is
known (its ratings to the power of .5), the map minimises

    sum_i w_i |v_i - m - M x_i|^2 + lambda |M|^2,

which is kernel ridge regression with the inner product of the features, or the posterior mean of a Gaussian process
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.25). lambda is the one with the least
leave-one-out error, which needs no refit (ibid., eq. 5.12); vectors and biases have one each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.features.encoder import Features

LAMBDAS = np.geomspace(0.003, 10, 15)
# Rated items up to which the likeness of all pairs is decomposed exactly; above, its first `_RANK` directions are.
_EXACT = 5_000
_RANK = 512
_POWER = 0.5
# Rated items that teach at most, those with the most ratings: what bounds the memory, to some 500 MB.
_TEACHERS = 20_000


class FeatureMap(NamedTuple):
    """The map: tokens [T, d], dense [f, d], centre [d]; features -> bag @ tokens + dense @ dense + centre."""

    tokens: Floats
    dense: Floats
    centre: Floats

    def __call__(self, features: Features) -> Floats:
        """Return the vectors [n, d] of described items."""
        return np.asarray(features.bag @ self.tokens + features.dense @ self.dense + self.centre, np.float32)


class Ridge:
    """Regression of anything on the descriptions of the items that have ratings.

    The decomposition is made once; every `fit` after it costs a few matrix products.
    """

    def __init__(self, features: Features, counts: Rows) -> None:
        self.source, rated = (features, counts), np.flatnonzero(counts)
        if len(rated) > _TEACHERS:
            rated = np.sort(rated[np.argsort(-counts[rated], kind="stable")[:_TEACHERS]])
        self.rated, n = rated, len(rated)
        self.root = (counts[self.rated] / counts[self.rated].mean()) ** (_POWER / 2)
        self.features = Features(features.bag[self.rated], features.dense[self.rated])
        # Likeness is in units of an item's mean likeness to itself, so that a lambda means the same everywhere.
        self.scale = self._mean_square()
        value, vector = self._decompose() if n > _EXACT else np.linalg.eigh(self._likeness(np.eye(n)))
        self.value, self.vector, self.square = np.maximum(value, 0), vector, vector**2

    def is_of(self, features: Features, counts: Rows) -> bool:
        """Tell whether this was made of this very object of features and of equal counts."""
        return self.source[0] is features and np.array_equal(self.source[1], counts)

    def _mean_square(self) -> float:
        bag, dense = self.features
        total = float(bag.multiply(bag).sum()) + float((dense.astype(float) ** 2).sum())
        return total / max(1, len(self.rated)) or 1.0

    def _likeness(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply the weighted likeness of the rated items with columns [n, c]."""
        bag, dense = self.features
        inner = self.root[:, None] * columns
        product = bag @ (bag.T @ inner) + dense @ (dense.T @ inner)
        return self.root[:, None] * product / self.scale

    def _decompose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the largest eigenvalues and their vectors, by random projection (Halko et al., SIAM Review 2011)."""
        basis = np.random.default_rng(0).normal(size=(len(self.rated), _RANK))
        for _ in range(2):
            basis = np.linalg.qr(self._likeness(basis))[0]
        value, turned = np.linalg.eigh(basis.T @ self._likeness(basis))
        return value, basis @ turned

    def fit(self, targets: Floats) -> FeatureMap:
        """Regress targets [items, d] of the rated items on their features; the last column has its own lambda."""
        centre = np.average(targets[self.rated], axis=0, weights=self.root**2)
        wanted = self.root[:, None] * (targets[self.rated] - centre)
        inside = self.vector.T @ wanted
        outside = wanted - self.vector @ inside  # nothing, where the decomposition is exact
        coefficients = np.zeros_like(wanted)
        for part in (slice(None, -1), slice(-1, None)):
            best = np.inf
            for lambda_ in LAMBDAS:
                shrunk = 1 / (self.value + lambda_)
                found = self.vector @ (shrunk[:, None] * inside[:, part]) + outside[:, part] / lambda_
                diagonal = self.square @ (shrunk - 1 / lambda_) + 1 / lambda_
                error = float(((found / diagonal[:, None]) ** 2).sum())
                if error < best:
                    best, coefficients[:, part] = error, found
        scaled = self.root[:, None] * coefficients / self.scale
        bag, dense = self.features
        tokens, given = np.asarray(bag.T @ scaled, np.float32), np.asarray(dense.T @ scaled, np.float32)
        return FeatureMap(tokens, given, centre.astype(np.float32))
