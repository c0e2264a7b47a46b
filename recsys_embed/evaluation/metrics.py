"""Ranking and rating metrics, as functions of plain arrays.

Ranking metrics take hits (bool [users, k], whether the item at each rank is relevant) and the number of relevant items
of each user. Callers leave out users without relevant items. Lists shorter than k (in a small catalogue) are padded
with misses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems

Hits = NDArray[np.bool_]
Values = NDArray[np.float64]

# Resampling weights per block: 4 MB, which fits a cache.
WEIGHTS = 1 << 19


def hits(ranked: Rows, relevant: UserItems, users: Rows) -> Hits:
    """Return whether each ranked item [b, k] is relevant to its user; a padding row of -1 is a miss."""
    line, item = relevant.pairs_of(users)
    width = int(max(ranked.max(initial=0), item.max(initial=0))) + 1
    relevant_keys = line * width + item  # ascending, as `UserItems` is
    if not len(relevant_keys):
        return np.zeros(ranked.shape, bool)
    keys = np.arange(len(users))[:, None] * width + ranked
    position = np.minimum(np.searchsorted(relevant_keys, keys), len(relevant_keys) - 1)
    return (relevant_keys[position] == keys) & (ranked >= 0)


def ndcg(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return the normalized discounted cumulative gain, with binary gains and the discount 1 / log2(rank + 1).

    The ideal list has min(k, relevant) hits at its top (Järvelin and Kekäläinen, ACM TOIS 2002).
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discount)))[np.minimum(relevant, k)]
    gains: Values = hit[:, :k] @ discount[: hit[:, :k].shape[1]]
    return gains / ideal


def recall(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return the share of the relevant items that are in the list."""
    share: Values = hit[:, :k].sum(axis=1) / relevant
    return share


def precision(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return the share of the k positions that hold a relevant item."""
    share: Values = hit[:, :k].sum(axis=1) / k
    return share


def average_precision(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return the sum of the precision at each hit, divided by min(k, relevant)."""
    top = hit[:, :k]
    precision_at_rank = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    mean: Values = (precision_at_rank * top).sum(axis=1) / np.minimum(relevant, k)
    return mean


def reciprocal_rank(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return one over the rank of the first hit, or 0 without a hit."""
    top = hit[:, :k]
    return np.where(top.any(axis=1), 1 / (np.argmax(top, axis=1) + 1), 0.0)


def hit_rate(hit: Hits, relevant: Rows, k: int) -> Values:
    """Return 1 if the list has a relevant item, else 0."""
    return hit[:, :k].any(axis=1).astype(float)


METRICS: dict[str, Callable[[Hits, Rows, int], Values]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit": hit_rate,
}


def gini(exposure: Rows) -> float:
    """Return how unevenly exposure [n] is distributed over items: 0 if equally, (n - 1) / n if one item has it all.

    It is the mean difference of two items' exposures over twice the mean exposure (Gini, 1912); 0 without exposure.
    """
    exposure = np.sort(exposure).astype(float)
    n, total = len(exposure), exposure.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ exposure / (n * total)) if total else 0.0


def rmse(predicted: NDArray[np.floating], rating: NDArray[np.floating]) -> float:
    """Return the root mean squared error, in the unit of the ratings."""
    return float(np.sqrt(np.mean((predicted.astype(float) - rating) ** 2)))


def mae(predicted: NDArray[np.floating], rating: NDArray[np.floating]) -> float:
    """Return the mean absolute error, in the unit of the ratings."""
    return float(np.mean(np.abs(predicted.astype(float) - rating)))


@cache
def _poisson() -> Values:
    """Return the quantiles of a Poisson(1) variable at the midpoints of 65,536 equal intervals."""
    cumulative = np.cumsum([math.exp(-1) / math.factorial(n) for n in range(12)])
    return np.searchsorted(cumulative, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(float)


def resampled_means(per_user: Values, resamples: int, seed: int = 0) -> Values:
    """Return bootstrap means over users, [resamples, metrics], of values [users, metrics].

    Each resample gives every user a Poisson(1) weight (Chamandy et al., 2012), which approximates drawing users with
    replacement and needs only a block of weights in memory. Probabilities are rounded to 1 / 65,536, so that 16 random
    bits make a weight. With many users, fewer resamples are enough, and fewer are drawn.
    """
    users = len(per_user)
    resamples = int(np.clip(50_000_000 // max(users, 1), 100, resamples)) if resamples else 0
    random = np.random.default_rng(seed)
    columns, sums = np.column_stack((per_user, np.ones(users))), np.zeros((resamples, per_user.shape[1] + 1))
    for start in range(0, users, size := max(1, WEIGHTS // max(resamples, 1))):
        block = columns[start : start + size]
        sums += _poisson()[random.integers(0, 1 << 16, (resamples, len(block)), np.uint16)] @ block
    sums, sizes = sums[:, :-1], sums[:, -1]
    means: Values = sums[sizes > 0] / sizes[sizes > 0, None]  # with few users, a resample may draw none
    return means


def interval(per_user: Values, resamples: int, seed: int = 0) -> tuple[Values, Values]:
    """Return the 95 % bootstrap intervals (low, high) of the means over users, for values [users, metrics]."""
    means = resampled_means(per_user, resamples, seed)
    if not len(means):
        return np.full(per_user.shape[1], np.nan), np.full(per_user.shape[1], np.nan)
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return low, high
