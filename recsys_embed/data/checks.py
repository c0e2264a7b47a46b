"""Checks that stop a training: too little data, or leakage between the parts of a split."""

from __future__ import annotations

import numpy as np

from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import pair_keys, sorted_values
from recsys_embed.errors import DataError


def check_trainable(ratings: Ratings) -> None:
    """Raise DataError if the ratings have too few users or items to learn from."""
    users, items = (int(np.count_nonzero(np.bincount(rows))) for rows in (ratings.user, ratings.item))
    if users < 2 or items < 2 or (ratings.is_graph and users < 3):
        raise DataError(
            f"there are {len(ratings):,} training ratings of {users:,} user{'s' * (users != 1)} and {items:,} "
            f"item{'s' * (items != 1)}; at least two of each are needed to learn who likes what"
        )


def check_no_leakage(train: Ratings, other: Ratings, name: str, other_name: str) -> None:
    """Raise DataError if a (user, item) pair is in both parts of a split, where the first hides it from lists.

    name, other_name: what the two parts are called in the message.
    """
    if train.users != other.users or train.items != other.items:
        raise DataError(f"{name} and {other_name} do not share their vocabularies")
    n_items, train = len(train.items), train.hiding()
    if train.disk is None:
        keys = sorted_values(np.concatenate([pair_keys(part.user, part.item, n_items) for part in (train, other)]))
        leaked = keys[1:][keys[1:] == keys[:-1]]  # within one part every pair is unique
    else:
        seen = train.seen()
        found = [rows.take(seen.contains(rows.user, rows.item)) for rows in other.blocks()]
        leaked = np.concatenate([pair_keys(rows.user, rows.item, n_items) for rows in found])
    if len(leaked):
        user, item = train.users.ids(leaked[:1] // n_items)[0], train.items.ids(leaked[:1] % n_items)[0]
        raise DataError(
            f"{len(leaked):,} user-item pairs of {name} are in {other_name} too, e.g. user {user} and item {item}: "
            "the metrics would be wrong; remove them from one of the files"
        )
