import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recsys_embed.data.checks import check_no_leakage, check_trainable
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import split_cold_items, split_leave_last, split_random, split_time
from recsys_embed.errors import DataError, SettingError


def world(counts, seed=0):
    random = np.random.default_rng(seed)
    rows = [(u, i) for u, n in enumerate(counts) for i in random.permutation(40)[:n]]
    user, item = np.array(rows).T
    return Ratings.from_frame(pl.DataFrame({"user": user, "item": item, "time": random.integers(0, 50, len(rows))}))


counts = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@given(counts, st.sampled_from(["random", "last", "time"]), st.integers(0, 5))
def test_a_split_loses_nothing_and_repeats_nothing(sizes, kind, seed):
    ratings = world(sizes, seed)
    split = {"random": lambda: split_random(ratings, 0.2, 0.2, seed), "last": lambda: split_leave_last(ratings),
             "time": lambda: split_time(ratings, 0.2, 0.2)}[kind]()  # fmt: skip
    assert sum(map(len, split)) == len(ratings)
    pairs = np.concatenate([part.user * 40 + part.item for part in split])
    assert len(np.unique(pairs)) == len(ratings)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        check_no_leakage(split[one], split[other], "one", "other")


@given(counts, st.integers(0, 5))
def test_random_shares_hold_for_every_user(sizes, seed):
    ratings = world(sizes)
    train, valid, test = split_random(ratings, 0.1, 0.1, seed)
    for user, n in enumerate(sizes):
        row = ratings.users.rows([user])[0]
        share = [int((part.user == row).sum()) for part in (train, valid, test)]
        assert share[0] >= 1
        assert share[1] in (0, np.floor(n * 0.1 + 0.5)) and abs(share[2] - 0.1 * n) <= 0.5 + (n < 3)


def test_random_is_a_function_of_its_seed():
    ratings = world([20] * 5)
    assert np.array_equal(split_random(ratings, seed=1).test.item, split_random(ratings, seed=1).test.item)
    assert not np.array_equal(split_random(ratings, seed=1).test.item, split_random(ratings, seed=2).test.item)


def test_leave_last_holds_out_the_newest_two():
    frame = pl.DataFrame({"user": [1, 1, 1, 2, 2], "item": [1, 2, 3, 1, 2], "time": [30, 10, 20, 5, 6]})
    train, valid, test = split_leave_last(Ratings.from_frame(frame))
    assert test.frame()["item_id"].to_list() == [1] and valid.frame()["item_id"].to_list() == [3]
    assert sorted(train.frame()["user_id"].to_list()) == [1, 2, 2]
    _, valid, test = split_leave_last(Ratings.from_frame(frame), test=False)
    assert valid.frame()["item_id"].to_list() == [1] and not len(test)


def test_by_time_nothing_in_train_is_newer_than_test():
    train, valid, test = split_time(world([30] * 6), 0.1, 0.3)
    assert train.time.max() < valid.time.min() <= valid.time.max() < test.time.min()
    assert len(test) > 1.5 * len(valid)


def test_what_cannot_be_split_is_refused(ratings):
    with pytest.raises(SettingError, match="sum to less than 1"):
        split_random(ratings, 0.6, 0.5)
    timeless = Ratings.from_frame(ratings.frame().drop("timestamp"))
    for split in (split_leave_last, split_time):
        with pytest.raises(DataError, match="needs times"):
            split(timeless)


def test_leakage_and_tiny_data_are_refused(ratings):
    with pytest.raises(DataError, match=r"pairs of train are in test too, e.g. user 10\d and item i\d\d"):
        check_no_leakage(ratings, ratings.take(np.arange(3)), "train", "test")
    with pytest.raises(DataError, match="1 user and"):
        check_trainable(ratings.take(ratings.user == 0))
    with pytest.raises(DataError, match="and 1 item;"):
        check_trainable(ratings.take(ratings.item == 3))


def split_mix(position, stream):
    """The number at a position of SplitMix64, in Python's integers."""
    bits = (position * 0x9E3779B97F4A7C15 + stream) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def test_random_is_by_user_and_then_by_the_numbers_of_the_pairs():
    n = 80_000  # so many that the first bits of their numbers are the same for several
    ratings = Ratings.from_frame(pl.DataFrame({"user": np.arange(n) % 2, "item": np.arange(n)}))
    stream = int(np.random.SeedSequence(3).generate_state(1, np.uint64)[0])
    random = np.array([split_mix(pair, stream) >> 11 for pair in ((np.arange(n) % 2) * n + np.arange(n)).tolist()])
    split = split_random(ratings, 0.1, 0.2, 3)
    for user in range(2):
        rows = np.flatnonzero(ratings.user == user)
        drawn = rows[random[rows].argsort()]
        for part, (begin, end) in ((split.test, (0, 0.2)), (split.valid, (0.2, 0.3))):
            expected = drawn[round(len(rows) * begin) : round(len(rows) * end)]
            assert np.array_equal(part.item[part.user == user], np.sort(ratings.item[expected]))


@given(counts, st.sampled_from(["random", "cold", "time", "edges"]), st.integers(0, 5))
def test_the_order_of_rows_decides_nothing_nor_do_items_without_ratings(sizes, kind, seed):
    frame = world(sizes, seed).frame()
    shuffled = frame.sample(fraction=1, shuffle=True, seed=seed)

    def split(rows, others=()):
        ratings = Ratings.from_frame(rows, shared_ids=kind == "edges").with_items(pl.Series(others, dtype=pl.Int64))
        if kind == "time":
            return split_time(ratings, 0.2, 0.2)
        return (split_cold_items if kind == "cold" else split_random)(ratings, valid=0.2, test=0.2, seed=seed)

    try:
        parts = split(frame)
    except (DataError, SettingError):
        assume(False)
    assert [part.pairs_digest() for part in parts] == [part.pairs_digest() for part in split(shuffled, [-1, 100])]
