"""Fold-in by the users with the most similar histories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback, RankingFoldIn

# How many of the most similar users count, and the power of the similarity that weighs them (experiments/LOG.md).
_NEIGHBOURS, _POWER = 20, 3


class NeighbourFoldIn(RankingFoldIn):
    """The weighted mean of the users with the most similar histories, for models without a closed form (MLP scorers).

    similarity = (sum of the feedback's weights over common items) / sqrt(number of the user's items); the 20 most
    similar users count by its cube. With a model of stars, the bias is the mean residual of the ratings, shrunk.
    """

    def __init__(self, model: EmbeddingModel, seen: UserItems) -> None:
        self.model, self.sizes = model, np.maximum(1, seen.count)
        users = np.repeat(np.arange(len(seen.count)), seen.count)
        self.by_item = UserItems.of(seen.item, users, len(model.items))
        self.excluded = -1

    def _without(self, user: int) -> NeighbourFoldIn:
        """Return the same without one user, who must not be their own neighbour."""
        other = object.__new__(NeighbourFoldIn)
        vars(other).update(vars(self), excluded=user)
        return other

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See FoldIn."""
        at, users = self.by_item.of_users(feedback.rows)
        similarity = np.bincount(users, feedback.weight[at], minlength=len(self.sizes)) / np.sqrt(self.sizes)
        if 0 <= self.excluded < len(similarity):
            similarity[self.excluded] = 0
        best = _largest(similarity, min(_NEIGHBOURS, len(similarity)))
        weight = np.maximum(similarity[best], 0) ** _POWER
        if not weight.any():
            return np.zeros(self.model.dim, np.float32), 0.0
        weight /= weight.sum()
        vector = (weight @ self.model.users[best]).astype(np.float32)
        bias = float(weight @ self.model.user_bias[best])
        if self.model.output == "stars":
            query = self.model.augment(vector[None], bias)
            residual = feedback.ratings - self.model.score(query, feedback.rows)[0]
            bias += float(np.nansum(residual)) / (np.count_nonzero(~np.isnan(residual)) + 5)
        return vector, bias

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> None:
        """See FoldIn: a perceptron is not a sum over items."""
        return None


def _largest(values: NDArray[np.float64], n: int) -> Rows:
    """Return the rows of the n largest values; of equal ones the first, so that the rest does not matter."""
    edge = np.partition(values, len(values) - n)[len(values) - n]
    found = np.flatnonzero(values >= edge)
    return found[np.argsort(-values[found], kind="stable")[:n]]
