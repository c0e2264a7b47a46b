"""The step of the losses on a rating and negatives of its own, without autograd, where kernels can run."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from recsys_embed.arrays import Floats
from recsys_embed.config import TrainConfig
from recsys_embed.kernels import pairs
from recsys_embed.kernels.compiled import over
from recsys_embed.model.losses import LOSSES, bpr, logistic
from recsys_embed.model.model import Model
from recsys_embed.model.samplers import draw_unknown
from recsys_embed.model.scorers import Dot
from recsys_embed.model.towers import IdTower
from recsys_embed.ratings.vocab import Rows
from recsys_embed.train.sparse_adam import takes
from recsys_embed.train.step import AutogradStep, Batch, seed_of


class PairsStep(AutogradStep):
    """`AutogradStep` for BPR and the logistic loss on tables and their dot product, on a processor.

    The gradient is written out, and every touched row is read once for it and once for Adam. It equals the step by
    autograd, to rounding, but for users' biases, which BPR does not see and which stay where they are. Negatives are
    drawn by hashes of the seed: others than the generator's, from the same distribution.
    """

    @staticmethod
    def why_not(model: Model, config: TrainConfig) -> str | None:
        """Return why this step cannot take the place of `AutogradStep` here, or None where it can."""
        if LOSSES[config.loss or "softmax"].loss not in (bpr, logistic):
            return f"loss {config.loss}"
        if not isinstance(model.scorer, Dot) or model.scorer.cosine or model.scorer.temperature != 1:
            return "a scorer that is not the plain dot product"
        if model.users is model.items:
            return "one table for both sides"
        for tower in (model.users, model.items):
            if not isinstance(tower, IdTower):
                return "users or items that are more than a table"
            if not takes(tower.table.weight):
                return f"tables of {tower.table.weight.dtype} on {tower.table.weight.device.type}"
        if config.dropout:
            return "dropout"
        return None

    def gradient(self, batch: Batch) -> Tensor:
        """Write the gradients of the tables, and return the loss."""
        users, items = cast(IdTower, self.model.users), cast(IdTower, self.model.items)
        u, v = users.table.weight, items.table.weight
        compared = self.negatives(batch)
        user, wide = batch.user.long().numpy(), compared.shape[1]
        coefficient, terms = np.empty(compared.shape, np.float32), np.empty(len(user), np.float32)
        tables = (_array(u), _array(v), _biases(users), _biases(items))
        of_scores = np.float32(self.model.offset), self.objective.loss is logistic
        over(len(user), pairs.push, coefficient, terms, *tables, user, compared, batch.weight.numpy(), *of_scores)
        pushed, flat = coefficient.ravel(), compared.ravel()
        rows, order, edge = _groups(user.repeat(wide), len(u))
        made = _room(rows, u)
        over(len(rows), pairs.sums, *made, tables[1], order, edge, pushed, flat, 1)
        _give(users, rows, made, biases=self.objective.loss is logistic)
        rows, order, edge = _groups(flat, len(v))
        made = _room(rows, v)
        over(len(rows), pairs.sums, *made, tables[0], order, edge, pushed, user, wide)
        _give(items, rows, made)
        return torch.tensor(terms.sum(dtype=np.float64), dtype=torch.float32)

    def negatives(self, batch: Batch) -> Rows:
        """Return each rating's item and its negatives, [B, 1 + K]; -1 - row for a negative that the user knows."""
        k = self.config.negatives or 0
        compared = np.empty((len(batch.user), 1 + k), np.int64)
        compared[:, 0] = batch.item.numpy()
        if self.config.sampler == "uniform":
            known = self.known.start.numpy(), self.known.item.numpy()
            over(
                len(compared),
                pairs.draw,
                compared,
                batch.user.long().numpy(),
                self.rated.numpy(),
                *known,
                seed_of(self.generator),
            )
        else:
            drawn, mask = draw_unknown(self.sampler, self.known, self.rated, batch.user, k, self.generator)
            compared[:, 1:] = torch.where(mask, -1 - drawn, drawn).numpy()
        return compared


def _array(table: Tensor) -> Floats:
    return table.detach().numpy()


def _biases(tower: IdTower) -> Floats:
    return _array(tower.bias.weight) if tower.bias is not None else np.zeros((len(tower.table.weight), 1), np.float32)


def _groups(rows: Rows, size: int) -> tuple[Rows, Rows, Rows]:
    """Return the distinct rows, the entries ordered by row, and where those of each distinct row begin and end."""
    place = np.full(size, -1)
    order, edge, distinct = np.empty(len(rows), np.int64), np.empty(len(rows) + 1, np.int64), np.empty_like(rows)
    count = pairs.group(rows, place, order, edge, distinct)
    return distinct[:count], order, edge


def _room(rows: Rows, table: Tensor) -> tuple[Floats, Floats]:
    return np.empty((len(rows), table.shape[1]), np.float32), np.empty((len(rows), 1), np.float32)


def _give(tower: IdTower, rows: Rows, made: tuple[Floats, Floats], biases: bool = True) -> None:
    """Set the gradients of a tower: sparse ones, that name each row once."""
    for table, values in zip((tower.table, tower.bias if biases else None), made, strict=True):
        if table is not None:
            parts = torch.from_numpy(rows)[None], torch.from_numpy(values)
            gradient = torch.sparse_coo_tensor(*parts, table.weight.shape, check_invariants=False)
            # Each row stands there once, which is what coalescing is for; their order is of no account.
            table.weight.grad = gradient._coalesced_(True)
