"""Predictions for (user, item) pairs, and which pairs were seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from recsys_embed.answering.tables import rows_of
from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Id
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import pair_keys
from recsys_embed.errors import SettingError
from recsys_embed.retrieval.base import Mask
from recsys_embed.state.fitted import FittedState


def predict(state: FittedState, users: Id | Iterable[Id], items: Id | Iterable[Id]) -> Floats:
    """Return predictions for pairs of a user and an item, [n]; see `Recommender.predict`."""
    rows = rows_of(state.users, users), rows_of(state.items, items)
    if len(rows[0]) != len(rows[1]):
        raise SettingError(f"predict takes one item per user; it was given {len(rows[0])} and {len(rows[1])}")
    predictions = state.scorer.predict(*rows)
    known = state.is_known(rows[0])
    return predictions if known.all() else np.where(known, predictions, state.popularity[rows[1]])


def is_seen(state: FittedState, ratings: Ratings) -> Mask:
    """Return which ratings the model was fitted on or updated with, bool [n]."""
    users, items = (
        known.rows(given.series, missing="negative")
        for known, given in ((state.users, ratings.users), (state.items, ratings.items))
    )
    user, item, width = users[ratings.user], items[ratings.item], len(state.items)
    seen = pair_keys(*state.seen.pairs_of(np.arange(len(state.users))), width)
    return (user >= 0) & (item >= 0) & np.isin(pair_keys(user, item, width), seen)
