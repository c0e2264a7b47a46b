"""Towers: rows -> vectors and biases."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.arrays import Floats
from recsys_embed.data.user_items import UserItems
from recsys_embed.features.encoder import Features
from recsys_embed.nets.content_tower import ContentTower
from recsys_embed.nets.losses import take
from recsys_embed.nets.sparse_ops import ranges, roomy, rows_of, sums_of

# Rows that a description is made for in one go, where all are wanted: what bounds the memory.
_ROWS = 65_536


class TowerOutput(NamedTuple):
    """Vectors [n, d] and biases [n] of some users, or of some items.

    said [n, d]: the part of the vectors that is their descriptions', where `Tower.all` tells it; else None.
    """

    vectors: Tensor
    bias: Tensor
    said: Tensor | None = None

    def at(self, rows: Tensor) -> TowerOutput:
        """Return the given rows of these: [*rows, d] and [*rows]."""
        flat = rows.reshape(-1)
        vectors = take(self.vectors, flat).reshape(*rows.shape, self.vectors.shape[1])
        return TowerOutput(vectors, take(self.bias, flat).reshape(rows.shape))


class Tower(Protocol):
    """What makes vectors and biases for the users, or for the items. An nn.Module with one row an id."""

    dim: int

    def __call__(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of distinct rows [n], in ascending order."""
        ...

    def prepare(self, training: bool) -> None:
        """Do what is needed once for all rows, before the rows of a step are asked for."""
        ...

    def start_bias(self, bias: Tensor) -> None:
        """Begin with these biases [rows]; does nothing where the tower has none of its own for each row."""
        ...

    def all(self, rated: Tensor) -> TowerOutput:
        """Return every row's vectors [rows, dim] and biases [rows]. rated: bool [rows], the rows that have ratings."""
        ...

    def described(self) -> Features | None:
        """Return what is known of every row besides its ratings, or None."""
        ...

    def trained(self) -> dict[str, Floats]:
        """Return the arrays that turn pictures and words into what is described, where training has made them."""
        ...


class IdTower(nn.Module):
    """A table with one free vector an id: the embedding layer. Its gradient is sparse: it holds the rows of a step.

    scale: the length that a first vector has on average (its numbers are normal with deviation scale / sqrt(dim)).
    biases: whether each row has a bias too, which begins at zero.
    """

    def __init__(self, rows: int, dim: int, scale: float, generator: torch.Generator, biases: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(rows, dim, sparse=True, _weight=roomy(torch.empty(rows, dim)))
        nn.init.normal_(self.table.weight, std=scale / dim**0.5, generator=generator)
        self.bias = nn.Embedding(rows, 1, sparse=True, _weight=torch.zeros(rows, 1)) if biases else None

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of rows [n]."""
        vectors = rows_of(self.table.weight, rows)
        if self.bias is None:
            return TowerOutput(vectors, vectors.new_zeros(len(rows)))
        return TowerOutput(vectors, rows_of(self.bias.weight, rows).squeeze(1))

    def prepare(self, training: bool) -> None:
        """Nothing is shared between rows."""

    def start_bias(self, bias: Tensor) -> None:
        """Begin with these biases [rows]."""
        if self.bias is not None:
            self.bias.weight.data[:, 0] = bias

    def all(self, rated: Tensor) -> TowerOutput:
        """Return the whole table. A row without ratings has not moved from where chance put it: it is zero."""
        bias = rated.new_zeros(len(rated), dtype=torch.float32) if self.bias is None else self.bias.weight[:, 0]
        return TowerOutput(self.table.weight * rated[:, None], bias)

    def described(self) -> Features | None:
        """An id says nothing about itself."""
        return None

    def trained(self) -> dict[str, Floats]:
        """An id describes nothing."""
        return {}


class HistoryTower(nn.Module):
    """A user is the sum of vectors of the items they rated, divided by the root of their number.

    A linear autoencoder with a bottleneck, as Mult-DAE without hidden layers (Liang et al., WWW 2018): the vectors of
    the items here are others than those that a user is scored with. In training a share `dropout` of a user's items is
    left out of a step and the rest scaled up, so that items learn to stand for each other. It has no biases: a softmax
    does not see a user's.

    seen: the items of each user. items: how many there are. dim, scale: as in IdTower. own: a vector of each user's own
    that is added, without a bias; None where the history is all.
    """

    def __init__(
        self,
        seen: UserItems,
        items: int,
        dim: int,
        scale: float,
        generator: torch.Generator,
        dropout: float,
        seed: int,
        own: IdTower | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.dropout, self.own = dim, dropout, own
        self.table = nn.Parameter(roomy(torch.empty(items, dim)))
        nn.init.normal_(self.table, std=scale / dim**0.5, generator=generator)
        self.register_buffer("start", torch.from_numpy(np.asarray(seen.start)), persistent=False)
        self.register_buffer("item", torch.from_numpy(np.asarray(seen.item)), persistent=False)
        self.generator = torch.Generator().manual_seed(seed)

    start: Tensor
    item: Tensor

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] of rows [n], and biases of zero."""
        count = self.start[rows + 1] - self.start[rows]
        place, user = ranges(self.start[rows], count)
        item, weight = self.item[place], (count.clamp(min=1) ** -0.5)[user]
        if self.training and self.dropout:
            kept = torch.rand(len(place), generator=self.generator).to(rows.device) >= self.dropout
            item, user, weight = item[kept], user[kept], weight[kept] / (1 - self.dropout)
        vectors = sums_of(self.table, item, user, weight, len(rows))
        if self.own is not None:
            vectors = vectors + self.own(rows).vectors * (count > 0)[:, None]
        return TowerOutput(vectors, vectors.new_zeros(len(rows)))

    def prepare(self, training: bool) -> None:
        """Switch the dropout on or off."""
        self.train(training)

    def start_bias(self, bias: Tensor) -> None:
        """It has none."""

    def all(self, rated: Tensor) -> TowerOutput:
        """Return every row; one without ratings is zero."""
        parts = [self(part).vectors for part in torch.arange(len(rated), device=rated.device).split(_ROWS)]
        return TowerOutput(torch.cat(parts), torch.zeros(len(rated), device=rated.device))

    def of_items(self, rated: Tensor) -> Tensor:
        """Return what each item adds to a history, [items, dim]. rated: bool [items]; the others add nothing."""
        return self.table * rated[:, None]

    def described(self) -> Features | None:
        """A history is no description."""
        return None

    def trained(self) -> dict[str, Floats]:
        """Nothing of the kind."""
        return {}


class SumTower(nn.Module):
    """The sum of what a row's id and its description say.

    In training, ids are left out of a step, vector and bias, with the chance `id_dropout`, so that descriptions learn
    to stand alone. In `all`, an id without ratings has nothing to say, and is left out.
    """

    def __init__(self, ids: IdTower, content: ContentTower, id_dropout: float, seed: int) -> None:
        super().__init__()
        self.dim = ids.dim
        self.ids, self.content, self.id_dropout = ids, content, id_dropout
        self.biased = ids.bias is not None
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, rows: Tensor) -> TowerOutput:
        """Return the vectors [n, dim] and biases [n] of rows [n]."""
        ids, said = self.ids(rows), self.content(rows)
        vectors, bias = ids.vectors, ids.bias
        if self.training and self.id_dropout:
            kept = torch.rand(len(rows), generator=self.generator) >= self.id_dropout
            kept = kept.to(rows.device, vectors.dtype)
            vectors, bias = vectors * kept[:, None], bias * kept
        return TowerOutput(vectors + said[:, :-1], bias + said[:, -1] * self.biased)

    def prepare(self, training: bool) -> None:
        """Switch the dropout on or off."""
        self.train(training)

    def start_bias(self, bias: Tensor) -> None:
        """Begin with these biases [rows] of the ids."""
        self.ids.start_bias(bias)

    def all(self, rated: Tensor) -> TowerOutput:
        """Return every row: of one without ratings, what its description says."""
        rows = torch.arange(len(rated), device=rated.device)
        ids, said = self.ids.all(rated), torch.cat([self.content(part) for part in rows.split(_ROWS)])
        return TowerOutput(ids.vectors + said[:, :-1], ids.bias * rated + said[:, -1] * self.biased, said[:, :-1])

    def described(self) -> Features | None:
        """Return the descriptions; the same object as long as training does not change them."""
        return self.content.described()

    def trained(self) -> dict[str, Floats]:
        """Return the content tower's arrays."""
        return self.content.trained()
