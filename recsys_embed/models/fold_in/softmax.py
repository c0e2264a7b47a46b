"""Fold-in for ranking models: the vector under which a new user's items are most likely in a softmax."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback, ItemContributions, RankingFoldIn

# Chosen on held-out users of ML-100K and ML-1M (experiments/LOG.md). The ridge of the closed form: noise in the
# vectors, and a prior that counts like one item. Both are shares of the items' total variance, which makes them
# independent of the dimension and the scale of the vectors.
_NOISE, _PRIOR = 0.025, 0.6
# The gradient steps after it: their number, their size, and how many of the most likely items each one updates.
_STEPS, _STEP_SIZE, _CANDIDATES = 7, np.float32(0.7), 1024


@dataclass(frozen=True)
class SoftmaxFoldIn(RankingFoldIn):
    """The user vector under which the liked items are most likely in the training softmax, with a normal prior.

    x maximises  sum of w_i (v_i . x) / n - share x log(sum over the others of exp(v_j . x + b_j)) - ridge |x|^2 / 2,
    where n is the sum of |w|, share the sum of w divided by n, and ridge = noise + prior / n. As in training, liked
    items are not compared with each other. A disliked item has w < 0 and stays among the others.

    The starting point is a closed form (`closed_form`). Gradient steps follow, preconditioned by the Hessian of the
    closed form. The item covariance is decomposed once, so that a step is a few matrix products. With many items, the
    steps update the probabilities of the most likely ones only.

    items [I, d]; bias [I]: -inf for an item without ratings; mean [d]; covariance [d, d]; noise, prior: in squared
    units of the items.
    """

    items: Floats
    bias: Floats
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float
    prior: float

    @classmethod
    def of(cls, model: EmbeddingModel, counts: Rows) -> SoftmaxFoldIn:
        """Prepare the fold-in of a model with a dot-product or cosine scorer."""
        # Items without ratings take no part in the softmax of training.
        rated, bias = model.items[counts > 0].astype(np.float64), model.item_bias[counts > 0].astype(np.float64)
        probability = np.exp(bias - bias.max(initial=-np.inf))
        probability /= max(1.0, probability.sum())  # the sum is at least 1 unless no item is rated
        mean = probability @ rated
        rated -= mean
        rated *= np.sqrt(probability)[:, None]
        covariance = rated.T @ rated
        variance = max(float(np.trace(covariance)), 1e-9)  # a single item has zero variance
        item_bias = np.where(counts > 0, model.item_bias, -np.inf).astype(np.float32)
        return cls(model.items, item_bias, mean, covariance, _NOISE * variance, _PRIOR * variance)

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues [d] and eigenvectors [d, d] of the covariance matrix."""
        variances, axes = np.linalg.eigh(self.covariance)
        return variances, axes

    def closed_form(self, liked: Rows) -> Floats:
        """Return the vector [d] of a user who likes these items by the closed form alone; zeros without items.

        (covariance + (noise + prior / n) x identity)^-1 (mean of the n liked items - mean of all items). This is one
        step of Newton's method from the vector 0: with p the softmax of the item biases, the log-likelihood of an item
        has the gradient v - mean and the Hessian -covariance, both under p, and the ridge is a normal prior. (It equals
        Fisher's linear discriminant of the liked items against all items, with a shrunken covariance: Friedman,
        Regularized Discriminant Analysis, JASA 1989.) Scores are on the scale of log-odds, as a softmax trains them, so
        that item biases keep their weight. With a cosine scorer the vector is shorter than those of trained users,
        which suits the weak evidence.
        """
        if not len(liked):
            return np.zeros(len(self.mean), np.float32)
        ridge = self.noise + self.prior / len(liked)
        return self._solve(self.items[liked].mean(axis=0, dtype=np.float64) - self.mean, ridge).astype(np.float32)

    def _solve(self, target: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        """Return (covariance + ridge x identity)^-1 target, [d]."""
        variances, axes = self._axes
        solution: NDArray[np.float64] = axes @ ((axes.T @ target) / (variances + ridge))
        return solution

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See `FoldIn`; the bias is always 0."""
        total = float(np.abs(feedback.weight).sum())
        if not total:
            return np.zeros(len(self.mean), np.float32), 0.0
        target = feedback.weight.astype(np.float64) @ self.items[feedback.rows] / total
        share, ridge = float(feedback.weight.sum()) / total, self.noise + self.prior / total
        x = self._solve(target - share * self.mean, ridge)
        liked = feedback.rows[feedback.weight > 0]
        score = self.items @ x.astype(np.float32) + self.bias
        score[liked] = -np.inf
        top = score.max(initial=-np.inf)
        if share <= 0 or np.isinf(top):  # dislikes alone have no likelihood; or no item is left to rank
            return x.astype(np.float32), 0.0
        items, bias = self.items, np.where(np.isinf(score), -np.inf, self.bias)
        fixed: tuple[Any, Any] = 0.0, 0.0  # of the unlikely items: their sum, and their sum of vectors, relative to top
        if len(score) > _CANDIDATES:
            likely, probability = np.argpartition(-score, _CANDIDATES)[:_CANDIDATES], np.exp(score - top)
            probability[likely] = 0
            items, bias, fixed = items[likely], bias[likely], (probability.sum(), probability @ items)
        for _ in range(_STEPS):
            score = items @ x.astype(np.float32) + bias
            best = score.max()
            probability, rescale = np.exp(score - best), np.exp(min(top - best, 80.0))
            mean = (probability @ items + rescale * fixed[1]) / (probability.sum() + rescale * fixed[0])
            x = x + _STEP_SIZE * self._solve(target - share * mean - ridge * x, ridge)
        return x.astype(np.float32), 0.0

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> ItemContributions:
        """See `FoldIn`. Given the means at each step, the vector is linear in the items of the feedback.

        Along each axis, an item of weight w adds w / n (gain x its vector - a). The constant a is the same for all
        items, so it follows from the sum, which is the vector.
        """
        item = self.items[row].astype(np.float64)
        total = float(np.abs(feedback.weight).sum())
        weight = feedback.weight.astype(np.float64) / (total or 1.0)
        share, ridge = float(weight.sum()), self.noise + self.prior / (total or 1.0)
        variances, axes = self._axes
        gain = 1 / (variances + ridge)
        target = weight @ self.items[feedback.rows]
        closed_form = axes @ (gain * (axes.T @ (target - share * self.mean)))
        if share > 0 and np.abs(closed_form - vector).max(initial=0) > 1e-4 * np.abs(vector).max(initial=0):
            decay = 1 - _STEP_SIZE * ridge * gain  # share of the previous vector that a step keeps
            gain = decay**_STEPS * gain + _STEP_SIZE * gain * sum(decay**step for step in range(_STEPS))
        projected = axes @ (gain * (axes.T @ item))
        expected = self.mean @ projected if share <= 0 else (target @ projected - vector @ item) / share
        return ItemContributions(weight * (self.items[feedback.rows] @ projected - expected))
