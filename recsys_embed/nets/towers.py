"""Towers: rows of users or items -> vectors and biases."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.arrays import Floats
from recsys_embed.data.user_items import UserItems
from recsys_embed.features.encoder import Features
from recsys_embed.nets.content_tower import ContentTower
from recsys_embed.nets.losses import take
from recsys_embed.nets.sparse_ops import empty_hugepage_table, expand_ranges, sparse_bag_sum, sparse_lookup

# Rows encoded at a time where all are wanted: it bounds the memory.
_CHUNK = 65_536


class TowerOutput(NamedTuple):
    """Vectors [n, d] and biases [n] of some users, or of some items.

    content_vectors [n, d]: the part of the vectors that comes from content, where `Tower.encode_all` knows it.
    """

    vectors: Tensor
    bias: Tensor
    content_vectors: Tensor | None = None

    def select(self, rows: Tensor) -> TowerOutput:
        """Return the given rows of these: [*rows, d] and [*rows]."""
        flat = rows.reshape(-1)
        vectors = take(self.vectors, flat).reshape(*rows.shape, self.vectors.shape[1])
        return TowerOutput(vectors, take(self.bias, flat).reshape(rows.shape))


class Tower(Protocol):
    """An nn.Module that makes vectors and biases for the users, or for the items: one row for each id."""

    dim: int

    def __call__(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of distinct rows [n], in ascending order."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on or off, as in nn.Module."""
        ...

    def init_bias(self, bias: Tensor) -> None:
        """Initialize the biases [rows]; does nothing where the tower has no bias of its own for each row."""
        ...

    def encode_all(self, rated: Tensor) -> TowerOutput:
        """Return every row's vectors [rows, dim] and biases [rows]. rated: bool [rows], the rows with ratings."""
        ...

    def features(self) -> Features | None:
        """Return the features of every row, or None if the tower has no content."""
        ...

    def content_weights(self) -> dict[str, Floats]:
        """Return the arrays that encode pictures and words as features, where training has changed them."""
        ...


class IdTower(nn.Module):
    """A table with one free vector for each id: the embedding layer. Its gradient is sparse.

    scale: the mean length of the initial vectors (their numbers are normal with standard deviation scale / sqrt(dim)).
    biases: whether each row has a bias too, initially zero.
    """

    def __init__(self, rows: int, dim: int, scale: float, generator: torch.Generator, biases: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(rows, dim, sparse=True, _weight=empty_hugepage_table(torch.empty(rows, dim)))
        nn.init.normal_(self.table.weight, std=scale / dim**0.5, generator=generator)
        self.bias = nn.Embedding(rows, 1, sparse=True, _weight=torch.zeros(rows, 1)) if biases else None

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of rows [n]."""
        vectors = sparse_lookup(self.table.weight, rows)
        if self.bias is None:
            return TowerOutput(vectors, vectors.new_zeros(len(rows)))
        return TowerOutput(vectors, sparse_lookup(self.bias.weight, rows).squeeze(1))

    def init_bias(self, bias: Tensor) -> None:
        """Initialize the biases [rows]."""
        if self.bias is not None:
            self.bias.weight.data[:, 0] = bias

    def encode_all(self, rated: Tensor) -> TowerOutput:
        """Return the whole table. A row without ratings is still at its random initial vector, so it becomes zero."""
        bias = rated.new_zeros(len(rated), dtype=torch.float32) if self.bias is None else self.bias.weight[:, 0]
        return TowerOutput(self.table.weight * rated[:, None], bias)

    def features(self) -> Features | None:
        """Return None: ids have no content."""
        return None

    def content_weights(self) -> dict[str, Floats]:
        """Return nothing: ids have no content."""
        return {}


class HistoryTower(nn.Module):
    """Encodes a user as the sum of vectors of the items in their history, divided by the root of their number.

    A linear autoencoder with a bottleneck, as Mult-DAE without hidden layers (Liang et al., WWW 2018): the item vectors
    here differ from those that users are scored with. In training a step leaves out a share `dropout` of a user's items
    and scales up the rest, so that items learn to stand in for each other. There are no biases: a softmax does not
    depend on a user's.

    history: the items of each user. items: the number of items. dim, scale: as in IdTower. ids: a vector for each user
    that is added, without a bias; None to use the history alone.
    """

    def __init__(
        self,
        history: UserItems,
        items: int,
        dim: int,
        scale: float,
        generator: torch.Generator,
        dropout: float,
        seed: int,
        ids: IdTower | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.dropout, self.ids = dim, dropout, ids
        self.table = nn.Parameter(empty_hugepage_table(torch.empty(items, dim)))
        nn.init.normal_(self.table, std=scale / dim**0.5, generator=generator)
        self.register_buffer("indptr", torch.from_numpy(np.asarray(history.indptr)), persistent=False)
        self.register_buffer("indices", torch.from_numpy(np.asarray(history.indices)), persistent=False)
        self.generator = torch.Generator().manual_seed(seed)

    indptr: Tensor
    indices: Tensor

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] of rows [n], and biases of zero."""
        count = self.indptr[rows + 1] - self.indptr[rows]
        index, user = expand_ranges(self.indptr[rows], count)
        item, weight = self.indices[index], (count.clamp(min=1) ** -0.5)[user]
        if self.training and self.dropout:
            keep = torch.rand(len(index), generator=self.generator).to(rows.device) >= self.dropout
            item, user, weight = item[keep], user[keep], weight[keep] / (1 - self.dropout)
        vectors = sparse_bag_sum(self.table, item, user, weight, len(rows))
        if self.ids is not None:
            vectors = vectors + self.ids(rows).vectors * (count > 0)[:, None]
        return TowerOutput(vectors, vectors.new_zeros(len(rows)))

    def init_bias(self, bias: Tensor) -> None:
        """Do nothing: there are no biases."""

    def encode_all(self, rated: Tensor) -> TowerOutput:
        """Return every row; one without ratings is zero."""
        vectors = [self(chunk).vectors for chunk in torch.arange(len(rated), device=rated.device).split(_CHUNK)]
        return TowerOutput(torch.cat(vectors), torch.zeros(len(rated), device=rated.device))

    def history_item_vectors(self, rated: Tensor) -> Tensor:
        """Return what each item adds to a history, [items, dim]; zeros for items that are not rated, bool [items]."""
        return self.table * rated[:, None]

    def features(self) -> Features | None:
        """Return None: a history is no content."""
        return None

    def content_weights(self) -> dict[str, Floats]:
        """Return nothing: a history is no content."""
        return {}


class SumTower(nn.Module):
    """The sum of an id tower and a content tower.

    In training a step drops ids, vector and bias, with the probability `id_dropout`, so that content learns to stand
    alone. In `encode_all`, an id without ratings is left out, since it has learnt nothing.
    """

    def __init__(self, ids: IdTower, content: ContentTower, id_dropout: float, seed: int) -> None:
        super().__init__()
        self.dim = ids.dim
        self.ids, self.content, self.id_dropout = ids, content, id_dropout
        self.has_bias = ids.bias is not None
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of rows [n]."""
        ids, content = self.ids(rows), self.content(rows)
        vectors, bias = ids.vectors, ids.bias
        if self.training and self.id_dropout:
            keep = torch.rand(len(rows), generator=self.generator) >= self.id_dropout
            keep = keep.to(rows.device, vectors.dtype)
            vectors, bias = vectors * keep[:, None], bias * keep
        return TowerOutput(vectors + content[:, :-1], bias + content[:, -1] * self.has_bias)

    def init_bias(self, bias: Tensor) -> None:
        """Initialize the biases [rows] of the ids."""
        self.ids.init_bias(bias)

    def encode_all(self, rated: Tensor) -> TowerOutput:
        """Return every row; one without ratings has its content alone."""
        rows = torch.arange(len(rated), device=rated.device)
        ids, content = self.ids.encode_all(rated), torch.cat([self.content(chunk) for chunk in rows.split(_CHUNK)])
        bias = ids.bias * rated + content[:, -1] * self.has_bias
        return TowerOutput(ids.vectors + content[:, :-1], bias, content[:, :-1])

    def features(self) -> Features | None:
        """Return the content tower's features; the same object as long as training does not change them."""
        return self.content.features()

    def content_weights(self) -> dict[str, Floats]:
        """Return the content tower's arrays."""
        return self.content.content_weights()
