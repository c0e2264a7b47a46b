"""Items that had no rating in training: how well they are ranked, and what simpler means would come to."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.evaluation import metrics
from recsys_embed.evaluation.evaluate import align_to_model
from recsys_embed.models.ranker import Ranker
from recsys_embed.recommender import Recommender
from recsys_embed.retrieval.exact import BLOCK
from recsys_embed.retrieval.topk import topk

_NAMES = ("ndcg_at_10", "recall_at_20", "auc")


def cold_metrics(ranker: Ranker, test: Ratings, seen: UserItems, counts: Rows, resamples: int = 0) -> dict[str, Any]:
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
    return {**_measure(ranker, rows, UserItems.nothing(len(test.users)), cold, resamples), "items": len(cold)}


def evaluate_cold(recommender: Recommender, test: Ratings, resamples: int = 1000) -> dict[str, Any] | None:
    """Measure how a model with descriptions ranks the items of `test` that it was not fitted on, as `cold_metrics`.

    Returns None where the model has no descriptions, or the test no such item.
    """
    test, _ = align_to_model(recommender, test)
    if recommender.content_model is None or not (recommender.counts[test.item] == 0).any():
        return None
    return cold_metrics(Ranker.of(recommender.model), test, recommender.hidden, recommender.counts, resamples)


def _measure(ranker: Ranker, test: Ratings, seen: UserItems, among: Rows, resamples: int) -> dict[str, Any]:
    """Rank the items `among` for every user of `test`, without what the user has seen."""
    relevant = UserItems.of(test.user, test.item, len(test.users))
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
        ranked = topk(table, 20)[1]
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
