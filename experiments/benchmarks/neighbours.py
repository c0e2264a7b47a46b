"""Item neighbours of very many items: time and peak memory.

    python experiments/benchmarks/neighbours.py [--items 1000000] [--users 500000] [--ratings 10000000]

Made-up data: users draw most of their items from one of 1,000 groups, and popularity is skewed.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import polars as pl

from recsys_embed.data.ratings import Ratings
from recsys_embed.data.vocab import Vocab
from recsys_embed.kernels import available
from recsys_embed.models.item_weights import Histories
from recsys_embed.models.local_ridge import LocalRidge, Penalty


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("items", 1_000_000), ("users", 500_000), ("ratings", 10_000_000), ("neighbours", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    user = np.sort(random.integers(0, given.users, given.ratings))
    size = given.items // 1000
    group = np.where(
        random.random(given.ratings) < 0.8,
        random.integers(0, 1000, given.users)[user],
        random.integers(0, 1000, given.ratings),
    )
    item = group * size + (size * random.random(given.ratings) ** 3).astype(np.int64)
    pairs = np.unique(user * given.items + item)
    user, item = np.divmod(pairs, given.items)
    vocabs = Vocab(pl.Series(np.arange(given.users)), "user"), Vocab(pl.Series(np.arange(given.items)), "item")
    ratings = Ratings(*vocabs, user, item, np.ones(len(user), np.float32))
    del pairs, group
    available("neighbours")  # compiled before the clock starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    ridge = LocalRidge(ratings, given.neighbours)
    count = ridge._rows[2]
    counted = time.perf_counter()
    weights = ridge.fit([Penalty(80.0, 1.0)])[0]
    fitted = time.perf_counter()
    histories = Histories.of(ratings.matrix())
    scored = time.perf_counter()
    for row in range(100):
        weights.scores(histories[row : row + 1].normalized())
    print(
        f"{len(ratings):,} ratings, {given.items:,} items x {given.neighbours}: {count.sum():,} co-occurrences in "
        f"{counted - start:.1f} s, regressions {fitted - counted:.1f} s, {len(weights.target):,} weights; "
        f"a user's scores {(time.perf_counter() - scored) * 10:.2f} ms; peak "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB ({before:.2f} before)"
    )


if __name__ == "__main__":
    main()
