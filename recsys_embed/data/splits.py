"""Splits: pure functions from Ratings to (train, valid, test), made of `Ratings.take` alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import ordered
from recsys_embed.errors import DataError, SettingError


class Split(NamedTuple):
    """Three parts of one table, with the same vocabularies; no row is in two of them."""

    train: Ratings
    valid: Ratings
    test: Ratings


def _shares(valid: float, test: float) -> None:
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise SettingError(
            f"the shares of valid ({valid}) and test ({test}) must be from 0 to 1 and sum to less than 1"
        )


def _within_user(user: Rows, order: Rows) -> tuple[Rows, Rows]:
    """Return each row's place among its user's rows in an order by user, and each user's number of rows."""
    count = np.bincount(user)
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return place, count


def split_random(ratings: Ratings, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Split each user's rows at random: the nearest whole number to the given shares, and one row stays in train.

    Of a graph, edges are split, both directions together: shares of all of them, and one of each node stays in train.
    """
    _shares(valid, test)
    if not len(ratings):
        return Split(ratings, ratings, ratings)
    if ratings.shared:
        return _split_edges(ratings, valid, test, seed)
    # By user and then by random number, which is 53 bits: 16 of them go with the user, so that two sorts are enough.
    random = (np.random.default_rng(seed).random(len(ratings)) * 2.0**53).astype(np.int64)
    by_chance = ordered((ratings.user << 16) + (random >> 37), ordered(random & (2**37 - 1)))
    place, count = _within_user(ratings.user, by_chance)
    n_test = np.minimum(np.floor(count * test + 0.5), count - 1)
    n_valid = np.minimum(np.floor(count * valid + 0.5), count - 1 - n_test)
    is_test = place < n_test[ratings.user]
    is_valid = ~is_test & (place < (n_test + n_valid)[ratings.user])
    return Split(ratings.take(~is_test & ~is_valid), ratings.take(is_valid), ratings.take(is_test))


def _split_edges(ratings: Ratings, valid: float, test: float, seed: int) -> Split:
    ends = np.sort(np.column_stack((ratings.user, ratings.item)), axis=1)
    edges, of_row = np.unique(ends, axis=0, return_inverse=True)
    random = np.random.default_rng(seed).permutation(len(edges))
    last = np.zeros(len(ratings.users), np.int64)
    np.maximum.at(last, edges, random[:, None])
    # A node's last edge in the drawn order stays in train; the others are held out in that order.
    free = np.flatnonzero((random[:, None] < last[edges]).all(axis=1))
    free = free[np.argsort(random[free])]
    held = [round(len(edges) * share) for share in (test, valid)]
    part = np.zeros(len(edges), np.int64)
    part[free[: held[0]]], part[free[held[0] : sum(held)]] = 2, 1
    train, middle, end = (ratings.take(part[of_row.ravel()] == at) for at in range(3))
    return Split(train, middle, end)


def _no_graph(ratings: Ratings, name: str) -> None:
    if ratings.shared:
        raise SettingError(f"--split {name} is about users and their items; edges of nodes take random or time")


def split_cold_items(
    ratings: Ratings, cold: float = 0.2, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    """Leave whole items without a rating in training, as new ones are.

    A share `cold` of the items, drawn at random among those that have ratings, has all its ratings in test, and
    another share `valid` all of its in validation; of the other items' ratings, each user's are split as in
    `split_random`. So both later parts hold ratings of items that were in training and of items that were not.
    """
    _no_graph(ratings, "cold-items")
    _shares(valid, test)
    if not (0 < cold < 1 and cold + valid < 1):
        raise SettingError(f"the shares of cold items ({cold}) and valid ({valid}) must sum to less than 1")
    rated = np.flatnonzero(ratings.counts)
    drawn = np.random.default_rng(seed).permutation(rated)
    ends = [round(len(rated) * share) for share in (cold, cold + valid)]
    if not 0 < ends[0] <= ends[1] < len(rated):
        raise SettingError(f"a share of {cold} of {len(rated)} items leaves no cold item, or no other one")
    part = np.zeros(len(ratings.items), np.int64)
    part[drawn[: ends[0]]], part[drawn[ends[0] : ends[1]]] = 2, 1
    of_row = part[ratings.item]
    warm = split_random(ratings.take(of_row == 0), valid, test, seed)
    return Split(
        warm.train,
        warm.valid.with_rows(ratings.take(of_row == 1)),
        warm.test.with_rows(ratings.take(of_row == 2)),
    )


def split_leave_last(ratings: Ratings, test: bool = True) -> Split:
    """Hold out each user's last rating for test and the one before for validation.

    Ratings of one second keep their order in the table. Users of fewer than three ratings stay in train.
    Without `test` the last rating is for validation.
    """
    _no_graph(ratings, "leave-last")
    if ratings.time is None:
        raise DataError("leave-last needs times, and this data has none: name the column with --time-col")
    if not len(ratings):
        return Split(ratings, ratings, ratings)
    place, count = _within_user(ratings.user, ordered(ratings.user, ordered(ratings.time)))
    from_end = np.where((count >= 3)[ratings.user], (count - 1)[ratings.user] - place, 2) + (not test)
    return Split(ratings.take(from_end >= 2), ratings.take(from_end == 1), ratings.take(from_end == 0))


def split_time(ratings: Ratings, valid: float = 0.1, test: float = 0.1) -> Split:
    """Split at two points in time that hold for everybody: the newest share is test, the one before is validation.

    Rows of one second are never parted. Users and items may appear in test that have no row in train.
    """
    _shares(valid, test)
    if ratings.time is None:
        raise DataError("a split by time needs times, and this data has none: name the column with --time-col")
    if not len(ratings):
        return Split(ratings, ratings, ratings)
    ordered = np.sort(ratings.time)
    last = len(ordered) - 1
    cuts = []
    for share in (valid + test, test):
        at = round(len(ordered) * (1 - share))
        cuts.append(ordered[at] if at <= last else ordered[last] + 1)
    is_test = ratings.time >= cuts[1]
    is_valid = (ratings.time >= cuts[0]) & ~is_test
    return Split(ratings.take(~is_test & ~is_valid), ratings.take(is_valid), ratings.take(is_test))
