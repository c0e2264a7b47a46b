"""Cold-start evaluation: how well items without a training rating are ranked."""

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
    """Measure how the cold items of `test`, those without a training rating, are ranked.

    Returns {"ndcg_at_10", "recall_at_20", "auc", "users", "rows", "items"} for a ranking of the cold items alone, and
    under "all" the same for a ranking of all items, where all test rows are relevant and seen items are excluded.
    counts: training ratings per item. auc: the share of (relevant, other) pairs in the right order; ties count half.
    """
    cold_only = cold_only_metrics(ranker, test, counts, resamples)
    known = np.flatnonzero((counts > 0) | (test.item_counts > 0))
    return {**cold_only, "all": _measure(ranker, test, seen, known, resamples)}


def cold_only_metrics(ranker: Ranker, test: Ratings, counts: Rows, resamples: int = 0) -> dict[str, Any]:
    """Measure how the cold items of `test` are ranked among themselves: the first part of `cold_metrics`."""
    cold = np.flatnonzero((counts == 0) & (test.item_counts > 0))
    rows = test.take(np.isin(test.item, cold))
    return {**_measure(ranker, rows, UserItems.empty(len(test.users)), cold, resamples), "items": len(cold)}


def evaluate_cold(recommender: Recommender, test: Ratings, resamples: int = 1000) -> dict[str, Any] | None:
    """Measure how a model with descriptions ranks the items of `test` that it was not fitted on; see `cold_metrics`.

    Returns None if the model has no descriptions, or the test no such item.
    """
    test, _ = align_to_model(recommender, test)
    if recommender.content_model is None or not (recommender.item_counts[test.item] == 0).any():
        return None
    return cold_metrics(recommender.state.ranker, test, recommender.excluded, recommender.item_counts, resamples)


def _measure(ranker: Ranker, test: Ratings, seen: UserItems, items: Rows, resamples: int) -> dict[str, Any]:
    """Rank some item rows for every user of `test`, without the items they have seen."""
    relevant = UserItems.of(test.user, test.item, len(test.users))
    users = np.flatnonzero(relevant.count)
    column = np.full(len(test.items), -1)
    column[items] = np.arange(len(items))
    values = np.zeros((len(users), len(_NAMES)))
    step = max(1, BLOCK // max(1, len(test.items)))
    for start in range(0, len(users), step):
        block = users[start : start + step]
        table = ranker.scores(block)[:, items]
        is_relevant, is_seen = np.zeros(table.shape, bool), np.zeros(table.shape, bool)
        for mask, (line, item) in ((is_relevant, relevant.pairs_of(block)), (is_seen, seen.pairs_of(block))):
            ranked = column[item] >= 0
            mask[line[ranked], column[item[ranked]]] = True
        table[is_seen] = -np.inf
        best = topk(table, 20)[1]
        hit = np.take_along_axis(is_relevant, np.maximum(best, 0), 1) & (best >= 0)
        count = is_relevant.sum(axis=1)
        values[start : start + len(block)] = np.column_stack(
            (metrics.ndcg(hit, count, 10), metrics.recall(hit, count, 20), auc(table, is_relevant, is_seen))
        )
    means = values.mean(axis=0) if len(users) else np.full(len(_NAMES), np.nan)
    result: dict[str, Any] = dict(zip(_NAMES, means.tolist(), strict=True))
    if resamples:
        low, high = metrics.interval(values, resamples)
        result["intervals"] = {n: [float(a), float(b)] for n, a, b in zip(_NAMES, low, high, strict=True)}
    return result | {"users": len(users), "rows": len(test)}


def auc(table: Floats, relevant: metrics.Hits, excluded: metrics.Hits) -> metrics.Values:
    """Return each line's area under the ROC curve: the share of (relevant, other) pairs in the right order.

    Ties count half. Hidden items, whose score is -inf, do not count; a line where all others are relevant has 1.
    """
    from scipy.stats import rankdata

    rank = rankdata(table, axis=1) - excluded.sum(axis=1, keepdims=True)  # hidden items have the lowest ranks
    count = relevant.sum(axis=1)
    other = table.shape[1] - excluded.sum(axis=1) - count
    below = (rank * relevant).sum(axis=1) - count * (count + 1) / 2
    return np.where(count * other > 0, below / np.maximum(count * other, 1), 1.0)
