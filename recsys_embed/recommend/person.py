"""Whom an answer is for: a user of the model, or somebody it does not know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.ratings.vocab import Id, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recsys_embed.recommend.recommender import Recommender


def _nothing() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Person:
    """Somebody whom items are ranked for.

    vector [d]: None of somebody nothing is known of, for whom items go by their numbers of ratings. bias: theirs.
    own: item rows that they rated or like, ascending; reasons speak of these. disliked: rows that they do not like.
    Neither stands in their list, unless asked for. user: their row, or -1 of somebody the model does not know.
    """

    vector: Floats | None
    bias: float = 0.0
    own: Rows = field(default_factory=_nothing)
    disliked: Rows = field(default_factory=_nothing)
    user: int = -1


def known(recommender: Recommender, row: int) -> Person:
    """Return the user of a row as the model was trained to know them."""
    plain = recommender.plain
    return Person(plain.users[row], float(plain.user_bias[row]), recommender.seen[row], user=row)


def somebody(
    recommender: Recommender,
    user: Id | None = None,
    likes: Iterable[Id] = (),
    dislikes: Iterable[Id] = (),
    ratings: Mapping[Id, float] | None = None,
) -> Person:
    """Return whoever is meant: a user, somebody new by what they like, dislike and rated, or nobody in particular.

    Raises UnknownId for users and items that are not known.
    """
    if user is not None:
        return known(recommender, recommender.users.row(user))
    rows = np.unique(recommender.items.rows(likes))
    return Person(recommender.new_user(rows), own=rows) if len(rows) else Person(None)
