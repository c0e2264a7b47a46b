"""Predictions for (user, item) pairs, and which pairs were seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.rank import scores_of
from recsys_embed.answering.tables import rows_of
from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Id, Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.errors import SettingError
from recsys_embed.retrieval.base import Mask
from recsys_embed.state.fitted import FittedState


def predict(state: FittedState, users: Id | Iterable[Id], items: Id | Iterable[Id]) -> Floats:
    """Return predictions for pairs of a user and an item, [n]; see `Recommender.predict`."""
    rows = rows_of(state.users, users), rows_of(state.items, items)
    if len(rows[0]) != len(rows[1]):
        raise SettingError(f"predict takes one item per user; it was given {len(rows[0])} and {len(rows[1])}")
    if state.model.output != "score":  # a rating or a probability, in which a trend plays no part
        return state.model.predict(*rows)
    predictions, known = state.scorer.predict(*rows), state.is_known(rows[0])
    return predictions if known.all() else np.where(known, predictions, state.popularity[rows[1]])


def predict_for(state: FittedState, profile: UserProfile, rows: Rows) -> Floats:
    """Return predictions of item rows for a user who may have feedback, [n]; see `Recommender.predict`."""
    if state.model.output == "score" or profile.vector is None:
        return scores_of(state, profile, rows)
    return state.model.to_prediction(state.model.score(state.model.query(profile.vector, profile.bias), rows)[0])


def is_seen(state: FittedState, ratings: Ratings) -> Mask:
    """Return which ratings the model was fitted on or updated with, bool [n]; of events, those that hide their item."""
    users, items = (
        known.rows(given.series, missing="negative")
        for known, given in ((state.users, ratings.users), (state.items, ratings.items))
    )
    return state.excluded.contains(users[ratings.user], items[ratings.item])
