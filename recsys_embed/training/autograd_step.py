"""The step: one batch of ratings -> one update. It owns the gradient and the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import TrainConfig
from recsys_embed.kernels import available
from recsys_embed.nets.blocked_softmax import Negatives, Pairs, shared_softmax
from recsys_embed.nets.losses import LOSSES, Scores, bpr, logistic, softmax
from recsys_embed.nets.negative_sampling import SAMPLERS, KnownPositives, draw_unknown
from recsys_embed.nets.scorers import Dot
from recsys_embed.nets.towers import IdTower, TowerOutput
from recsys_embed.nets.two_tower import Model
from recsys_embed.training.optim import Group, RowLazyAdam, clip_gradients

# What a negative scores that is none: so little that no loss sees it, and finite, so that no gradient is NaN.
NO_NEGATIVE = -1e9


class Batch(NamedTuple):
    """B ratings on the device: user rows, item rows, values, and weights that are 1 on average."""

    user: Tensor
    item: Tensor
    value: Tensor
    weight: Tensor


def by_user(batch: Batch) -> Batch:
    """Return the batch with its ratings ascending by user, as steps by kernels need it."""
    order = batch.user.argsort(stable=True)
    return Batch(*(column[order] for column in batch))


class Workspace:
    """Memory that a step writes to, by name: kept from step to step, since new memory is given out slowly."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> Any:
        """Return an array of this shape, not filled: its numbers are those that were left there."""
        found = self.arrays.get(name)
        if found is None or len(found) < shape[0] or found.shape[1:] != shape[1:] or found.dtype != dtype:
            found = self.arrays[name] = np.empty(shape, dtype)
        return found[: shape[0]]


class AutogradStep:
    """The step for any towers, scorer and loss, by autograd.

    Each tower is asked once, for its distinct rows. All parameters move by row-lazy Adam.
    """

    def __init__(
        self, model: Model, config: TrainConfig, known: KnownPositives, counts: Tensor, generator: torch.Generator
    ) -> None:
        self.model, self.config, self.known, self.generator = model, config, known, generator
        self.objective = LOSSES[config.loss or "softmax"]
        # An item that nobody rated is nobody's negative: to push it down would be to learn that it has no ratings.
        self.rated = counts.nonzero(as_tuple=True)[0]
        self.sampler = SAMPLERS[config.sampler](counts[self.rated])
        self.place = torch.full_like(counts, -1)
        self.place[self.rated] = torch.arange(len(self.rated), device=counts.device)
        decay = {kind: getattr(config, f"{kind}_decay") or 0.0 for kind in ("user", "item", "bias", "content")}
        pace = 1.0 if config.content_pace is None else config.content_pace
        groups = [
            Group(
                parameters,
                decay[kind],
                pace=pace if kind == "content" else 1.0,
                by_row=config.moments == "row" and kind in ("user", "item"),
            )
            for kind, parameters in _partition(model).items()
        ]
        self.optimizer = RowLazyAdam(groups, config.lr or 0.0)

    @staticmethod
    def why_not(model: Model, config: TrainConfig) -> str | None:
        """Return why this step cannot train this model so, or None where it can: it can do all."""
        return None

    def at(self, columns: Batch, rows: Tensor) -> Tensor:
        """Update the model with the given rows of all ratings; return the loss."""
        return self(Batch(*(column[rows] for column in columns)))

    def __call__(self, batch: Batch) -> Tensor:
        """Update the model with a batch and return its loss, a detached scalar on the device."""
        self.optimizer.zero_grad()
        loss = self.gradient(batch)
        if self.config.clip:
            clip_gradients(list(self.model.parameters()), self.config.clip)
        self.optimizer.step()
        return loss

    def gradient(self, batch: Batch) -> Tensor:
        """Set the gradient of every parameter that the batch touches; return the loss, detached."""
        with torch.autocast(batch.user.device.type, torch.bfloat16, enabled=batch.user.is_cuda):
            loss = self.loss(batch)
        loss.backward()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Score the batch's pairs and their negatives; return the loss."""
        for tower in (self.model.users, self.model.items):
            tower.prepare(training=True)
        users, user_at = batch.user.unique(return_inverse=True)
        u = self._drop(self.model.users(users), users)
        kind, k = self.objective.negatives, self.config.negatives or 0
        if kind in ("all", "shared"):
            return self._shared(batch, users, u, user_at, k)
        rows = batch.item[:, None]
        known = None
        if kind == "each":
            drawn, known = draw_unknown(self.sampler, self.known, self.rated, batch.user, k, self.generator)
            rows = torch.cat((rows, drawn), 1)
        items, item_at = rows.unique(return_inverse=True)
        v = self._drop(self.model.items(items), items)
        all_scores = self.model.score(u.at(user_at[:, None]), v.at(item_at)).float()
        pos, neg = all_scores[:, 0], all_scores[:, 1:]
        if known is not None:
            neg = neg.masked_fill(known, NO_NEGATIVE)
        row = torch.arange(len(pos), device=pos.device)
        return self.objective.loss(Scores(pos, neg, row, batch.value, batch.weight))

    def _shared(self, batch: Batch, users: Tensor, u: TowerOutput, user_at: Tensor, k: int) -> Tensor:
        """Compare the batch's distinct users with the shared negatives, or with all items; return the loss."""
        place = log_chance = None
        if self.objective.negatives == "all":
            negatives, v = self.rated, self._drop(self.model.items(self.rated), self.rated)
            item_at = self.place[batch.item]
        else:
            drawn, log_chance = self.sampler.draw_distinct(k, self.generator)
            negatives = self.rated[drawn]
            items, places = torch.cat((negatives, batch.item)).unique(return_inverse=True)
            v = self._drop(self.model.items(items), items)
            place, item_at = places[: len(negatives)], places[len(negatives) :]
        if self.objective.loss is softmax and isinstance(self.model.scorer, Dot):
            pairs = Pairs(user_at, item_at, batch.weight)
            known = self.known.among(users, negatives)
            both = self.model.scorer.both(u.vectors, v.vectors)
            return shared_softmax(
                *both, v.bias, pairs, Negatives(place, log_chance, *known), self.config.negative_weight
            )
        columns = v if place is None else v.at(place)
        neg = self.model.matrix(u, columns).float()
        pos = self.model.score(u.at(user_at), v.at(item_at)).float()
        neg = neg if log_chance is None else neg - log_chance
        neg = neg.masked_fill(self.known.mask(users, negatives), NO_NEGATIVE)
        return self.objective.loss(Scores(pos, neg, user_at, batch.value, batch.weight))

    def _drop(self, side: TowerOutput, rows: Tensor) -> TowerOutput:
        """Leave a share of the vectors' numbers out of this step, one mask a distinct row; scale up the rest."""
        share = self.config.dropout
        if not share:
            return side
        if side.vectors.is_cuda or not available("adam"):
            kept = torch.rand(side.vectors.shape, generator=self.generator, device=side.vectors.device) >= share
            return TowerOutput(side.vectors * kept / (1 - share), side.bias)
        return TowerOutput(side.vectors * mask(rows, side.vectors.shape[1], share, self.generator), side.bias)

    def flush(self) -> None:
        """Bring every row up to date; needed before the model is read."""
        self.optimizer.flush()


def why_not_tables(model: Model, config: TrainConfig, takes: Callable[[Tensor], bool]) -> str | None:
    """Return why no step without autograd can train this model, or None where one may: two tables and a dot product.

    takes: whether its kernels can work on a table.
    """
    if not isinstance(model.scorer, Dot):
        return "a scorer that is not the dot product"
    if model.users is model.items:
        return "one table for both sides"
    for tower in (model.users, model.items):
        if not isinstance(tower, IdTower):
            return "users or items that are more than a table"
        if not takes(tower.table.weight):
            return f"tables of {tower.table.weight.dtype} on {tower.table.weight.device.type}"
    return "clipping" if config.clip else None


def why_not_pairs(model: Model, config: TrainConfig, takes: Callable[[Tensor], bool]) -> str | None:
    """The same of BPR and the logistic loss."""
    if LOSSES[config.loss or "softmax"].loss not in (bpr, logistic):
        return f"loss {config.loss}"
    if isinstance(model.scorer, Dot) and (model.scorer.cosine or model.scorer.temperature != 1):
        return "a cosine, or a temperature"
    return why_not_tables(model, config, takes) or ("dropout" if config.dropout else None)


def mask(rows: Tensor, dim: int, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask [n, dim] for dropout: zero for a share of it, rounded to a 65,536th, and 1 / (1 - share) else.

    What a row gets depends on the row and not on its place among the others.
    """
    from recsys_embed.kernels.adam import kept
    from recsys_embed.kernels.compiled import over

    out, chance = np.empty((len(rows), dim), np.float32), np.uint64(round(share * 65_536))
    over(len(rows), kept, out, rows.long().numpy(), chance, np.float32(1 / (1 - share)), seed_of(generator))
    return torch.from_numpy(out)


def seed_of(generator: torch.Generator) -> np.uint64:
    """Draw a seed for hashes."""
    return np.uint64(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())


def _partition(model: Model) -> dict[str, list[nn.Parameter]]:
    """Return every parameter by the weight decay it takes; the scorer's weights take that of biases."""
    parts: dict[str, list[nn.Parameter]] = {"user": [], "item": [], "bias": [], "content": []}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        if "content" in words:
            kind = "content"
        elif "bias" in words:
            kind = "bias"
        else:
            kind = {"users": "user", "items": "item"}.get(words[0], "bias")
        parts[kind].append(parameter)
    return parts
