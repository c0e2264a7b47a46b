"""A second family of models, as small as one can be: what somebody who adds one has to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.base import Arrays, Family, OutputKind
from recsys_embed.models.fold_in.base import Feedback, ItemContributions
from recsys_embed.training.interface import FitRequest, TrainingResult


@dataclass(frozen=True)
class Cooccurrence:
    """Scores an item by how many users took it together with the items of a user's history.

    weights [I, I]: symmetric, zeros on the diagonal. users [U, I]: what each user took, as weights. bias [I].
    """

    family: ClassVar[str] = "cooccurrence"
    output: ClassVar[OutputKind] = "score"
    scale: ClassVar[tuple[float, float]] = (0.0, 1.0)
    offset: ClassVar[float] = 0.0
    has_history_users: ClassVar[bool] = True

    weights: Floats
    users: Floats
    bias: Floats

    @property
    def dim(self) -> int:
        return self.weights.shape[0]

    @property
    def item_vectors(self) -> Floats:
        return self.weights

    @property
    def scoring_cost(self) -> int:
        return self.weights.size

    def user(self, row: int) -> tuple[Floats, float]:
        return self.users[row], 0.0

    def queries(self, users: Rows) -> Floats:
        return self.users[users]

    def query(self, vector: Floats, bias: float = 0.0) -> Floats:
        return np.asarray(vector[None], np.float32)

    def support(self, history: Rows, rows: Rows) -> Floats:
        return self.weights[np.ix_(rows, history)]

    def score(self, queries: Floats, rows: Rows | None = None) -> Floats:
        rows = np.arange(self.dim) if rows is None else rows
        return queries @ self.weights[:, rows] + self.bias[rows]

    def score_components(self, vector: Floats, bias: float, item: int, score: float) -> dict[str, float]:
        return {"item_bias": float(self.bias[item]), "collaborative": score - float(self.bias[item])}

    def predict(self, users: Rows, items: Rows) -> Floats:
        return np.einsum("ni,in->n", self.users[users], self.weights[:, items]) + self.bias[items]

    def to_prediction(self, score: Floats) -> Floats:
        return score

    def boosted(self, amounts: Floats) -> Cooccurrence:
        return replace(self, bias=self.bias + amounts)

    def with_users(self, count: int, changed: Mapping[int, tuple[Floats, float]]) -> Cooccurrence:
        users = np.concatenate((self.users, np.zeros((count - len(self.users), self.dim), np.float32)))
        for row, (vector, _) in changed.items():
            users[row] = vector
        return replace(self, users=users)

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        return {"weights": self.weights, "users": self.users, "bias": self.bias}, {}


class CooccurrenceFoldIn:
    """A user is the weights of their feedback."""

    def __init__(self, model: Cooccurrence) -> None:
        self.model = model

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        vector = np.zeros(self.model.dim, np.float32)
        vector[feedback.rows] = feedback.weight
        return vector, 0.0

    def update_user(
        self, user: int, history: Rows, vector: Floats, bias: float, feedback: Feedback
    ) -> tuple[Floats, float]:
        return self.fit_user(feedback.merged_with(history))

    def contributions(self, feedback: Feedback, vector: Any, row: int) -> ItemContributions:
        return ItemContributions(feedback.weight.astype(float) * self.model.weights[feedback.rows, row])


def fit(request: FitRequest) -> TrainingResult:
    users = request.positives.matrix().toarray()
    weights = users.T @ users
    np.fill_diagonal(weights, 0)
    return TrainingResult(Cooccurrence(weights, users, np.zeros(users.shape[1], np.float32)))


def load(arrays: Arrays, facts: Mapping[str, Any]) -> Cooccurrence:
    return Cooccurrence(arrays["weights"], arrays["users"], arrays["bias"])


def fold_in(model: Cooccurrence, counts: Rows, seen: UserItems) -> CooccurrenceFoldIn:
    return CooccurrenceFoldIn(model)


FAMILY = Family(fit, load, fold_in)
