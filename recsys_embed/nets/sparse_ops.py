"""Lookups and weighted sums of rows of a table, with sparse gradients that hold each row once and in order.

Torch's own sparse gradients hold a row as often as it was looked up, and all entries must be sorted and summed before
an optimizer can use them; these hold the sums from the start. Every sum has one fixed order on CPU, so equal seeds give
equal bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def empty_hugepage_table(like: Tensor) -> Tensor:
    """Return an uninitialized table shaped like this one; float32 on CPU is allocated by NumPy, in huge pages.

    NumPy asks the system for huge pages and torch does not. They make reading rows at random up to a third faster.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return torch.empty_like(like)
    return torch.from_numpy(np.empty(like.shape, np.float32))


def expand_ranges(start: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices in the ranges start[x] to start[x] + count[x], one range after another, and each one's x."""
    range_of = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    index = torch.arange(len(range_of), device=count.device) + (start - (count.cumsum(0) - count))[range_of]
    return index, range_of


def sparse_lookup(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows], [n, d], for rows [n]; the gradient of the table [R, d] is sparse."""
    vectors: Tensor = _Lookup.apply(table, rows)
    return vectors


def sparse_bag_sum(table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Return the sum of weight x table[rows] in each bag, [bags, d]; the gradient of the table [R, d] is sparse.

    rows, bag, weight: [n] each; bag is ascending.
    """
    sums: Tensor = _BagSum.apply(table, rows, bag, weight, bags)
    return sums


def bag_sum(table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Return the same sums as `sparse_bag_sum`, without a sparse gradient."""
    start = torch.searchsorted(bag, torch.arange(bags, device=bag.device))
    return F.embedding_bag(rows, table, start, mode="sum", per_sample_weights=weight)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return _sparse_gradient(rows, grad, ctx.shape), None


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        ctx.save_for_backward(rows, bag, weight)
        ctx.shape = table.shape
        return bag_sum(table, rows, bag, weight, bags)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, bag, weight = ctx.saved_tensors
        order = rows.argsort(stable=True)
        distinct, row_bag = rows[order].unique_consecutive(return_inverse=True)
        values = bag_sum(grad.contiguous(), bag[order], row_bag, weight[order], len(distinct))
        return _sparse_gradient(distinct, values, ctx.shape), None, None, None, None


def _sparse_gradient(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
