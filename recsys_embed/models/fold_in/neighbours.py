"""Fold-in by the nearest users (user-kNN), for models without a closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback, RankingFoldIn

# Number of neighbours, and the power of the similarity that weights them (experiments/LOG.md).
_NEIGHBOURS, _POWER = 20, 3


class NeighbourFoldIn(RankingFoldIn):
    """A new user is the weighted mean of the users with the most similar histories. For MLP scorers.

    similarity = (sum of the feedback weights over common items) / sqrt(number of the user's items); the 20 most similar
    users are weighted by its cube. For a model of "stars", the shrunken mean residual of the ratings is added to the
    bias.
    """

    def __init__(self, model: EmbeddingModel, seen: UserItems) -> None:
        self.model, self.sizes = model, np.maximum(1, seen.count)
        users = np.repeat(np.arange(len(seen.count)), seen.count)
        self.by_item = UserItems.of(seen.indices, users, len(model.items))
        self.excluded = -1

    def _without(self, user: int) -> NeighbourFoldIn:
        """See `RankingFoldIn`: a user must not be their own neighbour."""
        other = object.__new__(NeighbourFoldIn)
        vars(other).update(vars(self), excluded=user)
        return other

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See `FoldIn`."""
        position, users = self.by_item.pairs_of(feedback.rows)
        similarity = np.bincount(users, feedback.weight[position], minlength=len(self.sizes)) / np.sqrt(self.sizes)
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
            query = self.model.queries_from_vectors(vector[None], bias)
            residual = feedback.ratings - self.model.score(query, feedback.rows)[0]
            bias += float(np.nansum(residual)) / (np.count_nonzero(~np.isnan(residual)) + 5)
        return vector, bias

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> None:
        """See `FoldIn`: always None, since the score of an MLP is not a sum over items."""
        return None


def _largest(values: NDArray[np.float64], n: int) -> Rows:
    """Return the rows of the n largest values, largest first; equal values are ordered by row."""
    threshold = np.partition(values, len(values) - n)[len(values) - n]
    rows = np.flatnonzero(values >= threshold)
    return rows[np.argsort(-values[rows], kind="stable")[:n]]
