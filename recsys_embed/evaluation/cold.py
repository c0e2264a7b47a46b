"""Items that had no rating in training: how well they are ranked, and what simpler means would come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from recsys_embed.arrays import Floats, unit
from recsys_embed.content.describe import Features
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.protocol import Ranker, onto
from recsys_embed.ratings.table import Ratings, Seen
from recsys_embed.ratings.vocab import Rows
from recsys_embed.recommend.index import BLOCK, ExactIndex, top
from recsys_embed.recommend.recommender import Recommender

LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_NAMES = ("ndcg_at_10", "recall_at_20", "auc")


def cold_metrics(ranker: Ranker, test: Ratings, seen: Seen, counts: Rows, resamples: int = 0) -> dict[str, Any]:
    """Measure how the cold items of `test` are ranked: those without a training rating.

    Among the cold items alone: {"ndcg_at_10", "recall_at_20", "auc", "users", "rows", "items"}; and under "all" the
    same among all items, where all test rows are relevant and what a user has seen is left out. counts: training
    ratings of each item. auc is the share of (relevant, other) pairs in the right order, ties counting half.
    """
    alone = among_cold(ranker, test, counts, resamples)
    known = np.flatnonzero((counts > 0) | (test.counts > 0))
    return {**alone, "all": _measure(ranker, test, seen, known, resamples)}


def among_cold(ranker: Ranker, test: Ratings, counts: Rows, resamples: int = 0) -> dict[str, Any]:
    """Measure how the cold items of `test` are ranked among themselves: the first half of `cold_metrics`."""
    cold = np.flatnonzero((counts == 0) & (test.counts > 0))
    rows = test.take(np.isin(test.item, cold))
    return {**_measure(ranker, rows, Seen.nothing(len(test.users)), cold, resamples), "items": len(cold)}


def evaluate_cold(recommender: Recommender, test: Ratings, resamples: int = 1000) -> dict[str, Any] | None:
    """Measure how a model with descriptions ranks the items of `test` that it was not fitted on, as `cold_metrics`.

    Returns None where the model has no descriptions, or the test no such item.
    """
    test, _ = onto(recommender, test)
    if recommender.described is None or not (recommender.counts[test.item] == 0).any():
        return None
    return cold_metrics(Ranker.of(recommender.plain), test, recommender.hidden, recommender.counts, resamples)


def _measure(ranker: Ranker, test: Ratings, seen: Seen, among: Rows, resamples: int) -> dict[str, Any]:
    """Rank the items `among` for every user of `test`, without what the user has seen."""
    relevant = Seen.of(test.user, test.item, len(test.users))
    users = np.flatnonzero(relevant.count)
    place = np.full(len(test.items), -1)
    place[among] = np.arange(len(among))
    values = np.zeros((len(users), len(_NAMES)))
    step = max(1, BLOCK // max(1, len(test.items)))
    for start in range(0, len(users), step):
        block = users[start : start + step]
        table = ranker.scores(block)[:, among]
        wanted, hidden = np.zeros(table.shape, bool), np.zeros(table.shape, bool)
        for mask, pairs in ((wanted, relevant.of_users(block)), (hidden, seen.of_users(block))):
            inside = place[pairs[1]] >= 0
            mask[pairs[0][inside], place[pairs[1][inside]]] = True
        table[hidden] = -np.inf
        ranked = top(table, 20)[1]
        hit = np.take_along_axis(wanted, np.maximum(ranked, 0), 1) & (ranked >= 0)
        count = wanted.sum(axis=1)
        values[start : start + len(block)] = np.column_stack(
            (metrics.ndcg(hit, count, 10), metrics.recall(hit, count, 20), auc(table, wanted, hidden))
        )
    means = values.mean(axis=0) if len(users) else np.full(len(_NAMES), np.nan)
    result: dict[str, Any] = dict(zip(_NAMES, means.tolist(), strict=True))
    if resamples:
        low, high = metrics.interval(values, resamples)
        result["intervals"] = {n: [float(a), float(b)] for n, a, b in zip(_NAMES, low, high, strict=True)}
    return result | {"users": len(users), "rows": len(test)}


def auc(table: Floats, wanted: metrics.Hits, hidden: metrics.Hits) -> metrics.Values:
    """Return each line's area under the ROC curve: the share of (wanted, other) pairs that are in the right order.

    Ties count half. Hidden items take no part; a line in which everything is wanted has 1.
    """
    from scipy.stats import rankdata

    rank = rankdata(table, axis=1) - hidden.sum(axis=1, keepdims=True)  # hidden ones stand below all others
    count = wanted.sum(axis=1)
    other = table.shape[1] - hidden.sum(axis=1) - count
    below = (rank * wanted).sum(axis=1) - count * (count + 1) / 2
    return np.where(count * other > 0, below / np.maximum(count * other, 1), 1.0)


class ContentRidge:
    """Kernel ridge regression from descriptions to who rated an item; strong, and blind to what users share.

    With K the inner products of the items' features and X the ratings as ones, users' scores of an item with the
    features x are X (K + lambda I)^-1 K_x.
    """

    def __init__(self, features: Features, train: Ratings) -> None:
        self.fitted = np.flatnonzero(train.counts)
        likeness = np.asarray((features.bag @ features.bag[self.fitted].T).todense(), np.float64)
        self.likeness = likeness + features.dense @ features.dense[self.fitted].T.astype(np.float64)
        self.history = train.matrix()[:, self.fitted]

    def rank(self, regularization: float) -> Ranker:
        """Return the ranking of all items."""
        square = self.likeness[self.fitted].copy()
        square.flat[:: len(square) + 1] += regularization * square.diagonal().mean()
        weights = np.linalg.solve(square, self.likeness.T).T.astype(np.float32)
        return Ranker(ExactIndex(weights), lambda users: self.history[users].toarray())

    def mean(self, regularization: float) -> Ranker:
        """Return the ranking by the mean of all users' scores: what is expected to be popular, alike for everybody."""
        weights = self.rank(regularization).index.keys
        mean = weights @ np.asarray(self.history.mean(axis=0)).ravel()
        return Ranker(ExactIndex(mean.astype(np.float32)[:, None]), lambda users: np.ones((len(users), 1), np.float32))

    def choose(self, valid: Ratings, counts: Rows) -> float:
        """Return the regularization with the best NDCG@10 among the cold items of the validation ratings."""

        def quality(regularization: float) -> float:
            value: float = among_cold(self.rank(regularization), valid, counts)["ndcg_at_10"]
            return value

        return max(LAMBDAS, key=quality)


def content_neighbours(features: Floats, train: Ratings) -> Ranker:
    """Rank items by the sum of their cosines with what the user has rated. features: [items, f]."""
    keys, history = unit(features), train.matrix()
    return Ranker(ExactIndex(keys), lambda users: np.asarray(history[users] @ keys, np.float32))


def at_random(items: int, seed: int = 0) -> Ranker:
    """Rank by chance, differently for every user."""
    keys = np.random.default_rng(seed).normal(size=(items, 8)).astype(np.float32)

    def queries(users: Rows) -> Floats:
        return np.stack([np.random.default_rng((seed, int(u))).normal(size=8) for u in users]).astype(np.float32)

    return Ranker(ExactIndex(keys), queries)


def cold_baselines(
    features: Features | None, splits: Sequence[Ratings], words: Floats | None = None
) -> Iterator[tuple[str, Ranker]]:
    """Yield what a model of cold items must beat, by name.

    features: the same descriptions that the model has, but for pictures. splits: (train, valid, fitted): the
    regularization is chosen on valid for a fit on train, and the rankings are fitted on `fitted`. words: [items, f],
    mean word vectors.
    """
    train, valid, fitted = splits
    yield "random", at_random(len(fitted.items))
    if features is None or not (features.bag.nnz or features.dense.any()):
        return
    regularization = 3.0
    if len(valid):
        regularization = ContentRidge(features, train).choose(valid, train.counts)
    ridge = ContentRidge(features, fitted)
    yield "content_mean", ridge.mean(regularization)
    if words is not None:
        yield "word_neighbours", content_neighbours(words, fitted)
    yield "content_ridge", ridge.rank(regularization)
