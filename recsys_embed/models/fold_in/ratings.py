"""Fold-in for rating models, by ridge regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback, ItemContributions

# Standard deviation of ratings around their prediction, as a share of the rating scale (experiments/LOG.md).
_ERROR = 0.15


@dataclass(frozen=True)
class RatingFoldIn:
    """Ridge regression of ratings on item vectors, with a bias, shrunk towards the mean user of the model.

    rating - offset - bias_i ~ normal(v_i . u + b, error^2), and (u, b) ~ normal(mean and covariance of the trained
    users): the conditional step of Bayesian matrix factorisation (Salakhutdinov and Mnih, ICML 2008, eq. 11 to 13).
    A trained user is updated in the same way, with their vector in place of the mean and the precision of their old
    items added. This is exact without the old ratings, since precision depends on items only (recursive least squares:
    Plackett, Biometrika 1950). For an item rated again, the old rating is assumed to equal its prediction.
    """

    model: EmbeddingModel
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, model: EmbeddingModel, seen: UserItems) -> RatingFoldIn:
        """Prepare the fold-in of a model of "stars" with a dot-product scorer."""
        users: NDArray[np.float64] = np.column_stack((model.users, model.user_bias))[seen.count > 0].astype(np.float64)
        width = model.dim + 1
        covariance = np.cov(users, rowvar=False).reshape(width, width) if len(users) > 1 else np.eye(width)
        covariance += 1e-6 * max(float(np.trace(covariance)) / width, 1e-9) * np.eye(width)
        error = _ERROR * (model.scale[1] - model.scale[0]) or 1.0
        mean: NDArray[np.float64] = users.mean(axis=0)
        return cls(model, mean, np.linalg.inv(covariance).astype(np.float64), error)

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See `FoldIn`."""
        if not len(feedback.rows):
            return np.zeros(self.model.dim, np.float32), 0.0
        return self._solve(self.mean, feedback.rows, feedback)

    def update_user(
        self, user: int, history: Rows, vector: Floats, bias: float, feedback: Feedback
    ) -> tuple[Floats, float]:
        """See `FoldIn`."""
        if not len(feedback.rows):
            return vector, bias
        return self._solve(np.append(vector, bias).astype(np.float64), np.union1d(history, feedback.rows), feedback)

    def _solve(self, prior_mean: NDArray[np.float64], history: Rows, feedback: Feedback) -> tuple[Floats, float]:
        """Return the vector and bias after feedback on items that are part of a history, ascending."""
        ones = np.ones(len(history))
        keys = np.column_stack((self.model.items[history], ones)).astype(np.float64)
        rated = keys[np.searchsorted(history, feedback.rows)]
        residual = feedback.ratings - self.model.offset - self.model.item_bias[feedback.rows] - rated @ prior_mean
        precision = self.precision * self.error**2 + keys.T @ keys
        user = prior_mean + np.linalg.solve(precision, rated.T @ residual)
        return user[:-1].astype(np.float32), float(user[-1])

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> ItemContributions:
        """See `FoldIn`. The remainder is the mean user; an item adds how far its rating departs from it."""
        item = self.model.items[row].astype(np.float64)
        keys = np.column_stack((self.model.items[feedback.rows], np.ones(len(feedback.rows)))).astype(np.float64)
        residual = feedback.ratings - self.model.offset - self.model.item_bias[feedback.rows] - keys @ self.mean
        precision = self.precision * self.error**2 + keys.T @ keys
        return ItemContributions(
            residual * (keys @ np.linalg.solve(precision, np.append(item, 0.0))), float(self.mean[:-1] @ item)
        )
