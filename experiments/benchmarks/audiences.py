"""How long the audiences of all items take beside the lists of all users: a model of a million users x 100,000 items.

    python experiments/benchmarks/audiences.py [SHARE]

Vectors of 64 random numbers; every user has 20 items. Written to Parquet: `recsys recommend --all-users --k 10`, for
SHARE (.1) of the users, and `recsys audience --all-items --k 100`, for SHARE of the items, each against all of the
other side. What is computed once (the users' means and deviations) is timed apart.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.answering.audience import iter_audiences
from recsys_embed.answering.batch import write_recommendations
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.table_files import table_writer

USERS, ITEMS, DIM, SEEN = 1_000_000, 100_000, 64, 20


def world() -> FittedState:
    random = np.random.default_rng(0)
    users, items = (random.normal(size=(n, DIM)).astype(np.float32) for n in (USERS, ITEMS))
    biases = np.zeros(USERS, np.float32), random.normal(size=ITEMS).astype(np.float32)
    drawn = np.unique(np.repeat(np.arange(USERS), SEEN) * ITEMS + random.integers(0, ITEMS, USERS * SEEN))
    seen = UserItems.of(drawn // ITEMS, drawn % ITEMS, USERS)
    vocabs = (Vocab(pl.Series(np.arange(n)), name) for n, name in ((USERS, "user"), (ITEMS, "item")))
    table = pl.DataFrame({"item_id": np.arange(ITEMS), "title": np.arange(ITEMS).astype(str)})
    counts = np.bincount(seen.indices, minlength=ITEMS)
    return FittedState(*vocabs, EmbeddingModel(users, items, *biases), seen, UserItems.empty(USERS), table, counts)


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
    state, random = world(), np.random.default_rng(1)
    some = [np.sort(random.choice(n, int(n * share), replace=False)) for n in (USERS, ITEMS)]
    state.index.search(state.model.queries(some[0][:2000]), 10)  # compiled before the clock starts
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        write_recommendations(state, Path(folder) / "lists.parquet", some[0], RecommendRequest(k=10))
        lists = time.perf_counter() - begin
        begin = time.perf_counter()
        _ = state.owners, state.user_index
        once = time.perf_counter() - begin
        begin = time.perf_counter()
        with table_writer(Path(folder) / "audiences.parquet") as append:
            for frame in iter_audiences(state, some[1], 100):
                append(frame.select("item_id", "user_id", "score", "rank"))
        audiences = time.perf_counter() - begin
    print(f"lists of {len(some[0]):,} users {lists:.0f} s, audiences of {len(some[1]):,} items {audiences:.0f} s")
    all_lists, all_audiences = lists / share, once + audiences / share
    print(f"all: lists {all_lists:.0f} s, audiences {all_audiences:.0f} s, of which once {once:.0f} s")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"ratio {all_audiences / all_lists:.2f}; {memory:,} MB at most")


if __name__ == "__main__":
    main()
