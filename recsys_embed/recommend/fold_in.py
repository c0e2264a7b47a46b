"""The vector of somebody who was not there in training, from what they say of items; and a known user's, moved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.model.plain import PlainModel
from recsys_embed.ratings.table import Seen
from recsys_embed.ratings.vocab import Rows

# All of these were chosen on users held out of ML-100K and ML-1M (experiments/LOG.md). Of the closed form, for cosines
# and dot products alike, in shares of the items' whole variance, so that neither the vectors' width nor their scale
# matters: what is noise in the vectors, and what is known of a user beforehand, which counts as much as one item does.
_NOISE, _PRIOR = 0.025, 0.6
# Of the steps after it: how many, how far each goes, and the items that take part in each; the others stay as they are.
_STEPS, _PACE, _NEAR = 7, np.float32(0.7), 1024
# Of ratings: their deviation from what is predicted, as a share of the scale.
_ERROR = 0.15
# Of an MLP: how many users are asked who rated the same, and how much more the nearest of them count.
_ALIKE, _POWER = 20, 3


@dataclass(frozen=True)
class Told:
    """What somebody says of items. rows [n]: distinct, ascending. weight [n]: how much each speaks for them.

    A like weighs 1, an item they would rather not have less than nothing. stars [n]: ratings, nan where there is none;
    only models of stars look at them.
    """

    rows: Rows
    weight: Floats
    stars: Floats

    @classmethod
    def liked(cls, rows: Rows) -> Told:
        """Nothing but likes: rows [n], in any order; what stands twice counts once."""
        rows = np.unique(rows)
        return cls(rows, np.ones(len(rows), np.float32), np.full(len(rows), np.nan, np.float32))

    def after(self, old: Rows) -> Told:
        """Return likes of the items `old` [m], and what is told beside and against them.

        Who says of one of them that they like it says nothing new.
        """
        against = self.rows[self.weight <= 0]
        kept = np.setdiff1d(old, against, assume_unique=True)
        new = ~np.isin(self.rows, kept)
        likes = Told.liked(kept)
        rows = np.concatenate((kept, self.rows[new]))
        order = np.argsort(rows)
        weight, stars = (
            np.concatenate(pair)[order] for pair in ((likes.weight, self.weight[new]), (likes.stars, self.stars[new]))
        )
        return Told(rows[order], weight, stars)


class Fold(Protocol):
    """What makes vectors [d] and biases of people for one model."""

    def new(self, told: Told) -> tuple[Floats, float]:
        """Return those of somebody new; zeros where nothing is told."""
        ...

    def moved(self, user: int, old: Rows, vector: Floats, bias: float, told: Told) -> tuple[Floats, float]:
        """Return those of a user of the model who says more. old: item rows of their training, ascending.

        vector, bias: what the model has for them, which are returned as they are where nothing new is told.
        """
        ...

    def added(self, told: Told, vector: NDArray[np.float64], item: NDArray[np.float64]) -> Added | None:
        """Return what each item told of adds to vector @ item, the vector [d] being that of `new`; None: no sum."""
        ...


def fold_of(model: PlainModel, counts: Rows, seen: Seen) -> Fold:
    """Return what makes people for a model. counts: ratings of each item; seen: items of each user."""
    if model.layers:
        return Alike(model, seen)
    if model.link == "stars":
        return Regression.of(model, seen)
    return FoldIn.of(model, counts) if model.history is None else History(model)


class Added(NamedTuple):
    """What each of n items adds to a product of two vectors, and what is added besides, or None."""

    values: NDArray[np.float64]
    besides: float | None = None


class _Ranked:
    """Somebody who says more, in models of lists."""

    def new(self, told: Told) -> tuple[Floats, float]:
        raise NotImplementedError

    def _without(self, user: int) -> _Ranked:
        return self

    def moved(self, user: int, old: Rows, vector: Floats, bias: float, told: Told) -> tuple[Floats, float]:
        """Be made of all that is known of them, and keep what training found beside their old items, by their share.

        x = f(old and new) + (vector - f(old)) x old / (old and new), f being `new`. One by one comes to the same as
        all in one go: what is kept is multiplied by old / all in the end, whatever came between.
        """
        after = told.after(old)
        if np.array_equal(after.rows, old) and (after.weight == 1).all():
            return vector, bias
        share, of = np.float32(len(old) / len(after.rows)), self._without(user)
        (all_vector, all_bias), (old_vector, old_bias) = of.new(after), of.new(Told.liked(old))
        return all_vector + share * (vector - old_vector), float(all_bias + share * (bias - old_bias))


class History(_Ranked):
    """Where users are made of their histories, a new one is made as they are, without a vector of their own."""

    def __init__(self, model: PlainModel) -> None:
        self.model = model

    def new(self, told: Told) -> tuple[Floats, float]:
        """See Fold."""
        return self.model.of_history(told.rows, told.weight), 0.0

    def added(self, told: Told, vector: NDArray[np.float64], item: NDArray[np.float64]) -> Added:
        """See Fold."""
        assert self.model.history is not None
        vectors = self.model.history[told.rows].astype(np.float64) * told.weight[:, None]
        length = float(np.linalg.norm(vectors.sum(axis=0)))
        return Added(vectors @ item * (float(np.linalg.norm(vector)) / (length or 1.0)))


@dataclass(frozen=True)
class FoldIn(_Ranked):
    """The vector that makes the items taken likely: the maximum of what a softmax would have trained, with a prior.

    x maximises  sum of w_i (v_i . x) / n - share x log(sum over the others of exp(v_j . x + b_j)) - ridge |x|^2 / 2,
    n being the sum of |w|, share that of w / n, and ridge = noise + prior / n: the log-likelihood of the items taken,
    of which none is compared with another one, as in training. An item that is not liked has a w below 0, and stays
    among the others.

    It begins with `vector`, a closed form, and goes on in steps that divide the gradient by the closed form's Hessian.
    The items' covariance is decomposed once, so that each is a few products. Where there are many items, the steps
    move the chances of those alone that are likeliest after the closed form.

    items [I, d]; bias [I]: -inf where an item has no rating; mean [d]; spread [d, d]; noise, prior: in squared units of
    the items.
    """

    items: Floats
    bias: Floats
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    noise: float
    prior: float

    @classmethod
    def of(cls, model: PlainModel, counts: Rows) -> FoldIn:
        """Prepare for a model with a dot product or a cosine."""
        # An item without ratings has no part in the model's softmax.
        rated, bias = model.items[counts > 0].astype(np.float64), model.item_bias[counts > 0].astype(np.float64)
        chance = np.exp(bias - bias.max(initial=-np.inf))
        chance /= max(1.0, chance.sum())  # the largest is 1; without any rated item there is nothing to divide
        mean = chance @ rated
        rated -= mean
        rated *= np.sqrt(chance)[:, None]
        spread = rated.T @ rated
        variance = max(float(np.trace(spread)), 1e-9)  # of one item alone it is zero
        own = np.where(counts > 0, model.item_bias, -np.inf).astype(np.float32)
        return cls(model.items, own, mean, spread, _NOISE * variance, _PRIOR * variance)

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The spread's variances [d] and axes [d, d]."""
        variances, axes = np.linalg.eigh(self.spread)
        return variances, axes

    def vector(self, taken: Rows) -> Floats:
        """Return the vector [d] of somebody who took these items by the closed form alone; zeros for nobody's.

        (spread + (noise + prior / n) x identity)^-1 (mean of the n items taken - mean of all items): one step of
        Newton's method from nothing known (the vector 0): with p the softmax of the items' biases, the log-likelihood
        of a softmax has for a taken item the gradient v - mean and the Hessian -spread, mean and covariance of the
        vectors under p; noise and prior are a ridge, that of a normal prior as far as it falls with n. (The same as
        Fisher's linear discriminant of the items taken against all items, with a shrunken covariance: Friedman,
        Regularized Discriminant Analysis, JASA 1989.) Its length is that of log-odds, as a softmax trains them, so that
        items' biases weigh what they should; it is not the users' own length with a cosine, which is more than what so
        little is known of can bear.
        """
        if not len(taken):
            return np.zeros(len(self.mean), np.float32)
        ridge = self.noise + self.prior / len(taken)
        return self._solved(self.items[taken].mean(axis=0, dtype=np.float64) - self.mean, ridge).astype(np.float32)

    def _solved(self, pull: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        variances, axes = self._axes
        solved: NDArray[np.float64] = axes @ ((axes.T @ pull) / (variances + ridge))
        return solved

    def new(self, told: Told) -> tuple[Floats, float]:
        """See Fold; nobody has a bias."""
        size = float(np.abs(told.weight).sum())
        if not size:
            return np.zeros(len(self.mean), np.float32), 0.0
        pull = told.weight.astype(np.float64) @ self.items[told.rows] / size
        share, ridge = float(told.weight.sum()) / size, self.noise + self.prior / size
        x = self._solved(pull - share * self.mean, ridge)
        taken = told.rows[told.weight > 0]
        score = self.items @ x.astype(np.float32) + self.bias
        score[taken] = -np.inf
        top = score.max(initial=-np.inf)
        if share <= 0 or np.isinf(top):  # dislikes alone have no likelihood, and who took everything needs no list
            return x.astype(np.float32), 0.0
        items, bias = self.items, np.where(np.isinf(score), -np.inf, self.bias)
        others: tuple[Any, Any] = 0.0, 0.0
        if len(score) > _NEAR:
            near, chance = np.argpartition(-score, _NEAR)[:_NEAR], np.exp(score - top)
            chance[near] = 0
            items, bias, others = items[near], bias[near], (chance.sum(), chance @ items)
        for _ in range(_STEPS):
            score = items @ x.astype(np.float32) + bias
            best = score.max()
            chance, far = np.exp(score - best), np.exp(min(top - best, 80.0))
            mean = (chance @ items + far * others[1]) / (chance.sum() + far * others[0])
            x = x + _PACE * self._solved(pull - share * mean - ridge * x, ridge)
        return x.astype(np.float32), 0.0

    def added(self, told: Told, vector: NDArray[np.float64], item: NDArray[np.float64]) -> Added:
        """See Fold. With the means that the steps came by as they are, each step is linear in the items told of.

        On every axis, an item of weight w adds w / n (gain x its vector - a), and a is the same for all of them: what
        they would have added if each were as expected. So a is what is left over of the vector.
        """
        size = float(np.abs(told.weight).sum())
        weight = told.weight.astype(np.float64) / (size or 1.0)
        share, ridge = float(weight.sum()), self.noise + self.prior / (size or 1.0)
        variances, axes = self._axes
        gain = 1 / (variances + ridge)
        pull = weight @ self.items[told.rows]
        closed = axes @ (gain * (axes.T @ (pull - share * self.mean)))
        if share > 0 and np.abs(closed - vector).max(initial=0) > 1e-4 * np.abs(vector).max(initial=0):
            left = 1 - _PACE * ridge * gain  # of what was before, after a step
            gain = left**_STEPS * gain + _PACE * gain * sum(left**step for step in range(_STEPS))
        turned = axes @ (gain * (axes.T @ item))
        expected = self.mean @ turned if share <= 0 else (pull @ turned - vector @ item) / share
        return Added(weight * (self.items[told.rows] @ turned - expected))


@dataclass(frozen=True)
class Regression:
    """Ridge regression of ratings on the items' vectors, with a bias, around the mean of the model's users.

    rating - offset - bias_i ~ normal(v_i . u + b, error^2), and (u, b) ~ normal(mean and covariance of the trained
    users): the conditional step of Bayesian matrix factorisation (Salakhutdinov and Mnih, ICML 2008, eq. 11 to 13). A
    user who rates more is the same with what the model has for them in the mean's place and the precision that their
    old items give: exact, though their old ratings are not known, since a precision asks only for items (recursive
    least squares: Plackett, Biometrika 1950). Of an item rated again the old rating is taken for what was predicted.
    """

    model: PlainModel
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, model: PlainModel, seen: Seen) -> Regression:
        """Prepare for a model of stars with a dot product."""
        users: NDArray[np.float64] = np.column_stack((model.users, model.user_bias))[seen.count > 0].astype(np.float64)
        width = model.dim + 1
        covariance = np.cov(users, rowvar=False).reshape(width, width) if len(users) > 1 else np.eye(width)
        covariance += 1e-6 * max(float(np.trace(covariance)) / width, 1e-9) * np.eye(width)
        error = _ERROR * (model.scale[1] - model.scale[0]) or 1.0
        mean: NDArray[np.float64] = users.mean(axis=0)
        return cls(model, mean, np.linalg.inv(covariance).astype(np.float64), error)

    def new(self, told: Told) -> tuple[Floats, float]:
        """See Fold."""
        if not len(told.rows):
            return np.zeros(self.model.dim, np.float32), 0.0
        return self._solved(self.mean, told.rows, told)

    def moved(self, user: int, old: Rows, vector: Floats, bias: float, told: Told) -> tuple[Floats, float]:
        """See Fold."""
        if not len(told.rows):
            return vector, bias
        return self._solved(np.append(vector, bias).astype(np.float64), np.union1d(old, told.rows), told)

    def _solved(self, begin: NDArray[np.float64], known: Rows, told: Told) -> tuple[Floats, float]:
        ones = np.ones(len(known))
        keys = np.column_stack((self.model.items[known], ones)).astype(np.float64)
        rated = keys[np.searchsorted(known, told.rows)]
        left = told.stars - self.model.offset - self.model.item_bias[told.rows] - rated @ begin
        at = self.precision * self.error**2 + keys.T @ keys
        found = begin + np.linalg.solve(at, rated.T @ left)
        return found[:-1].astype(np.float32), float(found[-1])

    def added(self, told: Told, vector: NDArray[np.float64], item: NDArray[np.float64]) -> Added:
        """See Fold. Besides, there is the mean of the users: an item adds what its rating says beyond them."""
        keys = np.column_stack((self.model.items[told.rows], np.ones(len(told.rows)))).astype(np.float64)
        left = told.stars - self.model.offset - self.model.item_bias[told.rows] - keys @ self.mean
        at = self.precision * self.error**2 + keys.T @ keys
        return Added(left * (keys @ np.linalg.solve(at, np.append(item, 0.0))), float(self.mean[:-1] @ item))


class Alike(_Ranked):
    """The mean of the users whose histories are most like somebody's, for models that have no closed form.

    likeness = (sum of the weights of the items that they both have) / sqrt(items of the user); the 20 most alike count
    by its cube. With a model of stars the bias is what is left over of the ratings, on average and shrunken.
    """

    def __init__(self, model: PlainModel, seen: Seen) -> None:
        self.model, self.count = model, np.maximum(1, seen.count)
        users = np.repeat(np.arange(len(seen.count)), seen.count)
        self.by_item = Seen.of(seen.item, users, len(model.items))
        self.left_out = -1

    def _without(self, user: int) -> Alike:
        """Nobody is made of themselves."""
        other = object.__new__(Alike)
        vars(other).update(vars(self), left_out=user)
        return other

    def new(self, told: Told) -> tuple[Floats, float]:
        """See Fold."""
        at, users = self.by_item.of_users(told.rows)
        alike = np.bincount(users, told.weight[at], minlength=len(self.count)) / np.sqrt(self.count)
        if 0 <= self.left_out < len(alike):
            alike[self.left_out] = 0
        best = _largest(alike, min(_ALIKE, len(alike)))
        weight = np.maximum(alike[best], 0) ** _POWER
        if not weight.any():
            return np.zeros(self.model.dim, np.float32), 0.0
        weight /= weight.sum()
        vector = (weight @ self.model.users[best]).astype(np.float32)
        bias = float(weight @ self.model.user_bias[best])
        if self.model.link == "stars":
            query = self.model.folded(vector[None], bias)
            left = told.stars - self.model.score(query, told.rows)[0]
            bias += float(np.nansum(left)) / (np.count_nonzero(~np.isnan(left)) + 5)
        return vector, bias

    def added(self, told: Told, vector: NDArray[np.float64], item: NDArray[np.float64]) -> None:
        """See Fold: a perceptron is no sum."""
        return None


def _largest(values: NDArray[np.float64], n: int) -> Rows:
    """Return the rows of the n largest values; of equal ones the first, so that the rest does not matter."""
    edge = np.partition(values, len(values) - n)[len(values) - n]
    found = np.flatnonzero(values >= edge)
    return found[np.argsort(-values[found], kind="stable")[:n]]
