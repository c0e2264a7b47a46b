"""The softmax over shared negatives, with its gradient, in blocks of users that a cache holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys_embed.nets.sparse_ops import in_bags

# Scores that are worked on at once: 4 MB of float32 stay in a processor's cache; a GPU wants more of them.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}


class Pairs(NamedTuple):
    """The ratings of a step: row [B] of the users' vectors, item [B] of the items' vectors, and weight [B]."""

    row: Tensor
    item: Tensor
    weight: Tensor

    def by(self, column: Tensor) -> Pairs:
        """Return them ordered by one of their columns; equal ones keep their order."""
        order = column.argsort(stable=True)
        return Pairs(*(c[order] for c in self))


class Negatives(NamedTuple):
    """What a step's users are compared with.

    items: rows [K] of the items' vectors; None for all of them. log_chance: [K], the logarithm of each one's chance of
    being drawn; None where all are there. row, column: [n] each, the pairs of a user and a negative that know each
    other, by row: such an item is no negative of that user.
    """

    items: Tensor | None
    log_chance: Tensor | None
    row: Tensor
    column: Tensor


def shared_softmax(
    u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs, negatives: Negatives, pressure: float = 1.0
) -> Tensor:
    """Return the mean over pairs of weight x -log( exp(pos) / (exp(pos) + sum_k exp(neg_k)) ), a scalar.

    The same as `losses.softmax` of the scores u @ v.T + bias (u [D, d], v [M, d], bias [M]), where a user's known items
    are no negatives, to rounding; but no matrix of all scores is kept, and the gradient is written out:
    with z = sum_k exp(neg_k) and g = weight / B x z / (z + exp(pos)), it is -g for a positive's score and
    exp(neg_k) / z x (the sum of g over the user's positives) for that of a negative.

    pressure: weight x (pressure - 1) x log z is added to every term, so that negatives are pressed down by this much
    more than positives are pulled up (as in the bilateral softmax loss, Wu et al., BSL, ICDE 2024).
    """
    loss: Tensor = _SharedSoftmax.apply(u, v, bias, pairs.by(pairs.row), negatives, pressure)
    return loss


class _SharedSoftmax(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs, negatives: Negatives, pressure: float
    ) -> Tensor:
        everything = negatives.items is None
        columns = v if negatives.items is None else v.index_select(0, negatives.items)
        shift = bias if negatives.items is None else bias[negatives.items]
        shift = shift if negatives.log_chance is None else shift - negatives.log_chance
        weight = pairs.weight / len(pairs.weight)
        du, dc, dshift = torch.empty_like(u), torch.zeros_like(columns), torch.zeros_like(shift)
        push = torch.empty_like(weight)
        loss = u.new_zeros(())
        pos = None if everything else _dots(u, v, bias, pairs)
        step = max(1, BLOCK[u.device.type] // max(1, len(columns)))
        ends, known_ends = (_ends(rows, len(u), step) for rows in (pairs.row, negatives.row))
        for at, start in enumerate(range(0, len(u), step)):
            block = slice(start, min(start + step, len(u)))
            mine, known = slice(ends[at], ends[at + 1]), slice(known_ends[at], known_ends[at + 1])
            score = torch.addmm(shift, u[block], columns.T)
            row = pairs.row[mine] - start
            own = score[row, pairs.item[mine]] if pos is None else pos[mine]
            score[negatives.row[known] - start, negatives.column[known]] = -torch.inf
            top = score.amax(1, keepdim=True).clamp_(min=-1e30)
            z = score.sub_(top).exp_().sum(1)
            rest = (z.log() + top[:, 0]).clamp_(min=-1e30)[row]
            gap = rest - own
            loss += (weight[mine] * (F.softplus(gap) + (pressure - 1) * (rest * (rest > -1e29)))).sum()
            g = weight[mine] * torch.sigmoid(gap)
            total = torch.zeros_like(z).scatter_add_(0, row, g + (pressure - 1) * weight[mine])
            score *= (total / z.clamp(min=1e-30))[:, None]
            if everything:
                score[row, pairs.item[mine]] -= g
            push[mine] = g
            torch.mm(score, columns, out=du[block])
            dc.addmm_(score.T, u[block])
            dshift += score.sum(0)
        if not everything:
            dc, dshift = _add_positives(u, v, du, dc, dshift, Pairs(pairs.row, pairs.item, push), negatives)
        ctx.save_for_backward(du, dc, dshift)
        return loss

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        du, dv, dbias = ctx.saved_tensors
        return du * grad, dv * grad, dbias * grad, None, None, None


def _ends(rows: Tensor, size: int, step: int) -> list[int]:
    """Return where the blocks of `step` of `size` rows begin in ascending rows [n], and where the last one ends.

    Where there is one block, which a GPU mostly has, nothing is asked of the device: to ask would be to wait.
    """
    if size <= step:
        return [0, len(rows)]
    edges = torch.arange(0, size + step, step, device=rows.device).clamp_(max=size)
    return torch.searchsorted(rows, edges).tolist()


def _dots(u: Tensor, v: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
    return torch.linalg.vecdot(u.index_select(0, pairs.row), v.index_select(0, pairs.item)) + bias[pairs.item]


def _add_positives(
    u: Tensor, v: Tensor, du: Tensor, dc: Tensor, dshift: Tensor, pairs: Pairs, negatives: Negatives
) -> tuple[Tensor, Tensor]:
    """Take the positives' share, with `pairs.weight` as their gradient, off du; return the gradients of v and bias.

    Sums go by bags, each in one fixed order: adding at random places would differ from run to run on several threads.
    """
    du -= in_bags(v, pairs.item, pairs.row, pairs.weight, len(u))
    by_item = pairs.by(pairs.item)
    dv = -in_bags(u, by_item.row, by_item.item, by_item.weight, len(v))
    dbias = -in_bags(torch.ones_like(u[:, :1]), by_item.row, by_item.item, by_item.weight, len(v))[:, 0]
    assert negatives.items is not None
    dv[negatives.items] += dc
    dbias[negatives.items] += dshift
    return dv, dbias
