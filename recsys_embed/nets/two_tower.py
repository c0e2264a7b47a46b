"""TwoTowerModel: a user tower, an item tower and a scorer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from recsys_embed.arrays import Floats
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


class TwoTowerModel(nn.Module):
    """Scores users with items. `offset` is a constant in every score (the mean rating, for squared error)."""

    def __init__(self, users: Tower, items: Tower, scorer: nn.Module) -> None:
        super().__init__()
        self.users, self.items, self.scorer = users, items, scorer
        self.ridge: Ridge | None = None
        # Features of items that no tower uses, and that their vectors are regressed on all the same.
        self.item_features: Features | None = None
        self.register_buffer("offset", torch.zeros(()))

    offset: Tensor

    def score(self, u: TowerOutput, v: TowerOutput) -> Tensor:
        """Score users with items of broadcastable shapes: pairs [B] with [B], or [B, 1] with [B, K]."""
        return self.scorer(u.vectors, v.vectors) + u.bias + v.bias + self.offset

    def matrix(self, u: TowerOutput, v: TowerOutput) -> Tensor:
        """Score every user [B] with every item [K]: [B, K]."""
        return self.scorer.matrix(u.vectors, v.vectors) + u.bias[:, None] + v.bias + self.offset  # type: ignore[operator]

    @torch.no_grad()
    def to_arrays(
        self, counts: tuple[Tensor, Tensor], output: OutputKind = "score", scale: tuple[float, float] = (0.0, 1.0)
    ) -> EmbeddingModel:
        """Return the model as plain arrays: vectors without biases, biases, and the scorer's layers.

        counts: int [users] and int [items], the number of training ratings of each.
        """
        for tower in (self.users, self.items):
            tower.train(False)
        users, items = self.users.encode_all(counts[0] > 0), self.items.encode_all(counts[1] > 0)
        u, v, layers = self.scorer.to_arrays(users.vectors, items.vectors)  # type: ignore[operator]
        own = {p.untyped_storage().data_ptr() for p in self.parameters()}

        def array(tensor: Tensor) -> Floats:  # tables are long: what is no view of a parameter is not copied
            values = tensor.detach().float().cpu()
            return values.numpy().copy() if values.untyped_storage().data_ptr() in own else values.numpy()

        history = content = None
        if isinstance(self.users, HistoryTower):
            history = array(self.users.history_item_vectors(counts[1] > 0) / self.scorer.temperature)  # type: ignore[operator]
        if items.content_vectors is not None and not layers:
            content = array(items.content_vectors * _scale(items.vectors, v))
        model = EmbeddingModel(
            users=array(u),
            items=array(v),
            user_bias=array(users.bias),
            item_bias=array(items.bias),
            offset=float(self.offset),
            output=output,
            scale=scale,
            layers=[(array(w), array(b)) for w, b in layers],
            normalized=bool(getattr(self.scorer, "cosine", False)),
            history_vectors=history,
            content_vectors=content,
        )
        features = self.items.features() or self.item_features
        return model if features is None else self._predict_cold_items(model, features, counts[1].cpu().numpy())

    def _predict_cold_items(self, model: EmbeddingModel, features: Features, counts: Rows) -> EmbeddingModel:
        """Give items without ratings the vectors and biases that a ridge regression predicts from their features.

        The tower's own output for such an item is a good deal worse than a regression, in closed form, of the finished
        vectors on the same features (experiments/LOG.md).
        """
        if self.ridge is None or not self.ridge.is_fitted_on(features, counts):
            self.ridge = Ridge(features, counts)
        feature_map = self.ridge.fit(np.column_stack((model.items, model.item_bias)))
        model = replace(model, feature_map=feature_map, content_weights=self.items.content_weights())
        cold = counts == 0
        vectors, bias = model.encode(Features(features.bag[cold], features.dense[cold]))
        model.items[cold], model.item_bias[cold] = vectors, bias
        if model.content_vectors is not None:
            model.content_vectors[cold] = vectors
        return model


def _scale(before: Tensor, after: Tensor) -> Tensor:
    """Return the factor [n, 1] that the scorer multiplied each vector [n, d] by."""
    return after.norm(dim=1, keepdim=True) / before.norm(dim=1, keepdim=True).clamp(min=1e-12)


def build_two_tower(
    config: ModelConfig,
    users: int,
    items: int,
    seed: int = 0,
    item_features: ItemFeatures | None = None,
    content: ContentConfig | None = None,
    history: tuple[UserItems, float] | None = None,
    shared: bool = False,
) -> TwoTowerModel:
    """Return an untrained model for this many users and items; `config` must have no None.

    item_features: the features of the items, one row each; content: how they become vectors.
    history: each user's rated items, and the share of them that a step leaves out, for a history tower.
    shared: users and items are the same nodes, and one table is both towers: scores are symmetric.
    Equal seeds give equal weights, whatever was drawn before.
    """
    if config.dim is None or config.init_scale is None:
        raise TypeError("build_two_tower() needs a config without None: see recipes.resolve_settings()")
    generator = torch.Generator().manual_seed(seed)
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # dense layers draw from the global generator, which is restored below
    try:
        scorer = SCORERS[config.scorer](config)
        content_tower = None
        if item_features is not None and content is not None and content.trains:
            content_tower = ContentTower(item_features, config.dim, content)
    finally:
        torch.set_rng_state(state)
    table = config.dim, config.init_scale, generator
    if shared:
        nodes = IdTower(items, *table, config.biases)
        return TwoTowerModel(nodes, nodes, scorer)
    user_ids = None
    kind = config.user_tower or "id"
    if kind != "history":
        user_ids = IdTower(users, *table, config.biases and kind == "id")
    if kind == "id":
        assert user_ids is not None
        user_tower: Tower = user_ids
    elif history is None:
        raise TypeError(f"build_two_tower() needs the users' history for user_tower {kind!r}")
    else:
        user_tower = HistoryTower(history[0], items, *table, history[1], seed, user_ids)
    item_ids = IdTower(items, *table, config.biases)
    item_tower: Tower = item_ids
    if content_tower:
        item_tower = SumTower(item_ids, content_tower, (content or ContentConfig()).id_dropout, seed)
    net = TwoTowerModel(user_tower, item_tower, scorer)
    net.item_features = None if item_features is None or content_tower else item_features.features
    return net
