"""Initializing a model from a trained one: its tables and biases, row by row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.towers import HistoryTower, IdTower
from recsys_embed.nets.two_tower import TwoTowerModel


@torch.no_grad()
def copy_weights(net: TwoTowerModel, model: EmbeddingModel, users: Rows, items: Rows) -> None:
    """Copy a trained model into an untrained one, whose items have their initial biases already.

    users [U], items [I]: each one's row in the trained model, or -1. Those that are new, or have no vector there, keep
    their initial one. A new item's bias is predicted from its initial bias by the line that fits the biases of the
    other items. The two models are of the same kind and dimension, without content.
    """
    temperature = float(getattr(net.scorer, "temperature", 1.0))
    net.offset.fill_(model.offset)
    for n, (weight, bias) in enumerate(model.layers):
        layer: nn.Linear = net.scorer.layers[n]  # type: ignore[index, assignment]
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    item_ids = net.items
    assert isinstance(item_ids, IdTower)
    _copy_rows(item_ids.table.weight, model.items, items)
    if item_ids.bias is not None:
        _copy_biases(item_ids.bias.weight, model.item_bias, items, np.flatnonzero(model.items.any(axis=1)))
    user_ids: IdTower | None = None
    if isinstance(net.users, HistoryTower):
        assert model.history_vectors is not None
        _copy_rows(net.users.table, model.history_vectors * np.float32(temperature), items)
        user_ids = net.users.ids
        if user_ids is not None:
            _copy_remainders(net.users, user_ids, model.users * np.float32(temperature), users)
    elif net.users is not net.items:
        assert isinstance(net.users, IdTower)
        user_ids = net.users
        vectors = model.users * np.float32(temperature)
        if model.normalized:  # users who were folded in are not of unit length
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        _copy_rows(user_ids.table.weight, vectors, users)
    if user_ids is not None and user_ids.bias is not None:
        _copy_rows(user_ids.bias.weight, model.user_bias[:, None], users)


def _copy_rows(table: Tensor, vectors: Floats, rows: Rows) -> None:
    """Copy the given rows of vectors into a table; rows of zeros were not trained, and are left out."""
    known = np.flatnonzero(rows >= 0)
    known = known[vectors[rows[known]].any(axis=1)]
    table[torch.from_numpy(known)] = torch.from_numpy(np.ascontiguousarray(vectors[rows[known]])).to(table)


def _copy_biases(table: Tensor, bias: Floats, rows: Rows, trained: Rows) -> None:
    """Copy the biases of trained rows, and predict the others from their initial ones by linear regression."""
    initial = table[:, 0].numpy().astype(np.float64)
    known = np.flatnonzero(np.isin(rows, trained))
    if not len(known):
        return
    x, y = initial[known], bias[rows[known]].astype(np.float64)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / max(((x - x.mean()) ** 2).sum(), 1e-12))
    predicted = y.mean() + slope * (initial - x.mean())
    predicted[known] = y
    table[:, 0] = torch.from_numpy(predicted).to(table)


def _copy_remainders(tower: HistoryTower, ids: IdTower, vectors: Floats, rows: Rows) -> None:
    """Give users the id vectors that, added to their histories, make up the vectors they had."""
    ids.table.weight.zero_()
    tower.eval()
    from_history = tower.encode_all(torch.ones(len(rows), dtype=torch.bool)).vectors.numpy()
    known = np.flatnonzero(rows >= 0)
    ids.table.weight[torch.from_numpy(known)] = torch.from_numpy(vectors[rows[known]] - from_history[known])
