"""EmbeddingModel: user and item vectors, biases and a scorer as plain NumPy arrays, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, dot_products, normalize
from recsys_embed.data.ids import Rows
from recsys_embed.features.encoder import Features
from recsys_embed.features.ridge import FeatureMap
from recsys_embed.models.base import Arrays, OutputKind
from recsys_embed.retrieval.nearest import cosines

# Hidden activations computed at once: 1 MB of float32, which fits a cache.
_HIDDEN_BLOCK = 1 << 18


@dataclass(frozen=True)
class EmbeddingModel:
    """Vectors, biases and the scorer of a trained model. Implements `ScoringModel`.

    users [U, d], items [I, d]: vectors without biases. With a cosine scorer, items have unit length and users the
        length 1 / temperature. user_bias [U], item_bias [I], offset: added to the score of a pair.
    output, scale: see `ScoringModel`; predictions of "stars" are clipped to `scale`.
    layers: (weight [out, in], bias [out]) of an MLP scorer; empty for a dot product. The input of the first layer is
        the user vector followed by the item vector.
    feature_map: from item features to item vectors and, as the last column, biases; None without descriptions.
    normalized: whether item vectors have unit length.
    content_weights: trained weights of the feature extractors: word vectors "words" [n, w], and those of the image net.
    history_vectors [I, d]: for models whose users are computed from their items (`user_from_history`); else None.
    content_vectors [I, d]: the part of the item vectors that comes from their descriptions, after a training with
        descriptions and a dot product; a loaded model has it in `ContentModel`.
    """

    family: ClassVar[str] = "embeddings"

    users: Floats
    items: Floats
    user_bias: Floats
    item_bias: Floats
    offset: float = 0.0
    output: OutputKind = "score"
    scale: tuple[float, float] = (0.0, 1.0)
    layers: list[tuple[Floats, Floats]] = field(default_factory=list)
    feature_map: FeatureMap | None = None
    normalized: bool = False
    content_weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    history_vectors: Floats | None = None
    content_vectors: Floats | None = None

    def encode(self, features: Features) -> tuple[Floats, Floats]:
        """Predict the vectors [n, d] and biases [n] of items from their descriptions alone."""
        assert self.feature_map is not None
        predicted = self.feature_map(features)
        vectors, bias = predicted[:, :-1], predicted[:, -1]
        if self.normalized:
            vectors = normalize(vectors)
        return vectors, bias

    def user_from_history(self, items: Rows, weight: Floats | None = None) -> Floats:
        """Return the vector [d] of a user with these items, as `HistoryTower` computes it; zeros without items.

        An item without a training rating contributes nothing and does not count. weight [n]: per item, 1 by default.
        """
        assert self.history_vectors is not None
        vectors = self.history_vectors[items]
        weight = np.ones(len(vectors), np.float32) if weight is None else weight
        count = np.abs(weight) @ vectors.any(axis=1)
        user: Floats = (vectors * weight[:, None]).sum(axis=0) / np.float32(float(count) ** 0.5 or 1.0)
        if self.normalized:
            user = normalize(user[None])[0] * np.linalg.norm(self.users, axis=1).max(initial=0)
        return user

    def with_items(self, vectors: Floats, bias: Floats) -> EmbeddingModel:
        """Return the model with n more items: vectors [n, d] and biases [n]. In a history they contribute nothing."""
        history = None
        if self.history_vectors is not None:
            history = np.concatenate((self.history_vectors, np.zeros_like(vectors)))
        items, item_bias = np.concatenate((self.items, vectors)), np.concatenate((self.item_bias, bias))
        return replace(self, items=items, item_bias=item_bias, history_vectors=history)

    @property
    def dim(self) -> int:
        """See `ScoringModel`."""
        return self.users.shape[1]

    @property
    def item_vectors(self) -> Floats:
        """See `ScoringModel`."""
        return self.items

    @property
    def has_history_users(self) -> bool:
        """See `ScoringModel`."""
        return self.history_vectors is not None

    @property
    def scoring_cost(self) -> int:
        """See `ScoringModel`; the layers of an MLP make each item ten times as expensive."""
        return self.items.size * (1 + 10 * bool(self.layers))

    def user(self, row: int) -> tuple[Floats, float]:
        """See `ScoringModel`."""
        return self.users[row], float(self.user_bias[row])

    def boosted(self, amounts: Floats) -> EmbeddingModel:
        """See `ScoringModel`."""
        return replace(self, item_bias=self.item_bias + amounts)

    def with_users(self, count: int, changed: Mapping[int, tuple[Floats, float]]) -> EmbeddingModel:
        """See `ScoringModel`."""
        n_new = count - len(self.users)
        users = np.concatenate((self.users, np.zeros((n_new, self.dim), np.float32)))
        biases = np.concatenate((self.user_bias, np.zeros(n_new, np.float32)))
        for row, (vector, bias) in changed.items():
            users[row], biases[row] = vector, bias
        return replace(self, users=users, user_bias=biases)

    def score_components(self, vector: Floats, bias: float, item: int, score: float) -> dict[str, float]:
        """See `ScoringModel`."""
        biases = {"offset": self.offset, "user_bias": bias, "item_bias": float(self.item_bias[item])}
        return biases | {"mlp" if self.layers else "collaborative": score - sum(biases.values())}

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """See `ScoringModel`."""
        arrays: Arrays = {
            "users": self.users,
            "items": self.items,
            "user_bias": self.user_bias,
            "item_bias": self.item_bias,
        }
        if self.history_vectors is not None:
            arrays["history"] = self.history_vectors
        for n, (weight, bias) in enumerate(self.layers):
            arrays |= {f"layer.{n}.weight": weight, f"layer.{n}.bias": bias}
        metadata = {"offset": self.offset, "link": self.output, "scale": list(self.scale), "unit": self.normalized}
        return arrays, metadata

    @classmethod
    def load(cls, arrays: Arrays, metadata: Mapping[str, Any]) -> EmbeddingModel:
        """Restore a model from what `save` returned. Raises KeyError if something is missing."""
        depth = sum(name.endswith(".weight") for name in arrays)
        return cls(
            users=arrays["users"],
            items=arrays["items"],
            user_bias=arrays["user_bias"],
            item_bias=arrays["item_bias"],
            offset=metadata["offset"],
            output=metadata["link"],
            scale=(metadata["scale"][0], metadata["scale"][1]),
            layers=[(arrays[f"layer.{n}.weight"], arrays[f"layer.{n}.bias"]) for n in range(depth)],
            normalized=metadata["unit"],
            history_vectors=arrays.get("history"),
        )

    def queries(self, users: Rows) -> Floats:
        """Return users as queries, [b, d + 2]: their vectors, with two more columns for the biases."""
        return self.queries_from_vectors(self.users[users], self.user_bias[users])

    def queries_from_vectors(self, vectors: Floats, bias: Floats | float = 0.0) -> Floats:
        """Return user vectors [b, d] and biases as queries, [b, d + 2]; a new user has no bias."""
        queries = np.empty((len(vectors), self.dim + 2), np.float32)
        queries[:, :-2], queries[:, -1] = vectors, 1
        queries[:, -2] = bias + np.float32(self.offset)
        return queries

    def query(self, vector: Floats, bias: float = 0.0) -> Floats:
        """See `ScoringModel`."""
        return self.queries_from_vectors(vector[None], bias)

    def support(self, history: Rows, rows: Rows) -> Floats:
        """See `ScoringModel`: the cosines of the item vectors."""
        return cosines(self.items, history, rows)

    def score(self, queries: Floats, rows: Rows | None = None) -> Floats:
        """Return the scores of queries [b, d + 2] for all items [b, I], or for some item rows."""
        if self.layers:
            return self._score_by_layers(queries, rows)
        d, bias = self.dim, self.item_bias if rows is None else self.item_bias[rows]
        if len(queries) > d:  # one product that includes the biases is then less work, even with a copy of the items
            items = self.items if rows is None else self.items[rows]
            product: Floats = queries @ np.column_stack((items, np.ones(len(items), np.float32), bias)).T
            return product
        out = dot_products(queries[:, :d], self.items, rows)
        out += queries[:, d, None]
        out += bias
        return out

    def _score_by_layers(self, queries: Floats, rows: Rows | None) -> Floats:
        n = len(self.items) if rows is None else len(rows)
        d, out = self.dim, np.empty((len(queries), n), np.float32)
        (first, first_bias), *other_layers = self.layers
        # The first layer is linear in both vectors, so users and items are multiplied once, and the results are added.
        user_terms, width = queries[:, :d] @ first[:, :d].T, max(1, _HIDDEN_BLOCK // len(first))
        for column in range(0, n, width):
            block = slice(column, column + width) if rows is None else rows[column : column + width]
            item_terms = self.items[block] @ first[:, d:].T + first_bias
            height = max(1, width // len(item_terms))
            for line in range(0, len(queries), height):
                hidden = (user_terms[line : line + height, None] + item_terms).reshape(-1, item_terms.shape[1])
                for weight, bias in other_layers:
                    hidden = np.maximum(hidden, 0, out=hidden) @ weight.T
                    hidden += bias
                out[line : line + height, column : column + width] = hidden.reshape(-1, len(item_terms))
        out += queries[:, d, None]
        out += self.item_bias if rows is None else self.item_bias[rows]
        return out

    def score_pairs(self, users: Rows, items: Rows) -> Floats:
        """Return the scores of (user, item) pairs, [n]."""
        u, v = self.users[users], self.items[items]
        if self.layers:
            hidden = np.concatenate((u, v), axis=1)
            for n, (weight, bias) in enumerate(self.layers):
                hidden = (np.maximum(hidden, 0) if n else hidden) @ weight.T + bias
            score = hidden[:, 0]
        else:
            score = np.einsum("nd,nd->n", u, v)
        return score + self.user_bias[users] + self.item_bias[items] + np.float32(self.offset)

    def predict(self, users: Rows, items: Rows) -> Floats:
        """See `ScoringModel`."""
        return self.to_prediction(self.score_pairs(users, items))

    def to_prediction(self, score: Floats) -> Floats:
        """See `ScoringModel`."""
        if self.output == "stars":
            return np.clip(score, *self.scale)
        return (1 / (1 + np.exp(-score))).astype(np.float32) if self.output == "chance" else score
