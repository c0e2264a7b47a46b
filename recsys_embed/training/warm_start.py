"""Beginning where another training ended: tables and biases of a trained model, put into a new one by row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.towers import HistoryTower, IdTower
from recsys_embed.nets.two_tower import Model


@torch.no_grad()
def warm_start_from(model: Model, plain: EmbeddingModel, users: Rows, items: Rows) -> None:
    """Put a trained model into one that is not, whose items have their first biases already.

    users [U], items [I]: the row that each has in the trained one, or -1. Who is new there, or stands there without a
    vector, keeps the first one. A new item's bias is what a line says that leads from the first biases of the others to
    what they became. The model is of the same kind and width, without descriptions.
    """
    temperature = float(getattr(model.scorer, "temperature", 1.0))
    model.offset.fill_(plain.offset)
    for at, (weight, bias) in enumerate(plain.layers):
        layer: nn.Linear = model.scorer.layers[at]  # type: ignore[index, assignment]
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    ids = model.items
    assert isinstance(ids, IdTower)
    _put(ids.table.weight, plain.items, items)
    if ids.bias is not None:
        _biases(ids.bias.weight, plain.item_bias, items, np.flatnonzero(plain.items.any(axis=1)))
    own: IdTower | None = None
    if isinstance(model.users, HistoryTower):
        assert plain.history_vectors is not None
        _put(model.users.table, plain.history_vectors * np.float32(temperature), items)
        own = model.users.own
        if own is not None:
            _beside(model.users, own, plain.users * np.float32(temperature), users)
    elif model.users is not model.items:
        assert isinstance(model.users, IdTower)
        own = model.users
        vectors = plain.users * np.float32(temperature)
        if plain.normalized:  # who was folded in is not of unit length
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        _put(own.table.weight, vectors, users)
    if own is not None and own.bias is not None:
        _put(own.bias.weight, plain.user_bias[:, None], users)


def _put(table: Tensor, vectors: Floats, rows: Rows) -> None:
    """Put the vectors of some rows into a table; those that are zero were not trained."""
    known = np.flatnonzero(rows >= 0)
    known = known[vectors[rows[known]].any(axis=1)]
    table[torch.from_numpy(known)] = torch.from_numpy(np.ascontiguousarray(vectors[rows[known]])).to(table)


def _biases(table: Tensor, bias: Floats, rows: Rows, trained: Rows) -> None:
    first = table[:, 0].numpy().astype(np.float64)
    known = np.flatnonzero(np.isin(rows, trained))
    if not len(known):
        return
    x, y = first[known], bias[rows[known]].astype(np.float64)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / max(((x - x.mean()) ** 2).sum(), 1e-12))
    became = y.mean() + slope * (first - x.mean())
    became[known] = y
    table[:, 0] = torch.from_numpy(became).to(table)


def _beside(tower: HistoryTower, own: IdTower, vectors: Floats, rows: Rows) -> None:
    """Give users the vectors of their own that make them what they were, beside their histories."""
    own.table.weight.zero_()
    tower.prepare(training=False)
    made = tower.all(torch.ones(len(rows), dtype=torch.bool)).vectors.numpy()
    known = np.flatnonzero(rows >= 0)
    own.table.weight[torch.from_numpy(known)] = torch.from_numpy(vectors[rows[known]] - made[known])
