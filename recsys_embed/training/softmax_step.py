"""The step of the softmax on two tables on CPU, by kernels instead of autograd."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import softmax as kernels
from recsys_embed.kernels.adam import adam
from recsys_embed.kernels.compiled import parallel_for
from recsys_embed.nets.blocked_softmax import BLOCK
from recsys_embed.nets.losses import LOSSES, softmax
from recsys_embed.nets.scorers import Dot
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.autograd_step import AutogradStep, Batch, draw_seed, sort_by_user, tables_unsupported_reason
from recsys_embed.training.buffers import BufferPool
from recsys_embed.training.optim import fits_cpu_kernels


class _Gathered(NamedTuple):
    """Rows [n] of a tower, and their vectors [n, d] as the scorer multiplies them.

    length, options: each vector's length and the arguments of kernels.gather_rows, which made them.
    """

    tower: IdTower
    rows: Tensor
    vectors: Tensor
    length: Any
    options: tuple[Any, ...]


class _Gradients(NamedTuple):
    """Gradients of the users' vectors, of the vectors of the items they are compared with, and of their biases."""

    users: Tensor
    items: Tensor
    bias: Tensor


class SoftmaxStep(AutogradStep):
    """`AutogradStep` for the full or sampled softmax on two tables, by dot product or cosine, on CPU.

    It equals the step by autograd, to rounding, with the same random numbers. A step is three matrix products, with
    kernels before, between and after them (kernels/softmax.py).
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.buffers = BufferPool()
        self.column = self.rated_index.int()  # the column of each item in the table of scores, or -1
        if self.objective.negatives != "all":
            self.column.fill_(-1)  # set during each step only

    @staticmethod
    def unsupported_reason(model: TwoTowerModel, config: TrainConfig) -> str | None:
        """Return why this step cannot replace `AutogradStep` here, or None where it can."""
        if LOSSES[config.loss or "softmax"].loss is not softmax:
            return f"loss {config.loss}"
        return tables_unsupported_reason(model, config, fits_cpu_kernels)

    def step_on_rows(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the tables with some of the ratings, which are ascending by user; return the loss."""
        user, item, weight = (
            torch.from_numpy(column.numpy().take(rows.numpy()))
            for column in (columns.user, columns.item, columns.weight)
        )
        return self._step(Batch(user, item, weight, weight))  # a softmax does not use the values

    def __call__(self, batch: Batch) -> Tensor:
        """Update the tables with a batch; return its loss."""
        return self._step(sort_by_user(batch))

    @torch.no_grad()
    def _step(self, batch: Batch) -> Tensor:
        """Update the tables with a batch that is ascending by user; return its loss."""
        self.optimizer.accrue_decay()
        users, counts = batch.user.unique_consecutive(return_counts=True)
        edges = np.concatenate(([0], counts.cumsum(0).numpy()))
        u = self._gather(self.model.users, users, 1 / cast(Dot, self.model.scorer).temperature)
        if self.objective.negatives == "all":
            v = self._gather(self.model.items, self.rated, 1.0)
            item_at = self.column.numpy().take(batch.item.numpy())
            positives = np.empty(len(item_at), np.float32), np.empty(len(item_at), np.float32)
            gradients, loss = self._softmax(batch, u, v.vectors, self._bias(v.rows), edges, item_at, positives, True)
        else:
            v, gradients, loss = self._sampled_softmax(batch, u, edges)
        self._update(u, gradients.users)
        self._update(v, gradients.items)
        if v.tower.bias is not None:
            arguments = self.optimizer.kernel_arguments(cast(nn.Parameter, v.tower.bias.weight))
            parallel_for(len(v.rows), adam, *arguments, v.rows.numpy(), gradients.bias[:, None].numpy())
        return loss

    def _softmax(
        self,
        batch: Batch,
        u: _Gathered,
        columns: Tensor,
        shift: Tensor,
        edges: Any,
        item_at: Any,
        positives: Any,
        full: bool,
    ) -> tuple[_Gradients, Tensor]:
        """Return the gradients and the loss of comparing users with columns [M, d], whose scores get shift [M] added.

        edges, item_at, full: see kernels.softmax_gradient. positives: two arrays [B], the positives' scores, needed
        unless `full`, and an output for minus the gradient by them.
        """
        weight, terms = (batch.weight / len(batch.weight)).numpy(), np.empty(len(u.rows), np.float32)
        gradients = _Gradients(
            self._empty_like("du", u.vectors), self._empty_like("dv", columns).zero_(), torch.zeros_like(shift)
        )
        known = self.known.indptr.numpy(), self.known.indices.numpy()
        of_users = u.rows.numpy(), *known, self.column.numpy(), len(columns)
        of_ratings = edges, item_at, weight, *positives, terms
        for start in range(0, len(u.rows), step := max(1, BLOCK["cpu"] // max(1, len(columns)))):
            block = u.vectors[start : start + step]
            score = torch.from_numpy(self.buffers("score", (len(block), len(columns))))
            torch.mm(block, columns.T, out=score)
            arguments = *of_users, *of_ratings, start, np.float32(self.config.negative_weight), full
            parallel_for(len(score), kernels.softmax_gradient, score.numpy(), shift.numpy(), *arguments, min_rows=16)
            torch.mm(score, columns, out=gradients.users[start : start + step])
            gradients.items.addmm_(score.T, block)
            gradients.bias.add_(score.sum(0))
        return gradients, torch.tensor(terms.sum(dtype=np.float64), dtype=torch.float32)

    def _sampled_softmax(self, batch: Batch, u: _Gathered, edges: Any) -> tuple[_Gathered, _Gradients, Tensor]:
        """Return the items of a step with drawn negatives, the gradients, and the loss.

        The negatives are the first items; the batch's other items follow in order of appearance.
        """
        drawn, log_prob = self.sampler.draw_distinct(self.config.negatives or 0, self.generator)
        k, size, column = len(drawn), len(batch.item), self.column.numpy()
        rows = np.empty(k + size, np.int64)
        rows[:k] = self.rated[drawn].numpy()
        column[rows[:k]] = np.arange(k)
        item_at, order, item_edges = (np.empty(n, np.int32) for n in (size, size, k + size + 1))
        count = kernels.group_by_item(batch.item.numpy(), column, rows, item_at, k, order, item_edges)
        v = self._gather(self.model.items, torch.from_numpy(rows[:count]), 1.0)
        bias, positives = self._bias(v.rows), (np.empty(size, np.float32), np.empty(size, np.float32))
        left, right, pull = u.vectors.numpy(), v.vectors.numpy(), positives[1]
        of_users = edges, item_at
        parallel_for(len(u.rows), kernels.pair_scores, positives[0], left, right, bias.numpy(), *of_users, min_rows=64)
        gradients, loss = self._softmax(batch, u, v.vectors[:k], bias[:k] - log_prob, *of_users, positives, False)
        column[rows[:count]] = -1
        du = gradients.users.numpy()
        parallel_for(len(u.rows), kernels.add_positives_to_users, du, right, *of_users, pull, min_rows=64)
        items, biases = self._empty_like("all dv", v.vectors).zero_(), torch.zeros(count)
        items[:k], biases[:k] = gradients.items, gradients.bias
        user_at = np.repeat(np.arange(len(u.rows), dtype=np.int32), np.diff(edges))
        of_items = item_edges, order, user_at, pull
        parallel_for(count, kernels.add_positives_to_items, items.numpy(), biases.numpy(), left, *of_items)
        return v, _Gradients(gradients.users, items, biases), loss

    def _empty_like(self, name: str, like: Tensor) -> Tensor:
        return torch.from_numpy(self.buffers(name, tuple(like.shape)))

    def _bias(self, rows: Tensor) -> Tensor:
        bias = cast(IdTower, self.model.items).bias
        return torch.zeros(len(rows)) if bias is None else bias.weight[rows, 0]

    def _gather(self, tower: Any, rows: Tensor, factor: float) -> _Gathered:
        """Return the vectors of distinct rows as the scorer multiplies them, after dropout."""
        rate, table = self.config.dropout or 0.0, tower.table.weight
        seed = draw_seed(self.generator) if rate else np.uint64(0)
        cosine = cast(Dot, self.model.scorer).cosine
        options = np.uint64(round(rate * 65_536)), np.float32(1 / (1 - rate)), seed, cosine, np.float32(factor)
        name = "users" if tower is self.model.users else "items"
        vectors, length = self._empty_like(name, table[: len(rows)]), np.empty(len(rows), np.float32)
        parallel_for(len(rows), kernels.gather_rows, vectors.numpy(), length, table.numpy(), rows.numpy(), *options)
        return _Gathered(tower, rows, vectors, length, options)

    def _update(self, gathered: _Gathered, gradient: Tensor) -> None:
        """Update the rows by the gradient of their vectors [n, d], which is overwritten."""
        arguments = self.optimizer.kernel_arguments(cast(nn.Parameter, gathered.tower.table.weight))
        rows, vectors = gathered.rows.numpy(), gathered.vectors.numpy()
        arrays = rows, gradient.numpy(), vectors, gathered.length
        parallel_for(len(rows), kernels.scatter_adam, *arguments, *arrays, *gathered.options)
