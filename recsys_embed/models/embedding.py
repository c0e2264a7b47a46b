"""EmbeddingModel: vectors, biases and a scorer as plain NumPy arrays. It answers without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats, dots, unit
from recsys_embed.data.ids import Rows
from recsys_embed.features.encoder import Features
from recsys_embed.features.ridge import FeatureMap
from recsys_embed.models.base import Arrays, OutputKind

# Numbers of a hidden layer that are worked on at once: 1 MB of float32, which a cache holds.
_HIDDEN = 1 << 18


@dataclass(frozen=True)
class EmbeddingModel:
    """Vectors, biases and the scorer of a trained model.

    users [U, d], items [I, d]: vectors without biases; a cosine scorer's are of unit length already, users'
        times 1 / temperature. user_bias [U], item_bias [I], offset: added to a pair's score.
    layers: (weight [out, in], bias [out]) of an MLP scorer; none for a dot product. The first layer's input is
        the user's vector, then the item's.
    map: from descriptions to the items' vectors and, as the last column, biases; None without descriptions.
    unit: whether the items' vectors are of unit length. trained: what turns pictures and words into features, where
        that was trained too: "words" [n, w], and the weights of the net that looks at pictures.
    said [I, d]: the part of the items' vectors that is their descriptions', of a training with descriptions and a dot
        product; what was loaded has it in `ContentModel`.
    history [I, d]: of models whose users are made of what they rated: `of_history` makes a user of these; else None.
    link: what a score means: a "score" of no unit, "stars" (clipped to `scale`), or the log-odds of a "chance".
    """

    family: ClassVar[str] = "embedding"

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
    trained: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    history_vectors: Floats | None = None
    content_vectors: Floats | None = None

    def encode(self, features: Features) -> tuple[Floats, Floats]:
        """Return the vectors [n, d] and biases [n] of items of which only descriptions are known."""
        assert self.feature_map is not None
        both = self.feature_map(features)
        vectors, bias = both[:, :-1], both[:, -1]
        if self.normalized:
            vectors = unit(vectors)
        return vectors, bias

    def user_from_history(self, items: Rows, weight: Floats | None = None) -> Floats:
        """Return the vector [d] of somebody who took these items, as `HistoryTower` makes it; zeros for nobody's.

        An item without a training rating says nothing, and does not count. weight [n]: what each counts, by default 1.
        """
        assert self.history_vectors is not None
        known = self.history_vectors[items]
        size = np.ones(len(known), np.float32) if weight is None else weight
        count = np.abs(size) @ known.any(axis=1)
        made: Floats = (known * size[:, None]).sum(axis=0) / np.float32(float(count) ** 0.5 or 1.0)
        if self.normalized:
            made = unit(made[None])[0] * np.linalg.norm(self.users, axis=1).max(initial=0)
        return made

    def with_items(self, vectors: Floats, bias: Floats) -> EmbeddingModel:
        """Return the model with n items more: vectors [n, d] and biases [n]. To a history they add nothing."""
        history = None
        if self.history_vectors is not None:
            history = np.concatenate((self.history_vectors, np.zeros_like(vectors)))
        items, item_bias = np.concatenate((self.items, vectors)), np.concatenate((self.item_bias, bias))
        return replace(self, items=items, item_bias=item_bias, history_vectors=history)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.users.shape[1]

    @property
    def item_vectors(self) -> Floats:
        """See ScoringModel."""
        return self.items

    @property
    def users_are_histories(self) -> bool:
        """See ScoringModel."""
        return self.history_vectors is not None

    @property
    def cost(self) -> int:
        """See ScoringModel; of a perceptron the layers count tenfold."""
        return self.items.size * (1 + 10 * bool(self.layers))

    def user(self, row: int) -> tuple[Floats, float]:
        """See ScoringModel."""
        return self.users[row], float(self.user_bias[row])

    def boosted(self, amounts: Floats) -> EmbeddingModel:
        """See ScoringModel."""
        return replace(self, item_bias=self.item_bias + amounts)

    def with_users(self, count: int, changed: Mapping[int, tuple[Floats, float]]) -> EmbeddingModel:
        """See ScoringModel."""
        more = count - len(self.users)
        users = np.concatenate((self.users, np.zeros((more, self.dim), np.float32)))
        bias = np.concatenate((self.user_bias, np.zeros(more, np.float32)))
        for row, (vector, own) in changed.items():
            users[row], bias[row] = vector, own
        return replace(self, users=users, user_bias=bias)

    def score_parts(self, bias: float, item: int, score: float) -> dict[str, float]:
        """See ScoringModel."""
        parts = {"offset": self.offset, "user_bias": bias, "item_bias": float(self.item_bias[item])}
        return parts | {"mlp" if self.layers else "collaborative": score - sum(parts.values())}

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """See ScoringModel."""
        arrays: Arrays = {
            "users": self.users,
            "items": self.items,
            "user_bias": self.user_bias,
            "item_bias": self.item_bias,
        }
        if self.history_vectors is not None:
            arrays["history"] = self.history_vectors
        for at, (weight, bias) in enumerate(self.layers):
            arrays |= {f"layer.{at}.weight": weight, f"layer.{at}.bias": bias}
        facts = {"offset": self.offset, "link": self.output, "scale": list(self.scale), "unit": self.normalized}
        return arrays, facts

    @classmethod
    def load(cls, arrays: Arrays, facts: Mapping[str, Any]) -> EmbeddingModel:
        """Make a model of what `save` gave. Raises KeyError."""
        depth = sum(name.endswith(".weight") for name in arrays)
        return cls(
            users=arrays["users"],
            items=arrays["items"],
            user_bias=arrays["user_bias"],
            item_bias=arrays["item_bias"],
            offset=facts["offset"],
            output=facts["link"],
            scale=(facts["scale"][0], facts["scale"][1]),
            layers=[(arrays[f"layer.{at}.weight"], arrays[f"layer.{at}.bias"]) for at in range(depth)],
            normalized=facts["unit"],
            history_vectors=arrays.get("history"),
        )

    def queries(self, users: Rows) -> Floats:
        """Return the users' vectors with their biases folded in as two more columns, [b, d + 2]."""
        return self.augment(self.users[users], self.user_bias[users])

    def augment(self, vectors: Floats, bias: Floats | float = 0.0) -> Floats:
        """Return users' vectors [b, d] and biases as queries, [b, d + 2]; a user who is new has no bias."""
        queries = np.empty((len(vectors), self.dim + 2), np.float32)
        queries[:, :-2], queries[:, -1] = vectors, 1
        queries[:, -2] = bias + np.float32(self.offset)
        return queries

    def score(self, queries: Floats, rows: Rows | None = None) -> Floats:
        """Return the scores of every query [b, d + 2] with every item, [b, I], or with those of some rows alone."""
        if self.layers:
            return self._scored_by_layers(queries, rows)
        d, bias = self.dim, self.item_bias if rows is None else self.item_bias[rows]
        if len(queries) > d:  # of many, one product with biases folded in is less work, and a copy of the items less
            items = self.items if rows is None else self.items[rows]
            product: Floats = queries @ np.column_stack((items, np.ones(len(items), np.float32), bias)).T
            return product
        out = dots(queries[:, :d], self.items, rows)
        out += queries[:, d, None]
        out += bias
        return out

    def _scored_by_layers(self, queries: Floats, rows: Rows | None) -> Floats:
        n = len(self.items) if rows is None else len(rows)
        d, out = self.dim, np.empty((len(queries), n), np.float32)
        (first, bias), *rest = self.layers
        # The first layer is linear in both vectors, so each side is multiplied once and the halves are added.
        left, most = queries[:, :d] @ first[:, :d].T, max(1, _HIDDEN // len(first))
        for begin in range(0, n, most):
            part = slice(begin, begin + most) if rows is None else rows[begin : begin + most]
            right = self.items[part] @ first[:, d:].T + bias
            step = max(1, most // len(right))
            for start in range(0, len(queries), step):
                hidden = (left[start : start + step, None] + right).reshape(-1, right.shape[1])
                for weight, shift in rest:
                    hidden = np.maximum(hidden, 0, out=hidden) @ weight.T
                    hidden += shift
                out[start : start + step, begin : begin + most] = hidden.reshape(-1, len(right))
        out += queries[:, d, None]
        out += self.item_bias if rows is None else self.item_bias[rows]
        return out

    def pairs(self, users: Rows, items: Rows) -> Floats:
        """Return the scores of (user, item) pairs, [n]."""
        u, v = self.users[users], self.items[items]
        if self.layers:
            hidden = np.concatenate((u, v), axis=1)
            for at, (weight, bias) in enumerate(self.layers):
                hidden = (np.maximum(hidden, 0) if at else hidden) @ weight.T + bias
            score = hidden[:, 0]
        else:
            score = np.einsum("nd,nd->n", u, v)
        return score + self.user_bias[users] + self.item_bias[items] + np.float32(self.offset)

    def predict(self, users: Rows, items: Rows) -> Floats:
        """Return what is expected of (user, item) pairs, [n], in the unit of `output`."""
        return self.to_prediction(self.pairs(users, items))

    def to_prediction(self, score: Floats) -> Floats:
        """Return scores in the unit of `output`."""
        if self.output == "stars":
            return np.clip(score, *self.scale)
        return (1 / (1 + np.exp(-score))).astype(np.float32) if self.output == "chance" else score
