"""Rows of a table, and weighted sums of rows: with gradients that name each row once, in order.

A sparse gradient as torch makes it holds a row as often as it was asked for, and all must be sorted and summed before
an optimizer can use it; these hold the sums from the start. Every sum has one fixed order on CPU, so equal seeds give
equal bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def roomy(like: Tensor) -> Tensor:
    """Return memory for a table like this one, not filled: on a processor with float32, NumPy's, in huge pages.

    NumPy asks the system for them and torch does not. Rows at random places are read up to a third faster so.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return torch.empty_like(like)
    return torch.from_numpy(np.empty(like.shape, np.float32))


def ranges(start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the ranges start[x] to start[x] + count[x], one range after another, and their x's."""
    which = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    place = torch.arange(len(which), device=count.device) + (start - (count.cumsum(0) - count))[which]
    return place, which


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows], [n, d], of rows [n]; the gradient of the table [R, d] is sparse."""
    taken: Tensor = _Rows.apply(table, rows)
    return taken


def sums_of(table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Return the sum of weight x table[rows] in each bag, [bags, d]; the gradient of the table [R, d] is sparse.

    rows, bag, weight: [n] each; bag is ascending.
    """
    sums: Tensor = _Sums.apply(table, rows, bag, weight, bags)
    return sums


def in_bags(table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Return the same sums without a gradient."""
    start = torch.searchsorted(bag, torch.arange(bags, device=bag.device))
    return F.embedding_bag(rows, table, start, mode="sum", per_sample_weights=weight)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return _sparse(rows, grad, ctx.shape), None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        ctx.save_for_backward(rows, bag, weight)
        ctx.shape = table.shape
        return in_bags(table, rows, bag, weight, bags)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, bag, weight = ctx.saved_tensors
        order = rows.argsort(stable=True)
        distinct, at = rows[order].unique_consecutive(return_inverse=True)
        values = in_bags(grad.contiguous(), bag[order], at, weight[order], len(distinct))
        return _sparse(distinct, values, ctx.shape), None, None, None, None


def _sparse(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
