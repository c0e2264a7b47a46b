"""Ranking and rating metrics, as functions of plain arrays.

Everything starts from hits: bool [users, k], whether the item at a rank is relevant, and from the number of
relevant items of each user. A user without a relevant item has no part in any mean: the caller leaves it out.
Lists shorter than k (a small catalogue) end in misses.
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

# Weights of a block of resampled users: 4 MB, which a cache holds.
WEIGHTS = 1 << 19


def hits(ranked: Rows, relevant: UserItems, users: Rows) -> Hits:
    """Return whether each ranked item [b, k] is among its user's relevant ones; row -1 (nothing) is a miss."""
    which, item = relevant.of_users(users)
    width = int(max(ranked.max(initial=0), item.max(initial=0))) + 1
    wanted = which * width + item  # ascending, as `UserItems` is
    if not len(wanted):
        return np.zeros(ranked.shape, bool)
    asked = np.arange(len(users))[:, None] * width + ranked
    place = np.minimum(np.searchsorted(wanted, asked), len(wanted) - 1)
    return (wanted[place] == asked) & (ranked >= 0)


def ndcg(hit: Hits, relevant: Rows, k: int) -> Values:
    """Normalised discounted cumulative gain with binary gains, discount 1 / log2(rank + 1).

    The ideal list has min(k, relevant) hits at its top (Järvelin and Kekäläinen, ACM TOIS 2002).
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discount)))[np.minimum(relevant, k)]
    gains: Values = hit[:, :k] @ discount[: hit[:, :k].shape[1]]
    return gains / ideal


def recall(hit: Hits, relevant: Rows, k: int) -> Values:
    """Share of the relevant items that is in the list."""
    found: Values = hit[:, :k].sum(axis=1) / relevant
    return found


def precision(hit: Hits, relevant: Rows, k: int) -> Values:
    """Share of the k places that holds a relevant item."""
    found: Values = hit[:, :k].sum(axis=1) / k
    return found


def average_precision(hit: Hits, relevant: Rows, k: int) -> Values:
    """Mean of the precision at each hit, over min(k, relevant)."""
    cut = hit[:, :k]
    at_rank = np.cumsum(cut, axis=1) / np.arange(1, cut.shape[1] + 1)
    found: Values = (at_rank * cut).sum(axis=1) / np.minimum(relevant, k)
    return found


def reciprocal_rank(hit: Hits, relevant: Rows, k: int) -> Values:
    """One over the rank of the first hit, 0 without one."""
    cut = hit[:, :k]
    return np.where(cut.any(axis=1), 1 / (np.argmax(cut, axis=1) + 1), 0.0)


def hit_rate(hit: Hits, relevant: Rows, k: int) -> Values:
    """1 where the list has a relevant item, else 0."""
    return hit[:, :k].any(axis=1).astype(float)


METRICS: dict[str, Callable[[Hits, Rows, int], Values]] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit": hit_rate,
}


def gini(shown: Rows) -> float:
    """Return how unevenly places fall to items [n]: 0 where all have equally many, (n - 1) / n where one has all.

    The mean difference of two items' numbers, over twice their mean (Gini, 1912); 0 where no item has a place.
    """
    shown = np.sort(shown).astype(float)
    n, total = len(shown), shown.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ shown / (n * total)) if total else 0.0


def rmse(predicted: NDArray[np.floating], rating: NDArray[np.floating]) -> float:
    """Root of the mean squared error, in the unit of the ratings."""
    return float(np.sqrt(np.mean((predicted.astype(float) - rating) ** 2)))


def mae(predicted: NDArray[np.floating], rating: NDArray[np.floating]) -> float:
    """Mean absolute error, in the unit of the ratings."""
    return float(np.mean(np.abs(predicted.astype(float) - rating)))


@cache
def _poisson() -> Values:
    """Return the quantiles of a Poisson(1) variable at the middles of 65,536 equal parts."""
    below = np.cumsum([math.exp(-1) / math.factorial(n) for n in range(12)])
    return np.searchsorted(below, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(float)


def resampled_means(per_user: Values, resamples: int, seed: int = 0) -> Values:
    """Return the means of resampled users, [resamples, metrics], for values [users, metrics].

    Each resample gives every user a Poisson(1) weight (Chamandy et al., 2012), which is what drawing users with
    replacement comes to, and needs no more memory than a block of weights. Chances are rounded to a 65,536th, so that
    sixteen random bits are a weight. For many users fewer resamples do.
    """
    users = len(per_user)
    resamples = int(np.clip(50_000_000 // max(users, 1), 100, resamples)) if resamples else 0
    random = np.random.default_rng(seed)
    both, sums = np.column_stack((per_user, np.ones(users))), np.zeros((resamples, per_user.shape[1] + 1))
    for start in range(0, users, block := max(1, WEIGHTS // max(resamples, 1))):
        part = both[start : start + block]
        sums += _poisson()[random.integers(0, 1 << 16, (resamples, len(part)), np.uint16)] @ part
    sums, sizes = sums[:, :-1], sums[:, -1]
    means: Values = sums[sizes > 0] / sizes[sizes > 0, None]  # of few users a resample may draw nobody
    return means


def interval(per_user: Values, resamples: int, seed: int = 0) -> tuple[Values, Values]:
    """Return the 2.5 and 97.5 percentiles of the means of resampled users, for values [users, metrics]."""
    means = resampled_means(per_user, resamples, seed)
    if not len(means):
        return np.full(per_user.shape[1], np.nan), np.full(per_user.shape[1], np.nan)
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return low, high
