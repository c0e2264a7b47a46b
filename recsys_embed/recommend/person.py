"""Whom an answer is for: a user of the model, or somebody it does not know."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.errors import SettingError
from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.fold_in import Told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recsys_embed.recommend.recommender import Recommender

# What the lowest rating and a dislike weigh where a like weighs 1 (experiments/LOG.md): little, since who saw something
# tells by that alone what they see. Ratings of a wider scale are numbers of something, of which any is as good.
_WORST, _WIDEST = -0.1, 100.0


def _nothing() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Person:
    """Somebody whom items are ranked for.

    vector [d]: None of somebody nothing is known of, for whom items go by their numbers of ratings. bias: theirs.
    own: item rows that they rated or like, ascending; reasons speak of these. disliked: rows that they do not like.
    Neither stands in their list, unless asked for. user: their row, or -1 of somebody the model does not know. told:
    what moved them since the training, or None.
    """

    vector: Floats | None
    bias: float = 0.0
    own: Rows = field(default_factory=_nothing)
    disliked: Rows = field(default_factory=_nothing)
    user: int = -1
    told: Told | None = None


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

    A user of the model who likes, dislikes or rates something here is that user, moved by it.
    Raises UnknownId for users and items that are not known, SettingError for ratings that are no numbers.
    """
    items = recommender.items
    person = Person(None) if user is None else known(recommender, recommender.users.row(user))
    rated = dict(zip(items.rows(list(ratings)).tolist(), ratings.values(), strict=True)) if ratings else {}
    return moved(recommender, person, items.rows(likes), items.rows(dislikes), rated)


def moved(
    recommender: Recommender, person: Person, likes: Rows, dislikes: Rows, ratings: Mapping[int, float]
) -> Person:
    """Return a person who says so much more, or just the same one where they say nothing new.

    person: as `known` returns it, or Person(None). likes, dislikes: item rows, in any order and as often as one likes.
    ratings: stars by item row. It is all that they said since the training: what is said later comes to these, and the
    person before stays what it is. Of one item a rating counts before a dislike, and that before a like.
    """
    told, against = told_by(recommender, likes, dislikes, ratings)
    if not len(told.rows):
        return person
    fold = recommender.fold
    if person.vector is None:
        vector, bias = fold.new(told)
    else:
        old = recommender.history_of(person.user)
        vector, bias = fold.moved(person.user, old, person.vector, person.bias, told)
    own = np.setdiff1d(np.union1d(person.own, told.rows), against, assume_unique=True)
    disliked = np.union1d(person.disliked, against)
    return replace(person, vector=vector, bias=bias, own=own, disliked=disliked, told=told)


def told_by(recommender: Recommender, likes: Rows, dislikes: Rows, ratings: Mapping[int, float]) -> tuple[Told, Rows]:
    """Return what somebody says of items, and which of these rows they do not like.

    In a model of lists a rating weighs as it stands between the lowest and the highest of the training, from -.1 to 1;
    with a --min-rating it weighs 1 from there on and else nothing, as it did in training. In a model of stars a like is
    a rating half way from the mean to the highest one, and a dislike half way to the lowest.
    """
    plain, (low, high) = recommender.plain, recommender.plain.scale
    said = dict.fromkeys(np.asarray(likes, np.int64).tolist(), (1.0, (plain.offset + high) / 2, False))
    said |= dict.fromkeys(np.asarray(dislikes, np.int64).tolist(), (_WORST, (plain.offset + low) / 2, True))
    least = recommender.least
    for row, stars in ratings.items():
        if not np.isfinite(stars):
            raise SettingError(f"a rating must be a number, got {stars}")
        if least is not None:
            weight = float(stars >= least)
        elif 0 < high - low <= _WIDEST:
            weight = _WORST + (1 - _WORST) * min(1.0, max(0.0, (stars - low) / (high - low)))
        else:
            weight = 1.0
        if plain.link == "stars":
            stars = min(max(stars, low), high)
        said[row] = weight, stars, weight < (1 + _WORST) / 2
    rows = np.array(sorted(said), np.int64)
    columns = np.array([said[row] for row in rows.tolist()], np.float32).reshape(-1, 3)
    return Told(rows, columns[:, 0], columns[:, 1]), rows[columns[:, 2] > 0]
