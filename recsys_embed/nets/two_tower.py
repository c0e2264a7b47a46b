"""Model = user tower + item tower + scorer + biases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.config.settings import ContentConfig, ModelConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.features.encoder import Features
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.features.ridge import Ridge
from recsys_embed.models.base import OutputKind
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.nets.content_tower import ContentTower
from recsys_embed.nets.scorers import SCORERS
from recsys_embed.nets.towers import HistoryTower, IdTower, SumTower, Tower, TowerOutput


class Model(nn.Module):
    """Scores users with items. `offset` is a constant of every score (the mean rating, for squared error)."""

    def __init__(self, users: Tower, items: Tower, scorer: nn.Module) -> None:
        super().__init__()
        self.users, self.items, self.scorer = users, items, scorer
        self.ridge: Ridge | None = None
        self.register_buffer("offset", torch.zeros(()))

    offset: Tensor

    def score(self, u: TowerOutput, v: TowerOutput) -> Tensor:
        """Score sides of one shape, broadcasting: pairs [B] with [B], or [B, 1] with [B, K]."""
        return self.scorer(u.vectors, v.vectors) + u.bias + v.bias + self.offset

    def matrix(self, u: TowerOutput, v: TowerOutput) -> Tensor:
        """Score every user [B] with every item [K]: [B, K]."""
        return self.scorer.matrix(u.vectors, v.vectors) + u.bias[:, None] + v.bias + self.offset  # type: ignore[operator]

    @torch.no_grad()
    def to_arrays(
        self, counts: tuple[Tensor, Tensor], output: OutputKind = "score", scale: tuple[float, float] = (0.0, 1.0)
    ) -> EmbeddingModel:
        """Turn the model into plain arrays: vectors without biases, biases, and the scorer's layers.

        counts: int [users] and int [items], the training ratings that each of them has.
        """
        for tower in (self.users, self.items):
            tower.prepare(training=False)
        sides = self.users.all(counts[0] > 0), self.items.all(counts[1] > 0)
        u, v, layers = self.scorer.to_arrays(sides[0].vectors, sides[1].vectors)  # type: ignore[operator]
        array = lambda t: t.detach().float().cpu().numpy().copy()  # noqa: E731
        history = None
        if isinstance(self.users, HistoryTower):
            history = array(self.users.of_items(counts[1] > 0) / self.scorer.temperature)  # type: ignore[operator]
        plain = EmbeddingModel(
            users=array(u),
            items=array(v),
            user_bias=array(sides[0].bias),
            item_bias=array(sides[1].bias),
            offset=float(self.offset),
            output=output,
            scale=scale,
            layers=[(array(w), array(b)) for w, b in layers],
            normalized=bool(getattr(self.scorer, "cosine", False)),
            history_vectors=history,
            content_vectors=None
            if layers or sides[1].said is None
            else array(sides[1].said * _scale(sides[1].vectors, v)),
        )
        features = self.items.described()
        return plain if features is None else self._settle(plain, features, counts[1].cpu().numpy())

    def _settle(self, plain: EmbeddingModel, features: Features, counts: Rows) -> EmbeddingModel:
        """Give items without ratings the vectors and biases that their descriptions predict.

        What the tower itself says of such an item is a good deal worse than a regression, in closed form, of the
        finished vectors on the same descriptions (experiments/LOG.md).
        """
        if self.ridge is None or not self.ridge.is_of(features, counts):
            self.ridge = Ridge(features, counts)
        map_ = self.ridge.fit(np.column_stack((plain.items, plain.item_bias)))
        plain = replace(plain, feature_map=map_, trained=self.items.trained())
        new = counts == 0
        vectors, bias = plain.encode(Features(features.bag[new], features.dense[new]))
        plain.items[new], plain.item_bias[new] = vectors, bias
        if plain.content_vectors is not None:
            plain.content_vectors[new] = vectors
        return plain


def _scale(before: Tensor, after: Tensor) -> Tensor:
    """Return what each vector [n, d] was multiplied by on its way to the scorer, [n, 1]."""
    return after.norm(dim=1, keepdim=True) / before.norm(dim=1, keepdim=True).clamp(min=1e-12)


def build(
    config: ModelConfig,
    users: int,
    items: int,
    seed: int = 0,
    item_features: ItemFeatures | None = None,
    content: ContentConfig | None = None,
    history: tuple[UserItems, float] | None = None,
    shared: bool = False,
) -> Model:
    """Make an untrained model for so many users and items; every None of the config must be filled.

    descriptions: what is known of the items, one row each; content: how they become vectors.
    history: what each user rated, and the share of it that a step leaves out, for users made of that.
    shared: users and items are the same nodes, and one table is both towers: a score has no direction.
    Equal seeds give equal weights, whatever was drawn before.
    """
    if config.dim is None or config.init_scale is None:
        raise TypeError("build() needs a config without None: see recipes.recipe()")
    generator = torch.Generator().manual_seed(seed)
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # dense layers draw from the global generator, which is put back below
    try:
        scorer = SCORERS[config.scorer](config)
        said = item_features and ContentTower(item_features, config.dim, content or ContentConfig())
    finally:
        torch.set_rng_state(state)
    made = config.dim, config.init_scale, generator
    if shared:
        nodes = IdTower(items, *made, config.biases)
        return Model(nodes, nodes, scorer)
    free = None
    kind = config.user_tower or "id"
    if kind != "history":
        free = IdTower(users, *made, config.biases and kind == "id")
    if kind == "id":
        assert free is not None
        own: Tower = free
    elif history is None:
        raise TypeError("build() needs the history of users who are made of it")
    else:
        own = HistoryTower(history[0], items, *made, history[1], seed, free)
    ids = IdTower(items, *made, config.biases)
    tower = SumTower(ids, said, (content or ContentConfig()).id_dropout, seed) if said else ids
    return Model(own, tower, scorer)
