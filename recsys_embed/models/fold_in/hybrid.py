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
        """See `FoldIn`. Feedback replaces the amounts of its items; but a plain like of an item that is liked changes
        nothing, and another one can only raise its amount."""
        embedding, bias = self.embeddings.update_user(user, history, vector.embedding, bias, feedback)
        amounts = dict(zip(vector.items.tolist(), vector.amounts.tolist(), strict=True))
        for row, weight in zip(feedback.rows.tolist(), feedback.weight.tolist(), strict=True):
            if weight > 0 and (known := amounts.get(row, 0)) > 0:
                weight = known if weight == 1 else max(known, weight)
            amounts[row] = weight
        items = np.array(sorted(amounts), np.int32)
        return HybridUser(embedding, items, np.array([amounts[row] for row in items.tolist()], np.float32)), bias

    def contributions(self, feedback: Feedback, vector: HybridUser, row: int) -> ItemContributions:
        """See `FoldIn`. vector: the user's own, whose items are those of the feedback.

        An item adds its weight as a neighbour and, if the embedding is a sum over items, its part of the embedding that
        the feedback folds in to. The remainder is what the user's embedding adds beyond that.
        """
        model, embedding = self.model, self.model.embedding
        values = model.neighbours.contributions(vector.items, vector.amounts, row)
        if not model.embedding_scale:
            return ItemContributions(values)
        score = float(embedding.score(embedding.query(vector.embedding), np.array([row]))[0, 0])
        product = model.embedding_scale * (score - float(embedding.item_bias[row]) - embedding.offset)
        folded = self.embeddings.fit_user(feedback)[0].astype(np.float64)
        added = self.embeddings.contributions(feedback, folded, row)
        if added is None:
            return ItemContributions(values, product)
        own = model.embedding_scale * added.values
        remainder = product - float(own.sum())
        is_sum = np.abs(folded - vector.embedding).max(initial=0) <= 1e-3 * np.abs(folded).max(initial=0)
        return ItemContributions(values + own, None if is_sum and added.remainder is None else remainder)
