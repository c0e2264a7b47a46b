"""What is wrong with this data: what stops training, and what people should know."""

from __future__ import annotations

import numpy as np

from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import ascending, pair_keys
from recsys_embed.errors import DataError


def check_trainable(ratings: Ratings) -> None:
    """Raise DataError where nothing can be learnt from the ratings."""
    users, items = (int(np.count_nonzero(np.bincount(rows))) for rows in (ratings.user, ratings.item))
    if users < 2 or items < 2 or (ratings.shared and users < 3):
        raise DataError(
            f"there are {len(ratings):,} training ratings of {users:,} user{'s' * (users != 1)} and {items:,} "
            f"item{'s' * (items != 1)}; at least two of each are needed to learn who likes what"
        )


def check_no_leakage(train: Ratings, other: Ratings, name: str, other_name: str) -> None:
    """Raise DataError where (user, item) pairs of one part stand in another too: that would be leakage."""
    if train.users != other.users or train.items != other.items:
        raise DataError(f"{name} and {other_name} do not share their vocabularies")
    width = len(train.items)
    keys = ascending(np.concatenate([pair_keys(part.user, part.item, width) for part in (train, other)]))
    shared = keys[1:][keys[1:] == keys[:-1]]  # in one part a pair stands once
    if len(shared):
        user, item = train.users.ids(shared[:1] // width)[0], train.items.ids(shared[:1] % width)[0]
        raise DataError(
            f"{len(shared):,} user-item pairs of {name} stand in {other_name} too, e.g. user {user} and item {item}: "
            "the metrics would be wrong; take them out of one of the files"
        )
