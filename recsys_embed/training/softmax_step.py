"""The step of the softmax on two tables, without autograd, where kernels can run."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import softmax as kernels
from recsys_embed.kernels.adam import adam
from recsys_embed.kernels.compiled import over
from recsys_embed.nets.blocked_softmax import BLOCK
from recsys_embed.nets.losses import LOSSES, softmax
from recsys_embed.nets.scorers import Dot
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import Model
from recsys_embed.training.autograd_step import AutogradStep, Batch, Workspace, by_user, seed_of, why_not_tables
from recsys_embed.training.optim import takes


class _Taken(NamedTuple):
    """Rows [n] of a tower, and what the scorer gets of them: vectors [n, d]; and how they were made (kernels.take)."""

    tower: IdTower
    rows: Tensor
    vectors: Tensor
    length: Any
    how: tuple[Any, ...]


class _Sums(NamedTuple):
    """Gradients by the users' vectors, by those of what they are compared with, and by their biases."""

    users: Tensor
    items: Tensor
    bias: Tensor


class SoftmaxStep(AutogradStep):
    """`AutogradStep` for the softmax, full or sampled, on two tables by their dot product or cosine, on a processor.

    It equals the step by autograd, to rounding, with the same random numbers. A step is three products of matrices, and
    kernels before, between and after them (kernels/softmax.py).
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.room = Workspace()
        self.column = self.place.int()
        if self.objective.negatives != "all":
            self.column.fill_(-1)  # but while a step is at work

    @staticmethod
    def why_not(model: Model, config: TrainConfig) -> str | None:
        """Return why this step cannot take the place of `AutogradStep` here, or None where it can."""
        if LOSSES[config.loss or "softmax"].loss is not softmax:
            return f"loss {config.loss}"
        return why_not_tables(model, config, takes)

    def at(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the tables with some of the ratings, which ascend by user; return the loss."""
        user, item, weight = (
            torch.from_numpy(column.numpy().take(rows.numpy()))
            for column in (columns.user, columns.item, columns.weight)
        )
        return self._step(Batch(user, item, weight, weight))  # no softmax looks at values

    def __call__(self, batch: Batch) -> Tensor:
        """Update the tables with a batch and return its loss."""
        return self._step(by_user(batch))

    @torch.no_grad()
    def _step(self, batch: Batch) -> Tensor:
        """The same with ratings that ascend by user."""
        self.optimizer.decay()
        users, counts = batch.user.unique_consecutive(return_counts=True)
        edge = np.concatenate(([0], counts.cumsum(0).numpy()))
        u = self._take(self.model.users, users, 1 / cast(Dot, self.model.scorer).temperature)
        if self.objective.negatives == "all":
            v = self._take(self.model.items, self.rated, 1.0)
            at = self.column.numpy().take(batch.item.numpy())
            push = np.empty(len(at), np.float32), np.empty(len(at), np.float32)
            sums, loss = self._compared(batch, u, v.vectors, self._bias(v.rows), edge, at, push, True)
        else:
            v, sums, loss = self._sampled(batch, u, edge)
        self._give(u, sums.users)
        self._give(v, sums.items)
        if v.tower.bias is not None:
            parts = self.optimizer.parts(cast(nn.Parameter, v.tower.bias.weight))
            over(len(v.rows), adam, *parts, v.rows.numpy(), sums.bias[:, None].numpy())
        return loss

    def _compared(
        self, batch: Batch, u: _Taken, columns: Tensor, shift: Tensor, edge: Any, at: Any, own: Any, everything: bool
    ) -> tuple[_Sums, Tensor]:
        """Return the gradients of the comparison of users with columns [M, d] and their shift [M], and the loss.

        edge, at: see kernels.soften. own: the scores of the positives, [B], where not everything has a column, and what
        gets minus the gradient by them.
        """
        weight, terms = (batch.weight / len(batch.weight)).numpy(), np.empty(len(u.rows), np.float32)
        sums = _Sums(self._empty("du", u.vectors), self._empty("dv", columns).zero_(), torch.zeros_like(shift))
        who = u.rows.numpy(), self.known.start.numpy(), self.known.item.numpy(), self.column.numpy(), len(columns)
        of_ratings = edge, at, weight, *own, terms
        for begin in range(0, len(u.rows), step := max(1, BLOCK["cpu"] // max(1, len(columns)))):
            block = u.vectors[begin : begin + step]
            score = torch.from_numpy(self.room("score", (len(block), len(columns))))
            torch.mm(block, columns.T, out=score)
            facts = begin, np.float32(self.config.negative_weight), everything
            over(len(score), kernels.soften, score.numpy(), shift.numpy(), *who, *of_ratings, *facts, least=16)
            torch.mm(score, columns, out=sums.users[begin : begin + step])
            sums.items.addmm_(score.T, block)
            sums.bias.add_(score.sum(0))
        return sums, torch.tensor(terms.sum(dtype=np.float64), dtype=torch.float32)

    def _sampled(self, batch: Batch, u: _Taken, edge: Any) -> tuple[_Taken, _Sums, Tensor]:
        """Return the items of a step whose negatives are drawn, the gradients, and the loss.

        The negatives stand first, then the other items in the order in which they come.
        """
        drawn, log_chance = self.sampler.draw_distinct(self.config.negatives or 0, self.generator)
        k, size, column = len(drawn), len(batch.item), self.column.numpy()
        rows = np.empty(k + size, np.int64)
        rows[:k] = self.rated[drawn].numpy()
        column[rows[:k]] = np.arange(k)
        at, order, edges = (np.empty(n, np.int32) for n in (size, size, k + size + 1))
        count = kernels.group(batch.item.numpy(), column, rows, at, k, order, edges)
        v = self._take(self.model.items, torch.from_numpy(rows[:count]), 1.0)
        bias, own = self._bias(v.rows), (np.empty(size, np.float32), np.empty(size, np.float32))
        left, right = u.vectors.numpy(), v.vectors.numpy()
        over(len(u.rows), kernels.meet, own[0], left, right, bias.numpy(), edge, at, least=64)
        found, loss = self._compared(batch, u, v.vectors[:k], bias[:k] - log_chance, edge, at, own, False)
        column[rows[:count]] = -1
        over(len(u.rows), kernels.pull_users, found.users.numpy(), right, edge, at, own[1], least=64)
        items, biases = self._empty("all dv", v.vectors).zero_(), torch.zeros(count)
        items[:k], biases[:k] = found.items, found.bias
        user = np.repeat(np.arange(len(u.rows), dtype=np.int32), np.diff(edge))
        over(count, kernels.pull_items, items.numpy(), biases.numpy(), left, edges, order, user, own[1])
        return v, _Sums(found.users, items, biases), loss

    def _empty(self, name: str, like: Tensor) -> Tensor:
        return torch.from_numpy(self.room(name, tuple(like.shape)))

    def _bias(self, rows: Tensor) -> Tensor:
        bias = cast(IdTower, self.model.items).bias
        return torch.zeros(len(rows)) if bias is None else bias.weight[rows, 0]

    def _take(self, tower: Any, rows: Tensor, factor: float) -> _Taken:
        """Return the vectors of distinct rows as the scorer multiplies them, after dropout."""
        share, table = self.config.dropout or 0.0, tower.table.weight
        seed = seed_of(self.generator) if share else np.uint64(0)
        cosine = cast(Dot, self.model.scorer).cosine
        how = np.uint64(round(share * 65_536)), np.float32(1 / (1 - share)), seed, cosine, np.float32(factor)
        which = "users" if tower is self.model.users else "items"
        vectors, length = self._empty(which, table[: len(rows)]), np.empty(len(rows), np.float32)
        over(len(rows), kernels.take, vectors.numpy(), length, table.numpy(), rows.numpy(), *how)
        return _Taken(tower, rows, vectors, length, how)

    def _give(self, taken: _Taken, gradient: Tensor) -> None:
        """Move the rows by the gradient of their vectors [n, d], which is overwritten."""
        parts = self.optimizer.parts(cast(nn.Parameter, taken.tower.table.weight))
        made = taken.rows.numpy(), gradient.numpy(), taken.vectors.numpy(), taken.length
        over(len(taken.rows), kernels.give, *parts, *made, *taken.how)
