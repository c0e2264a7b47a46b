"""The step of the losses on a rating and negatives of its own, on CUDA: no gradient is ever written."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import cuda
from recsys_embed.kernels.cuda import Drawn, Rates, Sorted, Table, Workspace, draw, pairs
from recsys_embed.nets.losses import logistic
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import Model
from recsys_embed.training.autograd_step import AutogradStep, Batch, seed_of, why_not_pairs
from recsys_embed.training.optim import takes_on_cuda

# Seeds of draws have 62 bits, and this one set: a number that always is a long one.
_LONG = 1 << 61


class CudaPairsStep(AutogradStep):
    """`AutogradStep` for BPR and the logistic loss on tables and their dot product, on CUDA.

    It equals the step by autograd in float32, to rounding, but for users' biases, which BPR does not see and which stay
    where they are. Negatives are drawn by hashes of the seed, by either sampler, and no step waits for the device.
    """

    def __init__(
        self, model: Model, config: TrainConfig, known: KnownPositives, counts: Tensor, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, known, counts, generator)
        self.seed, self.steps = int(seed_of(generator)), 0
        self.depth = int(known.start.diff().max()).bit_length() if len(known.item) else 0

    @staticmethod
    def why_not(model: Model, config: TrainConfig) -> str | None:
        """Return why this step cannot take the place of `AutogradStep` here, or None where it can."""
        if config.moments == "row":
            return "one moment a row"
        if (getattr(model.users, "bias", None) is None) != (getattr(model.items, "bias", None) is None):
            return "biases on one side"
        return why_not_pairs(model, config, takes_on_cuda)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Update the model with a batch and return its loss, a detached scalar on the device."""
        self.optimizer.decay()
        drawn = self.negatives(batch)
        n, wide = drawn.compared.shape
        users, items = cast(IdTower, self.model.users), cast(IdTower, self.model.items)
        pushed = self.objective.loss is logistic  # what BPR compares has a user's bias on both sides
        own, their = users.bias if pushed else None, items.bias
        room = _room(n, wide, users.table.weight)
        pairs(
            self._table(users.table),
            self._table(items.table),
            (None if own is None else self._table(own), None if their is None else self._table(their)),
            _sorted(batch.user.int()),
            _sorted(drawn.row.view(-1)),
            drawn.compared,
            batch.weight,
            self.model.offset,
            room,
            Rates(*self.optimizer.betas, self.optimizer.eps),
            pushed,
        )
        return room.terms.sum()

    def negatives(self, batch: Batch) -> Drawn:
        """Draw the negatives of a step."""
        shape = len(batch.user), 1 + (self.config.negatives or 0)
        compared, row = (torch.empty(shape, dtype=torch.int32, device=batch.user.device) for _ in range(2))
        edges = None if self.config.sampler == "uniform" else self.sampler.edges
        known = self.known.start, self.known.item
        seed = (self.seed + self.steps * 0x9E3779B97F4A7C15) % _LONG | _LONG
        self.steps += 1
        draw(Drawn(compared, row), batch.user, batch.item, self.rated, edges, known, self.depth, seed)
        return Drawn(compared, row)

    def _table(self, embedding: nn.Embedding) -> Table:
        return self.optimizer.cuda_table(cast(nn.Parameter, embedding.weight))


def _room(n: int, wide: int, table: Tensor) -> Workspace:
    dim, pieces = table.shape[1], -(-n * wide // cuda.PIECE)
    return Workspace(
        coefficient=table.new_empty(n, wide),
        terms=table.new_empty(n),
        old=table.new_empty(n, dim),
        slot=table.new_empty(n, dtype=torch.int32),
        part=table.new_empty(pieces, dim),
        part_bias=table.new_empty(pieces),
    )


def _sorted(rows: Tensor) -> Sorted:
    return Sorted(*rows.sort(stable=True))
