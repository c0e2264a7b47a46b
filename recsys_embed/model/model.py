"""Model = user tower + item tower + scorer + biases."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys_embed.config import ModelConfig
from recsys_embed.model.losses import take
from recsys_embed.model.plain import Link, PlainModel
from recsys_embed.model.scorers import SCORERS
from recsys_embed.model.towers import IdTower, Tower


class Side(NamedTuple):
    """Vectors [n, d] and biases [n] of some users, or of some items."""

    vectors: Tensor
    bias: Tensor

    def at(self, rows: Tensor) -> Side:
        """Return the given rows of these: [*rows, d] and [*rows]."""
        flat = rows.reshape(-1)
        vectors = take(self.vectors, flat).reshape(*rows.shape, self.vectors.shape[1])
        return Side(vectors, take(self.bias, flat).reshape(rows.shape))


class Model(nn.Module):
    """Scores users with items. `offset` is a constant of every score (the mean rating, for squared error)."""

    def __init__(
        self, users: Tower, items: Tower, scorer: nn.Module, biases: tuple[nn.Embedding, nn.Embedding] | None
    ) -> None:
        super().__init__()
        self.users, self.items, self.scorer = users, items, scorer
        self.user_bias: nn.Embedding | None = None
        self.item_bias: nn.Embedding | None = None
        if biases:
            self.user_bias, self.item_bias = biases
        self.register_buffer("offset", torch.zeros(()))

    offset: Tensor

    def user(self, rows: Tensor) -> Side:
        """Ask the user tower for distinct rows [n]."""
        return _side(self.users, self.user_bias, rows)

    def item(self, rows: Tensor) -> Side:
        """Ask the item tower for distinct rows [n]."""
        return _side(self.items, self.item_bias, rows)

    def score(self, u: Side, v: Side) -> Tensor:
        """Score sides of one shape, broadcasting: pairs [B] with [B], or [B, 1] with [B, K]."""
        return self.scorer(u.vectors, v.vectors) + u.bias + v.bias + self.offset

    def matrix(self, u: Side, v: Side) -> Tensor:
        """Score every user [B] with every item [K]: [B, K]."""
        return self.scorer.matrix(u.vectors, v.vectors) + u.bias[:, None] + v.bias + self.offset  # type: ignore[operator]

    @torch.no_grad()
    def plain(self, link: Link = "score", scale: tuple[float, float] = (0.0, 1.0)) -> PlainModel:
        """Turn the model into plain arrays: vectors without biases, biases, and the scorer's layers."""
        for tower in (self.users, self.items):
            tower.prepare(training=False)
        u, v, layers = self.scorer.plain(self.users.all(), self.items.all())  # type: ignore[operator]
        array = lambda t: t.detach().float().cpu().numpy().copy()  # noqa: E731
        biases = [
            torch.zeros(len(side)) if bias is None else bias.weight[:, 0]
            for side, bias in ((u, self.user_bias), (v, self.item_bias))
        ]
        return PlainModel(
            users=array(u),
            items=array(v),
            user_bias=array(biases[0]),
            item_bias=array(biases[1]),
            offset=float(self.offset),
            link=link,
            scale=scale,
            layers=[(array(w), array(b)) for w, b in layers],
        )


def _side(tower: Tower, bias: nn.Embedding | None, rows: Tensor) -> Side:
    vectors = tower(rows)
    return Side(vectors, vectors.new_zeros(len(rows)) if bias is None else bias(rows).squeeze(1))


def build(config: ModelConfig, users: int, items: int, seed: int = 0) -> Model:
    """Make an untrained model for so many users and items; every None of the config must be filled.

    Equal seeds give equal weights, whatever was drawn before.
    """
    if config.dim is None or config.init_scale is None:
        raise TypeError("build() needs a config without None: see config.recipe()")
    generator = torch.Generator().manual_seed(seed)
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # dense layers draw from the global generator, which is put back below
    try:
        scorer = SCORERS[config.scorer](config)
    finally:
        torch.set_rng_state(state)
    towers = [IdTower(n, config.dim, config.init_scale, generator) for n in (users, items)]
    biases = None
    if config.biases:
        zeros = [nn.Embedding(n, 1, sparse=True, _weight=torch.zeros(n, 1)) for n in (users, items)]
        biases = (zeros[0], zeros[1])
    return Model(towers[0], towers[1], scorer, biases)
