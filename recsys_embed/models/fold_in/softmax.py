"""Fold-in for ranking models: the vector that makes a new user's items most likely under a softmax."""

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

# Chosen on users held out of ML-100K and ML-1M (experiments/LOG.md). The closed form's ridge: noise in the vectors,
# and a prior that counts as much as one item. Both are shares of the items' total variance, so that neither the width
# nor the scale of the vectors matters.
_NOISE, _PRIOR = 0.025, 0.6
# The steps after it: their number, their size, and how many of the likeliest items take part in each.
_STEPS, _STEP_SIZE, _CANDIDATES = 7, np.float32(0.7), 1024


@dataclass(frozen=True)
class SoftmaxFoldIn(RankingFoldIn):
    """The vector under which the items taken are most likely, by the softmax that training maximised, with a prior.

    x maximises  sum of w_i (v_i . x) / n - share x log(sum over the others of exp(v_j . x + b_j)) - ridge |x|^2 / 2,
    where n is the sum of |w|, share the sum of w divided by n, and ridge = noise + prior / n. As in training, the items
    taken are not compared with each other. A disliked item has w < 0 and stays among the others.

    The first guess is `vector`, a closed form; then come steps along the gradient, divided by the closed form's
    Hessian. The items' covariance is decomposed once, so that each step is a few products. With many items, the steps
    update the probabilities of the likeliest ones only.

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
        """Prepare for a model with a dot product or a cosine."""
        # An item without ratings has no part in the model's softmax.
        rated, bias = model.items[counts > 0].astype(np.float64), model.item_bias[counts > 0].astype(np.float64)
        probability = np.exp(bias - bias.max(initial=-np.inf))
        probability /= max(1.0, probability.sum())  # at least 1 but where no item is rated
        mean = probability @ rated
        rated -= mean
        rated *= np.sqrt(probability)[:, None]
        covariance = rated.T @ rated
        variance = max(float(np.trace(covariance)), 1e-9)  # of one item alone it is zero
        own = np.where(counts > 0, model.item_bias, -np.inf).astype(np.float32)
        return cls(model.items, own, mean, covariance, _NOISE * variance, _PRIOR * variance)

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues [d] and eigenvectors [d, d] of the covariance."""
        variances, axes = np.linalg.eigh(self.covariance)
        return variances, axes

    def vector(self, taken: Rows) -> Floats:
        """Return the vector [d] of a user who took these items by the closed form alone; zeros without items.

        (covariance + (noise + prior / n) x identity)^-1 (mean of the n items taken - mean of all items). It is one step
        of Newton's method from the vector 0: with p the softmax of the items' biases, the log-likelihood of a taken
        item has the gradient v - mean and the Hessian -covariance, both under p, and the ridge is a normal prior. (It
        equals Fisher's linear discriminant of the items taken against all items, with a shrunken covariance: Friedman,
        Regularized Discriminant Analysis, JASA 1989.) Its length is that of log-odds, as a softmax trains them, so that
        item biases keep their weight; with a cosine that is shorter than trained users are, as befits weak evidence.
        """
        if not len(taken):
            return np.zeros(len(self.mean), np.float32)
        ridge = self.noise + self.prior / len(taken)
        return self._solved(self.items[taken].mean(axis=0, dtype=np.float64) - self.mean, ridge).astype(np.float32)

    def _solved(self, pull: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        variances, axes = self._axes
        solved: NDArray[np.float64] = axes @ ((axes.T @ pull) / (variances + ridge))
        return solved

    def fit_user(self, feedback: Feedback) -> tuple[Floats, float]:
        """See FoldIn; the bias is always 0."""
        size = float(np.abs(feedback.weight).sum())
        if not size:
            return np.zeros(len(self.mean), np.float32), 0.0
        pull = feedback.weight.astype(np.float64) @ self.items[feedback.rows] / size
        share, ridge = float(feedback.weight.sum()) / size, self.noise + self.prior / size
        x = self._solved(pull - share * self.mean, ridge)
        taken = feedback.rows[feedback.weight > 0]
        score = self.items @ x.astype(np.float32) + self.bias
        score[taken] = -np.inf
        top = score.max(initial=-np.inf)
        if share <= 0 or np.isinf(top):  # no likelihood of dislikes alone; nothing left to rank
            return x.astype(np.float32), 0.0
        items, bias = self.items, np.where(np.isinf(score), -np.inf, self.bias)
        others: tuple[Any, Any] = 0.0, 0.0
        if len(score) > _CANDIDATES:
            nearest, probability = np.argpartition(-score, _CANDIDATES)[:_CANDIDATES], np.exp(score - top)
            probability[nearest] = 0
            items, bias, others = items[nearest], bias[nearest], (probability.sum(), probability @ items)
        for _ in range(_STEPS):
            score = items @ x.astype(np.float32) + bias
            best = score.max()
            probability, far = np.exp(score - best), np.exp(min(top - best, 80.0))
            mean = (probability @ items + far * others[1]) / (probability.sum() + far * others[0])
            x = x + _STEP_SIZE * self._solved(pull - share * mean - ridge * x, ridge)
        return x.astype(np.float32), 0.0

    def contributions(self, feedback: Feedback, vector: NDArray[np.float64], row: int) -> ItemContributions:
        """See FoldIn. Given the means at each step, the steps are linear in the items of the feedback.

        Along every axis, an item of weight w adds w / n (gain x its vector - a). The constant a is the same for all
        items, so it is what the vector leaves over.
        """
        item = self.items[row].astype(np.float64)
        size = float(np.abs(feedback.weight).sum())
        weight = feedback.weight.astype(np.float64) / (size or 1.0)
        share, ridge = float(weight.sum()), self.noise + self.prior / (size or 1.0)
        variances, axes = self._axes
        gain = 1 / (variances + ridge)
        pull = weight @ self.items[feedback.rows]
        closed = axes @ (gain * (axes.T @ (pull - share * self.mean)))
        if share > 0 and np.abs(closed - vector).max(initial=0) > 1e-4 * np.abs(vector).max(initial=0):
            left = 1 - _STEP_SIZE * ridge * gain  # of what was before, after a step
            gain = left**_STEPS * gain + _STEP_SIZE * gain * sum(left**step for step in range(_STEPS))
        turned = axes @ (gain * (axes.T @ item))
        expected = self.mean @ turned if share <= 0 else (pull @ turned - vector @ item) / share
        return ItemContributions(weight * (self.items[feedback.rows] @ turned - expected))
