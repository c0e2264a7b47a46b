"""The softmax over shared negatives, with its gradient, in blocks of users whose scores stay in a cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_embed.nets.sparse_ops import bag_sum

# Scores in a block: 4 MB of float32 stay in a processor's cache; a GPU works better on more.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}


class Pairs(NamedTuple):
    """The ratings of a step: row [B] of the users' vectors, item [B] of the items' vectors, and weight [B]."""

    row: Tensor
    item: Tensor
    weight: Tensor

    def sorted_by(self, column: Tensor) -> Pairs:
        """Return the pairs sorted by one of their columns; equal ones keep their order."""
        order = column.argsort(stable=True)
        return Pairs(*(c[order] for c in self))


class Negatives(NamedTuple):
    """The negatives that all users of a step are compared with.

    items: rows [K] of the items' vectors; None for all items. log_prob: [K], the log of each one's inclusion
    probability; None for all items. row, column: [n] each, ascending by row, the pairs of a user and a negative that is
    a known positive of that user, and so no negative of theirs.
    """

    items: Tensor | None
    log_prob: Tensor | None
    row: Tensor
    column: Tensor


def shared_softmax(
    u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs, negatives: Negatives, negative_weight: float = 1.0
) -> Tensor:
    """Return the mean over pairs of weight x -log( exp(pos) / (exp(pos) + sum_k exp(neg_k)) ), a scalar.

    It equals `losses.softmax` of the scores u @ v.T + bias (u [D, d], v [M, d], bias [M]), where a user's known
    positives are not negatives, to rounding; but it keeps no matrix of all scores and computes the gradient itself:
    with z = sum_k exp(neg_k) and g = weight / B x z / (z + exp(pos)), it is -g for a positive's score and
    exp(neg_k) / z x (the sum of g over the user's positives) for that of a negative.

    negative_weight: weight x (negative_weight - 1) x log z is added to every term, so that negatives are pushed down
    this much more than positives are pulled up (as in the bilateral softmax loss, Wu et al., BSL, ICDE 2024).
    """
    loss: Tensor = _SharedSoftmax.apply(u, v, bias, pairs.sorted_by(pairs.row), negatives, negative_weight)
    return loss


class _SharedSoftmax(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs, negatives: Negatives, negative_weight: float
    ) -> Tensor:
        full = negatives.items is None
        columns = v if negatives.items is None else v.index_select(0, negatives.items)
        shift = bias if negatives.items is None else bias[negatives.items]
        shift = shift if negatives.log_prob is None else shift - negatives.log_prob
        weight = pairs.weight / len(pairs.weight)
        du, dcolumns, dshift = torch.empty_like(u), torch.zeros_like(columns), torch.zeros_like(shift)
        pull = torch.empty_like(weight)
        loss = u.new_zeros(())
        positive = None if full else _pair_scores(u, v, bias, pairs)
        step = max(1, BLOCK[u.device.type] // max(1, len(columns)))
        edges, known_edges = (_block_edges(rows, len(u), step) for rows in (pairs.row, negatives.row))
        for n, start in enumerate(range(0, len(u), step)):
            block = slice(start, min(start + step, len(u)))
            ratings, known = slice(edges[n], edges[n + 1]), slice(known_edges[n], known_edges[n + 1])
            score = torch.addmm(shift, u[block], columns.T)
            row = pairs.row[ratings] - start
            block_positive = score[row, pairs.item[ratings]] if positive is None else positive[ratings]
            score[negatives.row[known] - start, negatives.column[known]] = -torch.inf
            top = score.amax(1, keepdim=True).clamp_(min=-1e30)
            z = score.sub_(top).exp_().sum(1)
            log_z = (z.log() + top[:, 0]).clamp_(min=-1e30)[row]
            gap = log_z - block_positive
            extra = (negative_weight - 1) * (log_z * (log_z > -1e29))
            loss += (weight[ratings] * (F.softplus(gap) + extra)).sum()
            g = weight[ratings] * torch.sigmoid(gap)
            total = torch.zeros_like(z).scatter_add_(0, row, g + (negative_weight - 1) * weight[ratings])
            score *= (total / z.clamp(min=1e-30))[:, None]
            if full:
                score[row, pairs.item[ratings]] -= g
            pull[ratings] = g
            torch.mm(score, columns, out=du[block])
            dcolumns.addmm_(score.T, u[block])
            dshift += score.sum(0)
        if not full:
            pulls = Pairs(pairs.row, pairs.item, pull)
            dcolumns, dshift = _add_positives(u, v, du, dcolumns, dshift, pulls, negatives)
        ctx.save_for_backward(du, dcolumns, dshift)
        return loss

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        du, dv, dbias = ctx.saved_tensors
        return du * grad, dv * grad, dbias * grad, None, None, None


def _block_edges(rows: Tensor, size: int, step: int) -> list[int]:
    """Return where each block of `step` of `size` rows starts in ascending rows [n], and where the last one stops.

    A single block, which is usual on a GPU, needs no lookup, which would wait for the device.
    """
    if size <= step:
        return [0, len(rows)]
    edges = torch.arange(0, size + step, step, device=rows.device).clamp_(max=size)
    return torch.searchsorted(rows, edges).tolist()


def _pair_scores(u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
    return torch.linalg.vecdot(u.index_select(0, pairs.row), v.index_select(0, pairs.item)) + bias[pairs.item]


def _add_positives(
    u: Tensor, v: Tensor, du: Tensor, dcolumns: Tensor, dshift: Tensor, pulls: Pairs, negatives: Negatives
) -> tuple[Tensor, Tensor]:
    """Subtract the positives' part of the gradients from du; return the gradients of v and bias.

    pulls: the pairs, with minus the gradient by their scores as weight. Sums are over bags, each in one fixed order:
    scattered additions on several threads would differ from run to run.
    """
    du -= bag_sum(v, pulls.item, pulls.row, pulls.weight, len(u))
    by_item = pulls.sorted_by(pulls.item)
    dv = -bag_sum(u, by_item.row, by_item.item, by_item.weight, len(v))
    dbias = -bag_sum(torch.ones_like(u[:, :1]), by_item.row, by_item.item, by_item.weight, len(v))[:, 0]
    assert negatives.items is not None
    dv[negatives.items] += dcolumns
    dbias[negatives.items] += dshift
    return dv, dbias
