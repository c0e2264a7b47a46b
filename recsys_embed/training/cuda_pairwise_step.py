"""The step of the pairwise losses on CUDA, by kernels instead of autograd: no gradient is ever written."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import cuda_tiles
from recsys_embed.kernels.cuda_adam import AdamConstants, Table
from recsys_embed.kernels.cuda_pairwise import DrawnItems, StepWorkspace, draw_negatives, pairwise_step
from recsys_embed.kernels.cuda_tiles import Sorted
from recsys_embed.nets.losses import logistic
from recsys_embed.nets.negative_sampling import KnownPositives
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.autograd_step import AutogradStep, Batch, draw_seed, pairwise_unsupported_reason
from recsys_embed.training.optim import fits_cuda_kernels

# Seeds of draws have 62 bits, with this one set, so that every seed is a 64-bit integer to Triton.
_LONG = 1 << 61


class CudaPairwiseStep(AutogradStep):
    """`AutogradStep` for BPR and the logistic loss on tables with a dot product, on CUDA.

    It equals the step by autograd in float32, to rounding, except that BPR leaves users' biases unchanged, since it
    does not depend on them. Negatives are drawn by hashes of the seed, with either sampler, and no step waits for the
    device.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        config: TrainConfig,
        known: KnownPositives,
        counts: Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__(model, config, known, counts, generator)
        self.seed, self.steps = int(draw_seed(generator)), 0
        self.depth = int(known.indptr.diff().max()).bit_length() if len(known.indices) else 0

    @staticmethod
    def unsupported_reason(model: TwoTowerModel, config: TrainConfig) -> str | None:
        """Return why this step cannot replace `AutogradStep` here, or None where it can."""
        if config.second_moment == "row":
            return "one second moment per row"
        if (getattr(model.users, "bias", None) is None) != (getattr(model.items, "bias", None) is None):
            return "biases on one side"
        return pairwise_unsupported_reason(model, config, fits_cuda_kernels)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Update the model with a batch; return its loss, a detached scalar on the device."""
        self.optimizer.accrue_decay()
        drawn = self.draw_items(batch)
        users, items = cast(IdTower, self.model.users), cast(IdTower, self.model.items)
        is_logistic = self.objective.loss is logistic  # BPR compares scores of one user, whose bias cancels out
        user_bias, item_bias = users.bias if is_logistic else None, items.bias
        n, wide = drawn.coded.shape
        workspace = _workspace(n, wide, users.table.weight)
        pairwise_step(
            self._table(users.table),
            self._table(items.table),
            (
                None if user_bias is None else self._table(user_bias),
                None if item_bias is None else self._table(item_bias),
            ),
            _sorted(batch.user.int()),
            _sorted(drawn.row.view(-1)),
            drawn.coded,
            batch.weight,
            self.model.offset,
            workspace,
            AdamConstants(*self.optimizer.betas, self.optimizer.eps),
            is_logistic,
        )
        return workspace.terms.sum()

    def draw_items(self, batch: Batch) -> DrawnItems:
        """Return the batch's items followed by drawn negatives."""
        shape = len(batch.user), 1 + (self.config.negatives or 0)
        out = DrawnItems(*(torch.empty(shape, dtype=torch.int32, device=batch.user.device) for _ in range(2)))
        cdf = None if self.config.sampler == "uniform" else self.sampler.cdf
        known = self.known.indptr, self.known.indices
        seed = (self.seed + self.steps * 0x9E3779B97F4A7C15) % _LONG | _LONG
        self.steps += 1
        draw_negatives(out, batch.user, batch.item, self.rated, cdf, known, self.depth, seed)
        return out

    def _table(self, embedding: nn.Embedding) -> Table:
        return self.optimizer.cuda_table(cast(nn.Parameter, embedding.weight))


def _workspace(n: int, wide: int, table: Tensor) -> StepWorkspace:
    dim, pieces = table.shape[1], -(-n * wide // cuda_tiles.PIECE)
    return StepWorkspace(
        score_grad=table.new_empty(n, wide),
        terms=table.new_empty(n),
        old=table.new_empty(n, dim),
        slot=table.new_empty(n, dtype=torch.int32),
        partial=table.new_empty(pieces, dim),
        partial_bias=table.new_empty(pieces),
    )


def _sorted(rows: Tensor) -> Sorted:
    return Sorted(*rows.sort(stable=True))
