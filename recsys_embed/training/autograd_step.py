"""AutogradStep: one batch of ratings -> one update. It owns the gradient and the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import available
from recsys_embed.nets.blocked_softmax import Negatives, Pairs, shared_softmax
from recsys_embed.nets.losses import LOSSES, Scores, bpr, logistic, softmax
from recsys_embed.nets.negative_sampling import SAMPLERS, KnownPositives, draw_negatives
from recsys_embed.nets.scorers import Dot
from recsys_embed.nets.towers import IdTower, TowerOutput
from recsys_embed.nets.two_tower import TwoTowerModel
from recsys_embed.training.optim import Group, RowLazyAdam, clip_gradients

# The score of a masked negative: so low that no loss depends on it, and finite, so that no gradient is NaN.
MASKED_SCORE = -1e9


class Batch(NamedTuple):
    """B ratings on the device: user rows, item rows, values, and weights that are 1 on average."""

    user: Tensor
    item: Tensor
    value: Tensor
    weight: Tensor


def sort_by_user(batch: Batch) -> Batch:
    """Return the batch with its ratings ascending by user, as steps by kernels need it."""
    order = batch.user.argsort(stable=True)
    return Batch(*(column[order] for column in batch))


class AutogradStep:
    """The step for any towers, scorer and loss, by autograd.

    Each tower is called once, with its distinct rows. All parameters are updated by row-lazy Adam.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        config: TrainConfig,
        known: KnownPositives,
        counts: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.model, self.config, self.known, self.generator = model, config, known, generator
        self.objective = LOSSES[config.loss or "softmax"]
        # Unrated items are not used as negatives: pushing them down would only teach that they have no ratings.
        self.rated = counts.nonzero(as_tuple=True)[0]
        self.sampler = SAMPLERS[config.sampler](counts[self.rated])
        self.rated_index = torch.full_like(counts, -1)  # the position of each item among `rated`
        self.rated_index[self.rated] = torch.arange(len(self.rated), device=counts.device)
        decay = {kind: getattr(config, f"{kind}_decay") or 0.0 for kind in ("user", "item", "bias", "content")}
        content_lr_scale = 1.0 if config.content_lr_scale is None else config.content_lr_scale
        groups = [
            Group(
                parameters,
                decay[kind],
                lr_scale=content_lr_scale if kind == "content" else 1.0,
                rowwise=config.second_moment == "row" and kind in ("user", "item"),
            )
            for kind, parameters in _partition(model).items()
        ]
        self.optimizer = RowLazyAdam(groups, config.lr or 0.0)

    @staticmethod
    def unsupported_reason(model: TwoTowerModel, config: TrainConfig) -> str | None:
        """Return why this step cannot train this model with these settings, or None: it supports everything."""
        return None

    def step_on_rows(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the model with the given rows of all ratings; return the loss."""
        return self(Batch(*(column[rows] for column in columns)))

    def __call__(self, batch: Batch) -> Tensor:
        """Update the model with a batch; return its loss, a detached scalar on the device."""
        self.optimizer.zero_grad()
        loss = self.backward(batch)
        if self.config.max_grad_norm:
            clip_gradients(list(self.model.parameters()), self.config.max_grad_norm)
        self.optimizer.step()
        return loss

    def backward(self, batch: Batch) -> Tensor:
        """Set the gradient of every parameter that the batch depends on; return the loss, detached."""
        with torch.autocast(batch.user.device.type, torch.bfloat16, enabled=batch.user.is_cuda):
            loss = self.loss(batch)
        loss.backward()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Score the batch's pairs and their negatives; return the loss."""
        for tower in (self.model.users, self.model.items):
            tower.train(True)
        users, user_at = batch.user.unique(return_inverse=True)
        u = self._dropout(self.model.users(users), users)
        kind, k = self.objective.negatives, self.config.negatives or 0
        if kind in ("all", "shared"):
            return self._loss_with_shared_negatives(batch, users, u, user_at, k)
        rows = batch.item[:, None]
        known = None
        if kind == "each":
            drawn, known = draw_negatives(self.sampler, self.known, self.rated, batch.user, k, self.generator)
            rows = torch.cat((rows, drawn), 1)
        items, item_at = rows.unique(return_inverse=True)
        v = self._dropout(self.model.items(items), items)
        scores = self.model.score(u.select(user_at[:, None]), v.select(item_at)).float()
        pos, neg = scores[:, 0], scores[:, 1:]
        if known is not None:
            neg = neg.masked_fill(known, MASKED_SCORE)
        row = torch.arange(len(pos), device=pos.device)
        return self.objective.loss(Scores(pos, neg, row, batch.value, batch.weight))

    def _loss_with_shared_negatives(
        self, batch: Batch, users: Tensor, u: TowerOutput, user_at: Tensor, k: int
    ) -> Tensor:
        """Compare the batch's distinct users with k shared negatives, or with all items; return the loss."""
        negative_at = log_prob = None
        if self.objective.negatives == "all":
            negatives, v = self.rated, self._dropout(self.model.items(self.rated), self.rated)
            item_at = self.rated_index[batch.item]
        else:
            drawn, log_prob = self.sampler.draw_distinct(k, self.generator)
            negatives = self.rated[drawn]
            items, index = torch.cat((negatives, batch.item)).unique(return_inverse=True)
            v = self._dropout(self.model.items(items), items)
            negative_at, item_at = index[: len(negatives)], index[len(negatives) :]
        if self.objective.loss is softmax and isinstance(self.model.scorer, Dot):
            pairs = Pairs(user_at, item_at, batch.weight)
            shared = Negatives(negative_at, log_prob, *self.known.pairs_among(users, negatives))
            vectors = self.model.scorer.transform(u.vectors, v.vectors)
            return shared_softmax(*vectors, v.bias, pairs, shared, self.config.negative_weight)
        columns = v if negative_at is None else v.select(negative_at)
        neg = self.model.matrix(u, columns).float()
        pos = self.model.score(u.select(user_at), v.select(item_at)).float()
        neg = neg if log_prob is None else neg - log_prob
        neg = neg.masked_fill(self.known.mask(users, negatives), MASKED_SCORE)
        return self.objective.loss(Scores(pos, neg, user_at, batch.value, batch.weight))

    def _dropout(self, output: TowerOutput, rows: Tensor) -> TowerOutput:
        """Drop a share of the vectors' numbers in this step, by one mask for each distinct row; scale up the rest."""
        rate = self.config.dropout
        if not rate:
            return output
        if output.vectors.is_cuda or not available("adam"):
            keep = torch.rand(output.vectors.shape, generator=self.generator, device=output.vectors.device) >= rate
            return TowerOutput(output.vectors * keep / (1 - rate), output.bias)
        return TowerOutput(
            output.vectors * dropout_mask(rows, output.vectors.shape[1], rate, self.generator), output.bias
        )

    def flush(self) -> None:
        """Bring every row up to date; needed before the model is read."""
        self.optimizer.flush()


def tables_unsupported_reason(model: TwoTowerModel, config: TrainConfig, fits: Callable[[Tensor], bool]) -> str | None:
    """Return why no step by kernels can train this model, or None: kernels need two tables and a dot product.

    fits: whether the kernels can work on a table.
    """
    if not isinstance(model.scorer, Dot):
        return "a scorer that is not the dot product"
    if model.users is model.items:
        return "one table for both sides"
    for tower in (model.users, model.items):
        if not isinstance(tower, IdTower):
            return "users or items that are more than a table"
        if not fits(tower.table.weight):
            return f"tables of {tower.table.weight.dtype} on {tower.table.weight.device.type}"
    return "clipping" if config.max_grad_norm else None


def pairwise_unsupported_reason(
    model: TwoTowerModel, config: TrainConfig, fits: Callable[[Tensor], bool]
) -> str | None:
    """Return why no pairwise step by kernels can train this model, or None: they need BPR or the logistic loss too."""
    if LOSSES[config.loss or "softmax"].loss not in (bpr, logistic):
        return f"loss {config.loss}"
    if isinstance(model.scorer, Dot) and (model.scorer.cosine or model.scorer.temperature != 1):
        return "a cosine, or a temperature"
    return tables_unsupported_reason(model, config, fits) or ("dropout" if config.dropout else None)


def dropout_mask(rows: Tensor, dim: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return a dropout mask [n, dim]: 0 with probability `rate`, to the nearest 65,536th, else 1 / (1 - rate).

    A row's mask depends on the row, not on its position among the others.
    """
    from recsys_embed.kernels.adam import dropout_mask as fill
    from recsys_embed.kernels.compiled import parallel_for

    out, rate_bits = np.empty((len(rows), dim), np.float32), np.uint64(round(rate * 65_536))
    seed = draw_seed(generator)
    parallel_for(len(rows), fill, out, rows.long().numpy(), rate_bits, np.float32(1 / (1 - rate)), seed)
    return torch.from_numpy(out)


def draw_seed(generator: torch.Generator) -> np.uint64:
    """Draw a seed for hashes."""
    return np.uint64(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())


def _partition(model: TwoTowerModel) -> dict[str, list[nn.Parameter]]:
    """Return the parameters by the weight decay that applies; the scorer's weights take that of biases."""
    groups: dict[str, list[nn.Parameter]] = {"user": [], "item": [], "bias": [], "content": []}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        if "content" in path:
            kind = "content"
        elif "bias" in path:
            kind = "bias"
        else:
            kind = {"users": "user", "items": "item"}.get(path[0], "bias")
        groups[kind].append(parameter)
    return groups
