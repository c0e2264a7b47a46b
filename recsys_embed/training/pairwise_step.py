"""The step of the pairwise losses on CPU, by kernels instead of autograd."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import pairwise
from recsys_embed.kernels.compiled import num_threads, parallel_for
from recsys_embed.nets.losses import logistic
from recsys_embed.nets.negative_sampling import draw_negatives
from recsys_embed.nets.towers import IdTower
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.autograd_step import (
    AutogradStep,
    Batch,
    draw_seed,
    pairwise_unsupported_reason,
    sort_by_user,
)
from recsys_embed.training.buffers import BufferPool
from recsys_embed.training.optim import fits_cpu_kernels

# Stands in for the kernel arguments of the biases of towers without any.
_NO_BIASES = (np.zeros((1, 1), np.float32),) * 3, (np.zeros(1, np.float32), np.zeros(1)), (0.0,) * 5


class PairwiseStep(AutogradStep):
    """`AutogradStep` for BPR and the logistic loss on tables with a dot product, on CPU.

    Every touched row is read and written once (kernels/pairwise.py). It equals the step by autograd, to rounding,
    except that BPR leaves users' biases unchanged, since it does not depend on them. Negatives are drawn by hashes of
    the seed: they differ from the generator's, with the same distribution.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.load_cdf = self._load_cdf()
        self.buffers = BufferPool()

    @staticmethod
    def unsupported_reason(model: TwoTowerModel, config: TrainConfig) -> str | None:
        """Return why this step cannot replace `AutogradStep` here, or None where it can."""
        return pairwise_unsupported_reason(model, config, fits_cpu_kernels)

    def __call__(self, batch: Batch) -> Tensor:
        """Update the tables with a batch; return its loss."""
        return self.step_on_rows(sort_by_user(batch), torch.arange(len(batch.user)))

    def step_on_rows(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the tables with some of the ratings, which are ascending by user; return the loss."""
        self.optimizer.accrue_decay()
        (users, user_biases), (items, item_biases) = (
            self._kernel_arguments(cast(IdTower, tower)) for tower in (self.model.users, self.model.items)
        )
        row_array, weight = rows.numpy(), columns.weight.numpy()
        user, drawn = self.draw_items(columns, row_array)
        size, wide = drawn.shape
        v = items[0][0]
        v_bias = np.zeros((len(v), 1), np.float32) if item_biases is _NO_BIASES else item_biases[0][0]
        passed_on = (
            self.buffers("old_users", (size, users[0][0].shape[1])),
            self.buffers("slot", (size,), np.int32),
            self.buffers("score_grad", (size, wide)),
        )
        terms = np.empty(size, np.float32)
        is_logistic = self.objective.loss is logistic  # BPR compares scores of one user, whose bias cancels out
        flags = np.float32(self.model.offset), is_logistic and user_biases is not _NO_BIASES, is_logistic
        batch = row_array, user, drawn, weight
        parallel_for(size, pairwise.update_users, *passed_on, terms, *users, *user_biases, v, v_bias, *batch, *flags)
        chunks = num_threads()
        edges = np.searchsorted(self.load_cdf, np.arange(chunks + 1) / chunks)
        edges[0], edges[-1] = 0, len(v)
        scratch = tuple(self.buffers(f"entries {n}", (drawn.size + chunks,), np.int32) for n in range(4))
        parallel_for(
            chunks,
            pairwise.update_items,
            *items,
            *item_biases,
            *passed_on,
            drawn,
            edges,
            scratch,
            item_biases is not _NO_BIASES,
            min_rows=1,
        )
        return torch.tensor(terms.sum(dtype=np.float64), dtype=torch.float32)

    def draw_items(self, columns: Batch, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the users [B] of some ratings, and each one's item followed by its negatives, [B, 1 + K].

        A negative that is a known positive of the user is stored as -1 - row.
        """
        k = self.config.negatives or 0
        user = self.buffers("user", (len(rows),), np.int32)
        items = self.buffers("items", (len(rows), 1 + k), np.int32)
        parallel_for(len(rows), pairwise.gather_batch, user, items, rows, columns.user.numpy(), columns.item.numpy())
        if self.config.sampler == "uniform":
            known = self.known.indptr.numpy(), self.known.indices.numpy()
            seed = draw_seed(self.generator)
            parallel_for(len(rows), pairwise.draw_negatives, items, user, self.rated.numpy(), *known, seed)
        else:
            users = torch.from_numpy(user).long()
            drawn, mask = draw_negatives(self.sampler, self.known, self.rated, users, k, self.generator)
            items[:, 1:] = torch.where(mask, -1 - drawn, drawn).numpy()
        return user, items

    def _load_cdf(self) -> NDArray[np.float64]:
        """Return the expected share of a batch's entries up to each item, by which items are split among threads."""
        counts = np.bincount(self.known.indices.numpy(), minlength=self.known.items)
        drawn = np.zeros(len(counts))
        drawn[self.rated.numpy()] = self.sampler.probs.numpy() * (self.config.negatives or 0)
        load = counts / max(1, counts.sum()) + drawn
        return np.cumsum(load) / load.sum()

    def _kernel_arguments(self, tower: IdTower) -> tuple[Any, Any]:
        """Return the kernel arguments of a tower's vectors, and of its biases."""
        vectors = self.optimizer.kernel_arguments(cast(nn.Parameter, tower.table.weight))
        if tower.bias is None:
            return vectors, _NO_BIASES
        return vectors, self.optimizer.kernel_arguments(cast(nn.Parameter, tower.bias.weight))
