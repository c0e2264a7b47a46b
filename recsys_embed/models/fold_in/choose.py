"""Choose the fold-in of a model."""

from __future__ import annotations

from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import FoldIn
from recsys_embed.models.fold_in.history import HistoryFoldIn
from recsys_embed.models.fold_in.neighbours import NeighbourFoldIn
from recsys_embed.models.fold_in.ratings import RatingFoldIn
from recsys_embed.models.fold_in.softmax import SoftmaxFoldIn


def fold_in_for(model: EmbeddingModel, counts: Rows, seen: UserItems) -> FoldIn:
    """Return the fold-in of a model. counts [I]: ratings per item; seen: items of each user."""
    if model.layers:
        return NeighbourFoldIn(model, seen)
    if model.output == "stars":
        return RatingFoldIn.of(model, seen)
    return SoftmaxFoldIn.of(model, counts) if model.history_vectors is None else HistoryFoldIn(model)
