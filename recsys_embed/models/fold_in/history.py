"""Fold-in for models whose users are the sum of their histories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback, ItemContributions, RankingFoldIn


class HistoryFoldIn(RankingFoldIn):
    """A new user is the sum of their history vectors, as in training, but has no individual vector."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.model = model

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See `FoldIn`."""
        return self.model.user_from_history(feedback.rows, feedback.weight), 0.0

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> ItemContributions:
        """See `FoldIn`."""
        assert self.model.history_vectors is not None
        item = self.model.items[row].astype(np.float64)
        vectors = self.model.history_vectors[feedback.rows].astype(np.float64) * feedback.weight[:, None]
        length = float(np.linalg.norm(vectors.sum(axis=0)))
        return ItemContributions(vectors @ item * (float(np.linalg.norm(vector)) / (length or 1.0)))
