"""The step of the losses on a rating and negatives of its own, without autograd, where kernels can run."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import pairs
from recsys_embed.kernels.compiled import over, threads
from recsys_embed.nets.losses import logistic
from recsys_embed.nets.negative_sampling import draw_unknown
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import Model
from recsys_embed.training.autograd_step import AutogradStep, Batch, Workspace, by_user, seed_of, why_not_pairs
from recsys_embed.training.optim import takes


class PairsStep(AutogradStep):
    """`AutogradStep` for BPR and the logistic loss on tables and their dot product, on a processor.

    Every touched row is read and written once (kernels/pairs.py). It equals the step by autograd, to rounding, but for
    users' biases, which BPR does not see and which stay where they are. Negatives are drawn by hashes of the seed:
    others than the generator's, from the same distribution.
    """

    @staticmethod
    def why_not(model: Model, config: TrainConfig) -> str | None:
        """Return why this step cannot take the place of `AutogradStep` here, or None where it can."""
        return why_not_pairs(model, config, takes)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.shares = self._shares()
        self.room = Workspace()

    def __call__(self, batch: Batch) -> Tensor:
        """Update the tables with a batch and return its loss."""
        return self.at(by_user(batch), torch.arange(len(batch.user)))

    def at(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the tables with some of the ratings, which ascend by user; return the loss."""
        self.optimizer.decay()
        (u, a), (v, b) = (self._parts(cast(IdTower, tower)) for tower in (self.model.users, self.model.items))
        at, weight = rows.numpy(), columns.weight.numpy()
        user, compared = self.compared(columns, at)
        size, wide = compared.shape
        dim, items, parts = u[0][0].shape[1], len(v[0][0]), threads()
        made = self.room("before", (size, dim)), self.room("first", (size,), np.int32), self.room("push", (size, wide))
        terms = np.empty(size, np.float32)
        shift = np.zeros((items, 1), np.float32) if b is _NONE else b[0][0]
        pushed = self.objective.loss is logistic  # what BPR compares has a user's bias on both sides
        facts = np.float32(self.model.offset), pushed and a is not _NONE, pushed
        over(size, pairs.users, *made, terms, *u, *a, v[0][0], shift, at, user, compared, weight, *facts)
        edges = np.searchsorted(self.shares, np.arange(parts + 1) / parts)
        edges[0], edges[-1] = 0, items
        entries = tuple(self.room(f"entries {n}", (compared.size + parts,), np.int32) for n in range(4))
        over(parts, pairs.items, *v, *b, *made, compared, edges, entries, b is not _NONE, least=1)
        return torch.tensor(terms.sum(dtype=np.float64), dtype=torch.float32)

    def _shares(self) -> NDArray[np.float64]:
        """Return the share of a batch's entries that fall on the items up to each, about: threads part them so."""
        counts = np.bincount(self.known.item.numpy(), minlength=self.known.items)
        drawn = np.zeros(len(counts))
        drawn[self.rated.numpy()] = self.sampler.chance.numpy() * (self.config.negatives or 0)
        load = counts / max(1, counts.sum()) + drawn
        return np.cumsum(load) / load.sum()

    def _parts(self, tower: IdTower) -> tuple[Any, Any]:
        """Return what moves a tower's vectors, and its biases."""
        vectors, biases = tower.table.weight, None if tower.bias is None else tower.bias.weight
        parts = self.optimizer.parts
        return parts(cast(nn.Parameter, vectors)), _NONE if biases is None else parts(cast(nn.Parameter, biases))

    def compared(self, columns: Batch, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the users [B] of some ratings, and each one's item and negatives, [B, 1 + K].

        A negative that the user knows is written as -1 - row.
        """
        k = self.config.negatives or 0
        user, items = self.room("user", (len(rows),), np.int32), self.room("items", (len(rows), 1 + k), np.int32)
        over(len(rows), pairs.gather, user, items, rows, columns.user.numpy(), columns.item.numpy())
        if self.config.sampler == "uniform":
            known = self.known.start.numpy(), self.known.item.numpy()
            over(len(rows), pairs.draw, items, user, self.rated.numpy(), *known, seed_of(self.generator))
        else:
            users = torch.from_numpy(user).long()
            drawn, mask = draw_unknown(self.sampler, self.known, self.rated, users, k, self.generator)
            items[:, 1:] = torch.where(mask, -1 - drawn, drawn).numpy()
        return user, items


# What stands for the biases of towers that have none.
_NONE = (np.zeros((1, 1), np.float32),) * 3, (np.zeros(1, np.float32), np.zeros(1)), (0.0,) * 5
