"""Splits: pure functions from Ratings to (train, valid, test), built from `Ratings.partition` alone."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import at_ranks, pair_keys, stable_argsort
from recsys_embed.errors import DataError, SettingError

_CHUNK = 1 << 15  # numbers that stay in a core's cache


class Split(NamedTuple):
    """Three disjoint parts of one table of ratings, with the same vocabularies."""

    train: Ratings
    valid: Ratings
    test: Ratings


def _check_shares(valid: float, test: float) -> None:
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise SettingError(
            f"the shares of valid ({valid}) and test ({test}) must be from 0 to 1 and sum to less than 1"
        )


def _refuse_graph(ratings: Ratings, name: str) -> None:
    if ratings.is_graph:
        raise SettingError(f"--split {name} needs users and items; the edges of a graph can be split by random or time")


def _rank_within_user(user: Rows, order: Rows) -> tuple[Rows, Rows]:
    """Return the rank of each row among the rows of its user, from 0, and the number of rows of each user.

    order: a permutation that sorts the rows by user.
    """
    count = np.bincount(user)
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return rank, count


def _places(ratings: Ratings) -> tuple[Rows, Rows]:
    """Return the place of each user, and of each item, among those with ratings. So ids without any, such as those of
    an item table, change no place."""
    users, items = (np.cumsum(np.bincount(rows) > 0) - 1 for rows in (ratings.user, ratings.item))
    return users, items


def _random_of_pairs(ratings: Ratings, seed: int, places: tuple[Rows, Rows]) -> Rows:
    """Return a random integer of 53 bits [rows] for each rating, which is its pair's wherever its row stands.

    It is the number at the pair's position in the stream of SplitMix64 (Steele, Lea and Flood, 2014). places: see
    `_places`.
    """
    users, items = places
    random = pair_keys(users[ratings.user], items[ratings.item], int(items[-1]) + 1)
    stream = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    for start in range(0, len(random), _CHUNK):
        bits = random[start : start + _CHUNK].view(np.uint64)
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits += stream
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits ^= bits >> np.uint64(shift)
            bits *= np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        bits >>= np.uint64(11)
    return random


def split_random(ratings: Ratings, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Split the ratings of each user at random. The same ratings in another order of rows are split the same way.

    The parts get the whole number of ratings nearest to the given shares, and each user keeps at least one rating in
    train. For a graph, the edges are split as a whole, both directions together, and each node keeps at least one
    edge in train.
    """
    _check_shares(valid, test)
    if not len(ratings):
        return Split(ratings, ratings, ratings)
    if ratings.is_graph:
        return _split_edges(ratings, valid, test, seed)
    places = _places(ratings)

    def divide(rows: Ratings) -> Split:
        # Sort by user, then by a random number of 53 bits. Its upper 16 bits go with the user, so that two sorts do.
        random = _random_of_pairs(rows, seed, places)
        order = stable_argsort((rows.user << 16) + (random >> 37), stable_argsort(random & (2**37 - 1)))
        rank, count = _rank_within_user(rows.user, order)
        n_test = np.minimum(np.floor(count * test + 0.5), count - 1)
        n_valid = np.minimum(np.floor(count * valid + 0.5), count - 1 - n_test)
        is_test = rank < n_test[rows.user]
        is_valid = ~is_test & (rank < (n_test + n_valid)[rows.user])
        return Split(rows.take(~is_test & ~is_valid), rows.take(is_valid), rows.take(is_test))

    return Split(*ratings.partition(3, divide))


def _split_edges(ratings: Ratings, valid: float, test: float, seed: int) -> Split:
    """Split undirected edges at random. The last edge of each node in a random order stays in train."""
    ends = np.sort(np.column_stack((ratings.user, ratings.item)), axis=1)
    edges, edge_of_row = np.unique(ends, axis=0, return_inverse=True)
    random_rank = np.random.default_rng(seed).permutation(len(edges))
    last_rank = np.zeros(len(ratings.users), np.int64)
    np.maximum.at(last_rank, edges, random_rank[:, None])
    # The edges that are the last of neither of their nodes may be held out, in random order.
    candidates = np.flatnonzero((random_rank[:, None] < last_rank[edges]).all(axis=1))
    candidates = candidates[np.argsort(random_rank[candidates])]
    n_test, n_valid = (round(len(edges) * share) for share in (test, valid))
    part = np.zeros(len(edges), np.int64)  # 0 is train, 1 validation, 2 test
    part[candidates[:n_test]], part[candidates[n_test : n_test + n_valid]] = 2, 1
    train_part, valid_part, test_part = (ratings.take(part[edge_of_row.ravel()] == number) for number in range(3))
    return Split(train_part, valid_part, test_part)


def split_cold_items(
    ratings: Ratings, cold: float = 0.2, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    """Hold out whole items, so that they have no training rating, as new items have none.

    Of the items that have ratings, a random share `cold` has all its ratings in test, and another share `valid` has
    all of them in validation. The ratings of the other items are split as in `split_random`. So both held-out parts
    have ratings of items that are in train and of items that are not.
    """
    _refuse_graph(ratings, "cold-items")
    _check_shares(valid, test)
    if not (0 < cold < 1 and cold + valid < 1):
        raise SettingError(f"the shares of cold items ({cold}) and valid ({valid}) must sum to less than 1")
    rated = np.flatnonzero(ratings.item_counts)
    shuffled = np.random.default_rng(seed).permutation(rated)
    n_test, n_held_out = (round(len(rated) * share) for share in (cold, cold + valid))
    if not 0 < n_test <= n_held_out < len(rated):
        raise SettingError(f"a share of {cold} of {len(rated)} items leaves no cold item, or no other item")
    part_of_item = np.zeros(len(ratings.items), np.int64)  # 0 is train, 1 validation, 2 test
    part_of_item[shuffled[:n_test]], part_of_item[shuffled[n_test:n_held_out]] = 2, 1
    warm_rows, cold_valid, cold_test = _by_number(ratings, lambda rows: part_of_item[rows.item])
    warm = split_random(warm_rows, valid, test, seed)
    return Split(warm.train, warm.valid.concat(cold_valid), warm.test.concat(cold_test))


def _by_number(ratings: Ratings, numbered: Callable[[Ratings], Rows]) -> Split:
    """Split by a function that takes ratings and numbers them: 0 is train, 1 validation, 2 test, another no part."""

    def divide(rows: Ratings) -> Split:
        part = numbered(rows)
        return Split(*(rows.take(part == number) for number in range(3)))

    return Split(*ratings.partition(3, divide))


def split_leave_last(ratings: Ratings, test: bool = True) -> Split:
    """Hold out the last rating of each user for test and the one before it for validation.

    Ratings of the same second keep their order in the table. Users with fewer than three ratings stay in train.
    With `test=False` the last rating goes to validation.
    """
    _refuse_graph(ratings, "leave-last")
    if ratings.time is None:
        raise DataError("leave-last needs times, and this data has none: name the column with --time-col")
    if not len(ratings):
        return Split(ratings, ratings, ratings)

    def numbered(rows: Ratings) -> Rows:
        assert rows.time is not None
        rank, count = _rank_within_user(rows.user, stable_argsort(rows.user, stable_argsort(rows.time)))
        from_end = np.where((count >= 3)[rows.user], (count - 1)[rows.user] - rank, 2) + (not test)
        return 2 - np.minimum(from_end, 2)

    return _by_number(ratings, numbered)


class Cuts(NamedTuple):
    """Times in seconds since 1970: train is before `valid`, validation before `test`, and test before `end`."""

    valid: int
    test: int
    end: int


def time_cuts(times: Rows, valid: float, test: float, window: int = 0, seconds: int | None = None) -> Cuts:
    """Return where times are cut for a test window. window: how many test windows lie between it and the newest time.

    valid, test: shares of the rows. seconds: the length of a window, instead of shares; a share of 0 is an empty part.
    """
    after = int(times.max()) + 1
    if seconds is not None:
        end = after - window * seconds
        start = end - seconds * (test > 0)
        return Cuts(start - seconds * (valid > 0), start, end)
    shares = valid + (window + 1) * test, (window + 1) * test, window * test
    ranks = [round(len(times) * (1 - share)) for share in shares]
    found = zip(ranks, at_ranks(times, ranks), strict=True)
    return Cuts(*(time if rank < len(times) else after for rank, time in found))


def check_span(times: Rows, n_train: int) -> None:
    """Raise DataError if a split by time leaves nothing to train on."""
    if not n_train:
        first, last = (datetime.datetime.fromtimestamp(int(t), datetime.UTC).date() for t in (times.min(), times.max()))
        raise DataError(
            f"the split by time leaves nothing before the test and validation windows to train on: the data are from "
            f"{first} to {last}; give a shorter --window, or fewer --windows"
        )


def split_at(ratings: Ratings, cuts: Cuts) -> Split:
    """Split ratings at points in time, the same for all users."""
    return _by_number(ratings, lambda rows: np.searchsorted(np.array(cuts), np.asarray(rows.time), side="right"))


def split_time(
    ratings: Ratings, valid: float = 0.1, test: float = 0.1, window: int = 0, seconds: int | None = None
) -> Split:
    """Split at two points in time, the same for all users: the newest share is test, the one before it validation.

    window, seconds: an earlier test window, and its length, see `time_cuts`; ratings after it are in no part. Ratings
    of the same second stay together. The test part may have users and items that are not in train.
    """
    _check_shares(valid, test)
    if ratings.time is None:
        raise DataError("a split by time needs times, and this data has none: name the column with --time-col")
    if not len(ratings):
        return Split(ratings, ratings, ratings)
    split = split_at(ratings, time_cuts(ratings.time, valid, test, window, seconds))
    check_span(ratings.time, len(split.train))
    return split
