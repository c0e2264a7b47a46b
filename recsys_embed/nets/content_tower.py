"""ContentTower: descriptions -> vectors and biases, trained with the ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_embed.arrays import Floats
from recsys_embed.config.settings import ContentConfig
from recsys_embed.features.encoder import Features
from recsys_embed.features.item_features import ItemFeatures
from recsys_embed.nets.sparse_ops import ranges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PICTURE = 64  # numbers that a picture becomes
# Rows whose pictures are looked at in one go, where no gradient is wanted: what bounds the memory of the inner layers.
_PICTURES = 4096


class Bag(nn.Module):
    """Rows of tokens with weights -> the weighted sum of their vectors: the embedding layer of texts.

    Its gradient is sparse: it holds the tokens of a step.
    """

    def __init__(self, bag: csr_matrix, table: Tensor) -> None:
        super().__init__()
        for name, values in (("start", bag.indptr), ("token", bag.indices)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)
        self.register_buffer("weight", torch.from_numpy(bag.data.astype(np.float32)), persistent=False)
        self.table = nn.Embedding(len(table), table.shape[1], sparse=True, _weight=table)

    start: Tensor
    token: Tensor
    weight: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return [n, width] for rows [n]."""
        count = self.start[rows + 1] - self.start[rows]
        place, _ = ranges(self.start[rows], count)
        return F.embedding_bag(
            self.token[place],
            self.table.weight,
            count.cumsum(0) - count,
            mode="sum",
            per_sample_weights=self.weight[place].to(self.table.weight.dtype),
            sparse=True,
        )


class Pictures(nn.Module):
    """A small convolutional net: three layers that halve the sides, and the mean over what is left."""

    def __init__(self, pixels: np.ndarray, pictured: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("pixels", torch.from_numpy(pixels), persistent=False)
        self.register_buffer("pictured", torch.from_numpy(pictured), persistent=False)
        self.net = picture_net()

    pixels: Tensor
    pictured: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return [n, 64] for rows [n]; zeros where there is no picture."""
        parts = [look(self.net, self.pixels[part]) for part in rows.split(_PICTURES)]
        return torch.cat(parts) * self.pictured[rows, None]


def picture_net() -> nn.Sequential:
    """Return the net that looks at pictures [n, 3, s, s] -> [n, 64]."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, _PICTURE)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def look_with(weights: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Ask a net of these weights about pictures uint8 [n, 3, s, s]; return [n, 64]."""
    net = picture_net()
    net.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    with torch.no_grad():
        return look(net, torch.from_numpy(pixels)).numpy()


def look(net: nn.Module, pixels: Tensor) -> Tensor:
    """Ask the net about pixels uint8 [n, 3, s, s]."""
    return net(pixels.float() / 127.5 - 1)


class ContentTower(nn.Module):
    """What descriptions say: vectors [n, dim] and, as the last column, biases.

    Tokens have free vectors (from scratch); ready-made vectors of words and items, and what the net sees in pictures,
    pass through a linear layer; all are summed, and with `hidden` a layer of that size (ReLU) stands before the end.
    """

    def __init__(self, item_features: ItemFeatures, dim: int, config: ContentConfig) -> None:
        super().__init__()
        given, hidden = item_features.features, config.tower_hidden
        width = hidden or dim + 1
        self.given = given
        self.bag = Bag(given.bag, _small(given.bag.shape[1], width)) if given.bag.shape[1] else None
        words = item_features.encoder.words
        self.words = None
        if item_features.word_bag is not None and words is not None:
            self.words = Bag(item_features.word_bag, torch.tensor(np.asarray(words.vectors)))
        self.pictures = None
        if item_features.pixels is not None and item_features.pictured is not None:
            self.pictures = Pictures(item_features.pixels, item_features.pictured)
        # Trained words take the place of the fixed means, which stand first among the dense features.
        fixed = given.dense[:, words.dim if words is not None and self.words is not None else 0 :]
        self.register_buffer("fixed", torch.from_numpy(np.ascontiguousarray(fixed)), persistent=False)
        size = fixed.shape[1] + (words.dim if words is not None and self.words else 0) + _PICTURE * bool(self.pictures)
        self.dense = nn.Linear(size, width) if size else None
        self.last = nn.Linear(hidden, dim + 1) if hidden else None
        for layer in (self.dense, self.last):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1 / layer.in_features**0.5)
                nn.init.zeros_(layer.bias)

    fixed: Tensor

    @property
    def learned(self) -> bool:
        """Whether features themselves change in training: words that are trained, and pictures."""
        return self.words is not None or self.pictures is not None

    def _dense(self, rows: Tensor) -> Tensor:
        parts = [self.fixed[rows]]
        if self.words is not None:
            parts.insert(0, self.words(rows))
        if self.pictures is not None:
            parts.append(self.pictures(rows))
        return torch.cat(parts, dim=1)

    def _scale(self) -> float:
        """Return what dense features are multiplied by on their way into the tower.

        Adam moves every weight by about the learning rate, so what an item's vector moves by grows with the root of
        the number of features: of hundreds of them it would be many times what ids move by.
        """
        assert self.dense is not None
        return min(1.0, 4 / self.dense.in_features**0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """Return [n, dim + 1] for rows [n]."""
        parts = [] if self.bag is None else [self.bag(rows)]
        if self.dense is not None:
            parts.append(self.dense(self._scale() * self._dense(rows)))
        said = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return said if self.last is None else self.last(torch.relu(said))

    @torch.no_grad()
    def trained(self) -> dict[str, Floats]:
        """Return the arrays behind features that training has changed."""
        found = {} if self.words is None else {"words": self.words.table.weight}
        if self.pictures is not None:
            found |= self.pictures.net.state_dict()
        return {name: value.detach().float().cpu().numpy().copy() for name, value in found.items()}

    @torch.no_grad()
    def described(self) -> Features:
        """Return the features of every row as they are now."""
        if not self.learned:
            return self.given
        rows = torch.arange(self.given.bag.shape[0], device=self.fixed.device)
        return Features(self.given.bag, self._dense(rows).float().cpu().numpy())


def _small(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width) * (0.1 / width**0.5)
