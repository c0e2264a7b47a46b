import datetime
import hashlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_embed.data import ratings as table
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.user_items import UserItems
from recsys_embed.errors import DataError


def test_a_frame_comes_back_as_it_went_in(frame):
    ratings = Ratings.from_frame(frame)
    back = ratings.frame().sort("user_id", "item_id")
    assert back.equals(frame.sort("user_id", "item_id").with_columns(pl.col("rating").cast(pl.Float32)))


def test_pandas_and_row_order_make_no_difference(frame):
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    one, other = Ratings.from_frame(frame), Ratings.from_frame(shuffled.to_pandas())
    assert one.users == other.users and one.items == other.items
    assert one.frame().sort("user_id", "item_id").equals(other.frame().sort("user_id", "item_id"))


@pytest.mark.parametrize(("policy", "value"), [("last", 5.0), ("first", 1.0), ("mean", 3.0), ("sum", 9.0)])
def test_duplicates_follow_the_stated_policy(policy, value):
    frame = pl.DataFrame(
        {"user": [1, 1, 1, 2], "item": [1, 1, 1, 1], "rating": [1.0, 5.0, 3.0, 2.0], "time": [1, 9, 5, 2]}
    )
    ratings = Ratings.from_frame(frame, duplicates=policy)
    assert ratings.n_duplicates == 2
    assert dict(zip(ratings.frame()["user_id"], ratings.frame()["rating"], strict=True)) == {1: value, 2: 2.0}


def test_without_times_the_last_row_of_the_file_wins():
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [1, 1, 1], "rating": [4.0, 2.0, 1.0]})
    assert Ratings.from_frame(frame).value.max() == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": [1.0, float("nan"), float("inf")]}, "NaN or infinite in rows 2, 3"),
        ({"rating": ["1", "x", "2"]}, "'x' is not a number in row 2"),
        ({"rating": [1.0, None, 2.0]}, "rating is missing in row 2"),
        ({"user": [1, None, 2]}, "user id is missing in row 2"),
        ({"time": ["1", "yesterday", "3"]}, "'yesterday' is neither seconds since 1970 nor a date in row 2"),
    ],
)
def test_bad_values_are_named_with_their_rows(change, message):
    frame = pl.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0], **change})
    with pytest.raises(DataError, match=message):
        Ratings.from_frame(frame)


def test_missing_columns_empty_frames_and_duplicates_are_refused():
    frame = pl.DataFrame({"user": [1, 1], "item": [2, 2]})
    with pytest.raises(DataError, match="no column 'who'"):
        Ratings.from_frame(frame, user="who")
    with pytest.raises(DataError, match="no column for the item among 'user', 'thing'"):
        Ratings.from_frame(frame.rename({"item": "thing"}))
    with pytest.raises(DataError, match="no row"):
        Ratings.from_frame(frame.head(0))
    with pytest.raises(DataError, match="more than once in rows 1, 2"):
        Ratings.from_frame(frame, duplicates="error")


def test_times_are_seconds_whatever_they_came_as():
    moment = datetime.datetime(2001, 9, 9, 1, 46, 40)
    for times in ([10**9] * 2, [moment] * 2, ["2001-09-09 01:46:40"] * 2, ["1000000000"] * 2):
        frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "time": times})
        assert Ratings.from_frame(frame).time.tolist() == [10**9] * 2
    stamps = pd.DataFrame({"user": [1, 2], "item": [1, 2], "time": pd.to_datetime(["2001-09-09 01:46:40"] * 2)})
    assert Ratings.from_frame(stamps).time.tolist() == [10**9] * 2


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 10)), unique=True)


@given(pairs, st.lists(st.integers(0, 6), max_size=9))
def test_seen_gives_every_user_exactly_the_own_items(rows, asked):
    user, item = (np.array([r[side] for r in rows], dtype=np.int64) for side in (0, 1))
    seen = UserItems.of(user, item, 7)
    assert all(seen[u].tolist() == sorted(i for v, i in rows if v == u) for u in range(7))
    which, items = seen.pairs_of(np.array(asked, dtype=np.int64))
    assert [(w, i) for w, i in zip(which, items, strict=True)] == [(p, i) for p, u in enumerate(asked) for i in seen[u]]


@given(pairs)
def test_union_of_parts_is_the_whole(rows):
    user, item = (np.array([r[side] for r in rows], dtype=np.int64) for side in (0, 1))
    half = np.arange(len(rows)) % 2 == 0
    whole = UserItems.of(user[half], item[half], 7).union(UserItems.of(user[~half], item[~half], 7))
    assert whole.indices.tolist() == UserItems.of(user, item, 7).indices.tolist()


def test_equal_data_has_an_equal_digest(frame, ratings):
    assert Ratings.from_frame(frame).digest() == ratings.digest()
    assert ratings.take(np.arange(len(ratings) - 1)).digest() != ratings.digest()


def test_pairs_are_hashed_in_parts_to_the_same_digest(ratings, monkeypatch):
    whole = ratings.pairs_digest()
    monkeypatch.setattr(table, "_HASH_CHUNK", 7)
    assert ratings.pairs_digest() == whole
    lines = ratings.frame().select(pl.col("user_id", "item_id").cast(pl.String)).sort("user_id", "item_id")
    assert whole == hashlib.sha256(lines.write_csv().encode()).hexdigest()[:16]
