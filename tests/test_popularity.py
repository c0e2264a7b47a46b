"""Rankings that are the same for everybody."""

from unittest.mock import patch

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.baselines import choose_recent_share
from recsys_embed.models.popularity import recent_popularity
from recsys_embed.retrieval import fixed_order
from recsys_embed.retrieval.exact import ExactIndex
from recsys_embed.retrieval.fixed_order import FixedOrderIndex


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 100, 1 << 24]))
def test_one_order_for_all_is_the_exact_index(seed, k, block):
    random = np.random.default_rng(seed)
    n, b = random.integers(1, 9, 2)
    scores = random.integers(0, 4, n).astype(np.float32)  # with ties
    allowed = None if random.random() < 0.5 else random.random(n) < 0.6
    exclude = tuple(np.nonzero(random.random((b, n)) < 0.4))
    exact = ExactIndex(scores[:, None]).search(np.ones((b, 1), np.float32), k, allowed, exclude)
    with patch.object(fixed_order, "BLOCK", block):
        fixed = FixedOrderIndex(scores).search(np.ones((b, 1), np.float32), k, allowed, exclude)
    for one, other in zip(exact, fixed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_recent_popularity_looks_at_the_newest_rows():
    frame = pl.DataFrame({"user": list(range(20)), "item": [1] * 17 + [2, 2, 3], "time": list(range(20))})
    ratings = Ratings.from_frame(frame)
    ranked = recent_popularity(ratings, 0.15).index.search(np.ones((1, 1), np.float32), 3)[1]
    assert ratings.items.ids(ranked[0]).to_list() == [2, 3, 1]


def test_recent_popularity_takes_the_window_that_is_best_on_validation():
    n = 3000
    time = np.arange(n)
    item = np.where(time < 2900, time % 10, 10 + (time >= 2960))  # item 11 is what everybody takes lately
    frame = pl.DataFrame({"user": [f"u{t}" for t in time], "item": item, "time": time})
    ratings = Ratings.from_frame(frame)
    train, valid = ratings.take(time < 2990), ratings.take(time >= 2990)
    share = choose_recent_share(train, valid)
    best = recent_popularity(train, share).index.order[0]
    assert ratings.items.ids(np.array([best]))[0] == 11
    assert recent_popularity(train, 0.1).index.order[0] != best
    assert choose_recent_share(train, valid.take(np.arange(0))) == 0.1
