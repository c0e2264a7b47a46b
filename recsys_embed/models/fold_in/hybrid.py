"""Fold-in for hybrid models: the embeddings' own, and the history as it is."""

from __future__ import annotations

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.fold_in.base import Feedback, FoldIn, ItemContributions
from recsys_embed.models.fold_in.choose import fold_in_for
from recsys_embed.models.hybrid import HybridModel, HybridUser


class HybridFoldIn:
    """A new user is the embedding that their feedback folds in to, and the feedback as a history."""

    def __init__(self, model: HybridModel, counts: Rows, seen: UserItems) -> None:
        self.model = model
        self.embeddings: FoldIn = fold_in_for(model.embedding, counts, seen)

    def fit_user(self, feedback: Feedback) -> tuple[HybridUser, float]:
        """See `FoldIn`."""
        vector, bias = self.embeddings.fit_user(feedback)
        return HybridUser(vector, feedback.rows.astype(np.int32), feedback.weight), bias

    def update_user(
        self, user: int, history: Rows, vector: HybridUser, bias: float, feedback: Feedback
    ) -> tuple[HybridUser, float]:
        """See `FoldIn`. Feedback replaces the amounts of its items, but a like of an item of the history."""
        embedding, bias = self.embeddings.update_user(user, history, vector.embedding, bias, feedback)
        amounts = dict(zip(vector.items.tolist(), vector.amounts.tolist(), strict=True))
        for row, weight in zip(feedback.rows.tolist(), feedback.weight.tolist(), strict=True):
            amounts[row] = amounts[row] if weight > 0 and amounts.get(row, 0) > 0 else weight
        items = np.array(sorted(amounts), np.int32)
        return HybridUser(embedding, items, np.array([amounts[row] for row in items.tolist()], np.float32)), bias

    def contributions(self, feedback: Feedback, vector: HybridUser, row: int) -> ItemContributions:
        """See `FoldIn`: what an item adds as a neighbour and, if the embedding is a sum over items, as part of it."""
        values = self.model.neighbour_contributions(feedback.rows, feedback.weight, row)
        scale = self.model.embedding_scale
        added = self.embeddings.contributions(feedback, vector.embedding.astype(np.float64), row) if scale else None
        if added is None:
            return ItemContributions(values)
        remainder = None if added.remainder is None else scale * added.remainder
        return ItemContributions(values + scale * added.values, remainder)
