"""Towers: rows -> vectors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Tower(Protocol):
    """What makes vectors for the users, or for the items. An nn.Module with one row an id."""

    dim: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the vectors [n, dim] of distinct rows [n]."""
        ...

    def prepare(self, training: bool) -> None:
        """Do what is needed once for all rows, before the rows of a step are asked for."""
        ...

    def all(self) -> Tensor:
        """Return the vectors of every row, [rows, dim]."""
        ...


class IdTower(nn.Module):
    """A table with one free vector an id: the embedding layer. Its gradient is sparse: it holds the rows of a step.

    scale: the length that a first vector has on average (its numbers are normal with deviation scale / sqrt(dim)).
    """

    def __init__(self, rows: int, dim: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(rows, dim, sparse=True, _weight=torch.empty(rows, dim))
        nn.init.normal_(self.table.weight, std=scale / dim**0.5, generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the vectors [n, dim] of rows [n]."""
        return self.table(rows)

    def prepare(self, training: bool) -> None:
        """Nothing is shared between rows."""

    def all(self) -> Tensor:
        """Return the whole table, [rows, dim]."""
        return self.table.weight
