"""ContentTower: item features -> vectors and biases, trained together with the ratings."""

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
from recsys_embed.nets.sparse_ops import expand_ranges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PICTURE_DIM = 64  # features of a picture
# Rows whose pictures are encoded at a time, where no gradient is needed: it bounds the memory of the inner layers.
_PICTURE_CHUNK = 4096


class Bag(nn.Module):
    """Encodes rows of weighted tokens as the weighted sum of their vectors: the embedding layer of texts.

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
        """Return the sums [n, width] for rows [n]."""
        count = self.start[rows + 1] - self.start[rows]
        index, _ = expand_ranges(self.start[rows], count)
        return F.embedding_bag(
            self.token[index],
            self.table.weight,
            count.cumsum(0) - count,
            mode="sum",
            per_sample_weights=self.weight[index].to(self.table.weight.dtype),
            sparse=True,
        )


class PictureEncoder(nn.Module):
    """A small convolutional net: three layers that halve width and height, then the mean over all positions."""

    def __init__(self, pixels: np.ndarray, has_picture: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("pixels", torch.from_numpy(pixels), persistent=False)
        self.register_buffer("has_picture", torch.from_numpy(has_picture), persistent=False)
        self.net = build_picture_net()

    pixels: Tensor
    has_picture: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return the features [n, 64] of rows [n]; zeros for rows without a picture."""
        chunks = [_apply_picture_net(self.net, self.pixels[chunk]) for chunk in rows.split(_PICTURE_CHUNK)]
        return torch.cat(chunks) * self.has_picture[rows, None]


def build_picture_net() -> nn.Sequential:
    """Return the untrained net that encodes pictures [n, 3, s, s] as [n, 64]."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, _PICTURE_DIM)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def encode_pictures(weights: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Encode pictures uint8 [n, 3, s, s] by a net with these weights, as [n, 64]."""
    net = build_picture_net()
    net.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    with torch.no_grad():
        return _apply_picture_net(net, torch.from_numpy(pixels)).numpy()


def _apply_picture_net(net: nn.Module, pixels: Tensor) -> Tensor:
    """Apply the net to pixels uint8 [n, 3, s, s]."""
    return net(pixels.float() / 127.5 - 1)


class ContentTower(nn.Module):
    """Encodes item features as vectors [n, dim] with biases as a last column.

    Tokens have free vectors, trained from scratch; precomputed word and item vectors and the picture net's output pass
    through a linear layer; all are summed. With `hidden`, a layer of that size (ReLU) comes before the output.
    """

    def __init__(self, item_features: ItemFeatures, dim: int, config: ContentConfig) -> None:
        super().__init__()
        features, hidden = item_features.features, config.tower_hidden
        width = hidden or dim + 1
        self.initial_features = features
        tokens = features.bag.shape[1]
        self.bag = Bag(features.bag, _small_random(tokens, width)) if tokens else None
        words = item_features.encoder.words
        self.words = None
        if item_features.word_bag is not None and words is not None:
            self.words = Bag(item_features.word_bag, torch.tensor(np.asarray(words.vectors)))
        self.pictures = None
        if item_features.pixels is not None and item_features.has_picture is not None:
            self.pictures = PictureEncoder(item_features.pixels, item_features.has_picture)
        # Trained words replace the fixed means of word vectors, which come first among the dense features.
        fixed = features.dense[:, words.dim if words is not None and self.words is not None else 0 :]
        self.register_buffer("fixed", torch.from_numpy(np.ascontiguousarray(fixed)), persistent=False)
        word_dim = words.dim if words is not None and self.words else 0
        size = fixed.shape[1] + word_dim + _PICTURE_DIM * bool(self.pictures)
        self.dense = nn.Linear(size, width) if size else None
        self.last = nn.Linear(hidden, dim + 1) if hidden else None
        for layer in (self.dense, self.last):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1 / layer.in_features**0.5)
                nn.init.zeros_(layer.bias)

    fixed: Tensor

    @property
    def trains_features(self) -> bool:
        """Whether the features themselves change in training: trained words and pictures do."""
        return self.words is not None or self.pictures is not None

    def _dense_features(self, rows: Tensor) -> Tensor:
        blocks = [self.fixed[rows]]
        if self.words is not None:
            blocks.insert(0, self.words(rows))
        if self.pictures is not None:
            blocks.append(self.pictures(rows))
        return torch.cat(blocks, dim=1)

    def _dense_scale(self) -> float:
        """Return the factor that dense features are multiplied by before they enter the tower.

        Adam moves every weight by about the learning rate, so an item's vector moves by an amount that grows with the
        root of the number of features: with hundreds of them it would be many times what ids move by.
        """
        assert self.dense is not None
        return min(1.0, 4 / self.dense.in_features**0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """Return vectors and biases [n, dim + 1] for rows [n]."""
        terms = [] if self.bag is None else [self.bag(rows)]
        if self.dense is not None:
            terms.append(self.dense(self._dense_scale() * self._dense_features(rows)))
        total = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
        return total if self.last is None else self.last(torch.relu(total))

    @torch.no_grad()
    def content_weights(self) -> dict[str, Floats]:
        """Return the arrays of the feature encoders that training has changed: "words" and the picture net's."""
        weights = {} if self.words is None else {"words": self.words.table.weight}
        if self.pictures is not None:
            weights |= self.pictures.net.state_dict()
        return {name: value.detach().float().cpu().numpy().copy() for name, value in weights.items()}

    @torch.no_grad()
    def features(self) -> Features:
        """Return the features of every row as training has made them so far."""
        if not self.trains_features:
            return self.initial_features
        rows = torch.arange(self.initial_features.bag.shape[0], device=self.fixed.device)
        return Features(self.initial_features.bag, self._dense_features(rows).float().cpu().numpy())


def _small_random(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width) * (0.1 / width**0.5)
