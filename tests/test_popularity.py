"""Rankings that are the same for everybody."""

from unittest.mock import patch

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.data.ratings import Ratings
from recsys_embed.evaluation.baselines import SplitPositives, baselines
from recsys_embed.models.ease import Ease
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
    best = first_of("recent_popularity", train, valid)
    assert ratings.items.ids(np.array([best]))[0] == 11
    assert recent_popularity(train, 0.1).index.order[0] != best
    assert (
        first_of("recent_popularity", train, valid.take(np.arange(0))) == recent_popularity(train, 0.1).index.order[0]
    )


def first_of(name, train, valid):
    """The item that a baseline ranks first."""
    return dict(baselines(SplitPositives(train, valid, train)))[name].index.order[0]


def test_weights_count_in_baselines_where_they_help():
    """Item 2 is taken by most and item 1 with the highest weights; later everybody takes one of the two."""
    rows = [(f"u{n}", item, weight, n) for n in range(40) for item, weight in ((0, 1.0), (2, 1.0)) if n % 4 or item]
    rows += [(f"u{n}", 1, 100.0, n) for n in range(0, 40, 8)]
    frame = pl.DataFrame(rows, schema=["user", "item", "weight", "time"], orient="row")
    later = pl.DataFrame({"user": [f"v{n}" for n in range(9)], "item": [1] * 9, "weight": [1.0] * 9, "time": [99] * 9})
    for wanted in (1, 2):
        both = pl.concat([frame, later.with_columns(item=pl.lit(wanted, pl.Int64))])
        ratings = Ratings.from_frame(both, weight="weight")
        train, valid = ratings.take(ratings.time < 99), ratings.take(ratings.time == 99)
        for name in ("popularity", "recent_popularity"):
            assert first_of(name, train, valid) == wanted, name


def test_ease_with_weights_is_that_of_the_weighted_matrix():
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"user": np.arange(60) % 12, "item": np.arange(60) // 12 * 2 + np.arange(60) % 3 % 2})
    frame = frame.unique(maintain_order=True).with_columns(
        weight=pl.Series(random.random(60)[: len(frame.unique())] + 0.1)
    )
    ratings = Ratings.from_frame(frame, weight="weight")
    amounts = ratings.weight / ratings.weight.mean()
    x = ratings.matrix(amounts).toarray().astype(float)
    inverse = np.linalg.inv(x.T @ x + 5 * np.eye(x.shape[1]))
    expected = np.eye(len(inverse)) - inverse / np.diag(inverse)
    ease = Ease(ratings, amounts)
    np.testing.assert_allclose(ease.weights(5.0), expected, atol=1e-4)
    with patch("recsys_embed.models.ease.use_kernel", lambda *_: True):
        np.testing.assert_allclose(ease.fit(5.0).scores(np.arange(12)), x @ expected, atol=1e-4)
