"""The vector of somebody who was not there in training, from the items that they took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.errors import SettingError
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.vocab import Rows

# Chosen on users held out of ML-100K and ML-1M, for cosines and dot products alike (experiments/LOG.md), in shares of
# the items' whole variance, so that neither the vectors' width nor their scale matters: what is noise in the vectors,
# and what is known of a user beforehand, which counts as much as one item does.
_NOISE, _PRIOR = 0.025, 0.6


def new_user(model: PlainModel, counts: Rows) -> Callable[[Rows], Floats]:
    """Return what makes the vector [d] of somebody the model does not know, from the rows of the items they took.

    Where users are made of their histories, a new one is made as they are, without a vector of their own; for the
    others it is the closed form. counts: ratings of each item. Raises SettingError for an MLP scorer.
    """
    return FoldIn.of(model, counts).vector if model.history is None else model.of_history


@dataclass(frozen=True)
class FoldIn:
    """A user is (spread + (noise + prior / n) x identity)^-1 (mean of the n items taken - mean of all items).

    One step of Newton's method from nothing known (the vector 0) to what makes the items taken likely: with p the
    softmax of the items' biases, the log-likelihood of a softmax, a taken item, has the gradient v - mean and the
    Hessian -spread, mean and covariance of the vectors under p; noise and prior are a ridge, that of a normal prior as
    far as it falls with n. (The same as Fisher's linear discriminant of the items taken against all items, with a
    shrunken covariance: Friedman, Regularized Discriminant Analysis, JASA 1989.) Its length is that of log-odds, as a
    softmax trains them, so that items' biases weigh what they should; it is not the users' own length with a cosine,
    which is more than what so little is known of can bear.

    items [I, d]; mean [d]; spread [d, d]; noise, prior: in squared units of the items.
    """

    items: Floats
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    noise: float
    prior: float

    @classmethod
    def of(cls, model: PlainModel, counts: Rows) -> FoldIn:
        """Prepare for a model with a dot product or a cosine. Raises SettingError for an MLP scorer."""
        if model.layers:
            raise SettingError("new users need a model with a dot product: an MLP scorer has no closed form for them")
        # An item without ratings has no part in the model's softmax.
        rated, bias = model.items[counts > 0].astype(np.float64), model.item_bias[counts > 0].astype(np.float64)
        chance = np.exp(bias - bias.max(initial=-np.inf))
        chance /= max(1.0, chance.sum())  # the largest is 1; without any rated item there is nothing to divide
        mean = chance @ rated
        rated -= mean
        rated *= np.sqrt(chance)[:, None]
        spread = rated.T @ rated
        variance = max(float(np.trace(spread)), 1e-9)  # of one item alone it is zero
        return cls(model.items, mean, spread, _NOISE * variance, _PRIOR * variance)

    def vector(self, taken: Rows) -> Floats:
        """Return the vector [d] of somebody who took these items; zeros for nobody's."""
        if not len(taken):
            return np.zeros(len(self.mean), np.float32)
        pull = self.items[taken].mean(axis=0, dtype=np.float64) - self.mean
        return np.linalg.solve(self._ridged(len(taken)), pull).astype(np.float32)

    def added(self, taken: Rows, item: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each of the n items adds to the product of `vector` with an item's vector [d], [n]."""
        pulls = (self.items[taken] - self.mean) / max(1, len(taken))
        return pulls @ np.linalg.solve(self._ridged(len(taken)), item)

    def _ridged(self, n: int) -> NDArray[np.float64]:
        return self.spread + (self.noise + self.prior / max(1, n)) * np.eye(len(self.mean))
