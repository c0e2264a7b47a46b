"""The vector of somebody who was not there in training, from the items that they took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.errors import SettingError
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.table import Seen
from recsys_embed.ratings.vocab import Rows

# Chosen on users held out of ML-100K (experiments/LOG.md): how much an item counts that was not taken, and the ridge,
# in mean squared lengths of the items' vectors.
_OTHERS, _RIDGE = 0.02, 4.0
_CALIBRATED = 200  # users that the target is chosen by, fewer where there are more items than …
_SCORED = 2_000_000  # … so many scores of theirs allow
_TARGETS = 2.0 ** np.arange(-2, 7, 0.5)


def new_user(model: PlainModel, seen: Seen, counts: Rows) -> Callable[[Rows], Floats]:
    """Return what makes the vector [d] of somebody the model does not know, from the rows of the items they took.

    Where users are made of their histories, a new one is made as they are, without a vector of their own; for the
    others it is the closed form. Raises SettingError for an MLP scorer.
    """
    return FoldIn.of(model, seen, counts).vector if model.history is None else model.of_history


@dataclass(frozen=True)
class FoldIn:
    """A user is target x (sum over taken of v v' + prior)^-1 (sum over taken of v), as in implicit ALS.

    (Hu, Koren and Volinsky, ICDM 2008, with one weight for every item that was taken.) items [I, d]; prior [d, d]:
    what all items say of those that were not taken, and a ridge. target: the score that an item taken should have,
    in the model's own scale.
    """

    items: Floats
    prior: NDArray[np.float64]
    target: float = 1.0

    @classmethod
    def of(cls, model: PlainModel, seen: Seen, counts: Rows) -> FoldIn:
        """Prepare for a model with a dot product, from its own users. Raises SettingError for an MLP scorer."""
        if model.layers:
            raise SettingError("new users need a model with a dot product: an MLP scorer has no closed form for them")
        items = model.items.astype(np.float64)
        rated = items[counts > 0]
        ridge = _RIDGE * float((rated**2).sum()) / max(1, len(rated)) + 1e-9
        bare = cls(model.items, _OTHERS * rated.T @ rated + ridge * np.eye(model.dim))
        return replace(bare, target=bare._sure(model, seen))

    def _sure(self, model: PlainModel, seen: Seen) -> float:
        """Return the target that gives one half of the users' items the best likelihood, seen from the other half."""
        users = np.flatnonzero(seen.count > 1)
        most = max(20, min(_CALIBRATED, _SCORED // len(self.items)))
        users = users[:: max(1, -(-len(users) // most))]
        likelihood = np.zeros(len(_TARGETS))
        for user in users:
            items = np.random.default_rng(int(user)).permutation(seen[int(user)])
            known, hidden = items[::2], items[1::2]
            left = np.ones(len(model.items), bool)
            left[known] = False
            score = self.items @ self.vector(known)
            scores = np.multiply.outer(_TARGETS, score) + model.item_bias
            top = scores[:, left].max(axis=1, keepdims=True)
            total = top[:, 0] + np.log(np.exp(scores[:, left] - top).sum(axis=1))
            likelihood += scores[:, hidden].mean(axis=1) - total
        return float(_TARGETS[likelihood.argmax()])

    def vector(self, taken: Rows) -> Floats:
        """Return the vector [d] of somebody who took these items; zeros for nobody's."""
        chosen = self.items[taken].astype(np.float64)
        found = np.linalg.solve(chosen.T @ chosen + self.prior, chosen.sum(axis=0))
        return (self.target * found).astype(np.float32)
