"""Time and memory as users, items, ratings and dimension grow."""

from __future__ import annotations

import numpy as np
import polars as pl


def world(users: int, items: int, ratings: int, seed: int = 0, groups: int = 20) -> pl.DataFrame:
    """Return made-up ratings as skewed as MovieLens-20M, shuffled: user_id, item_id, rating (half stars), timestamp.

    How much users rate and how often items are rated are log-normal, and each of some groups of users has its own
    favourites. Every user and every item has a rating (ratings must be at least users + items), no pair stands twice.
    """
    random = np.random.default_rng(seed)
    popularity = np.log(random.lognormal(0.0, 2.0, items))
    edges = [np.cumsum(np.exp(popularity + random.normal(0.0, 1.0, items))) for _ in range(groups)]
    group = random.integers(0, groups, users)
    active = np.cumsum(random.lognormal(0.0, 1.0, users))
    every_user = np.arange(users) * items + random.integers(0, items, users)
    every_item = random.integers(0, users, items) * items + np.arange(items)
    kept = np.unique(np.concatenate((every_user, every_item)))
    pair = kept
    while len(pair) < ratings:
        drawn = np.searchsorted(active, random.random((ratings - len(pair)) * 5 // 4 + 100) * active[-1])
        of_group = group[drawn]
        for at, edge in enumerate(edges):
            mine = np.flatnonzero(of_group == at)
            drawn[mine] = drawn[mine] * items + np.searchsorted(edge, random.random(len(mine)) * edge[-1])
        pair = np.unique(np.concatenate((pair, drawn)))
    spare = np.setdiff1d(pair, kept, assume_unique=True)
    pair = random.permutation(np.concatenate((kept, random.permutation(spare)[: ratings - len(kept)])))
    user, item = np.divmod(pair, items)
    stars = np.clip(np.rint(2 * (3.2 + 0.1 * popularity[item] + random.normal(0.0, 1.0, ratings))) / 2, 0.5, 5.0)
    return pl.DataFrame(
        {
            "userId": user + 1,
            "movieId": item * 3 + 1,
            "rating": stars.astype(np.float32),
            "timestamp": random.integers(800_000_000, 1_400_000_000, ratings),
        }
    )
