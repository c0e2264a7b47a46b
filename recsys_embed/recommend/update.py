"""New ratings for a model that is trained: new users become its users and known ones move, without training."""

from __future__ import annotations

import datetime
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.errors import DataError, SettingError
from recsys_embed.ratings.order import pair_keys
from recsys_embed.ratings.table import Ratings, Seen
from recsys_embed.ratings.vocab import Rows, Vocab
from recsys_embed.recommend.fold_in import Told

if TYPE_CHECKING:
    import pandas as pd

    from recsys_embed.recommend.recommender import Recommender

log = logging.getLogger("recsys_embed")


def update(recommender: Recommender, given: Ratings | pl.DataFrame | pd.DataFrame) -> Recommender:
    """Do what `Recommender.update` says."""
    if recommender.shared:
        raise SettingError(
            "a model of nodes cannot be updated, since an edge moves both of its ends: recsys train --continue does it"
        )
    ratings = given if isinstance(given, Ratings) else Ratings.from_frame(given)
    users, rows = _with_users(recommender.users, ratings)
    new = _new(recommender, replace(ratings, users=users, user=rows[ratings.user]), len(users))
    vectors, bias = _moved(recommender, new)
    # Nothing can fail from here on, so that no half of it is done.
    fold, counts = recommender.fold, np.bincount(new.positives(recommender.least).item, minlength=len(new.items))
    made_of = _made_of(recommender, new, len(users))
    facts = recommender.facts.setdefault("updated", {"ratings": 0, "new_users": 0})
    facts["time"] = datetime.datetime.now(datetime.UTC).isoformat()
    facts["ratings"] += len(new)
    facts["new_users"] += len(users) - len(recommender.users)
    recommender.users = users
    recommender.plain = replace(recommender.plain, users=vectors, user_bias=bias)
    seen, held = _wider(recommender.seen, len(users)), _wider(recommender.held, len(users))
    recommender.seen, recommender.made_of = seen.union(new.seen()), made_of
    recommender.held = _without(held, new)
    recommender.counts = recommender.counts + counts
    recommender._forget()
    # What people are made of is what was trained: then ratings that come one by one do what they do all in one go.
    recommender.fold = fold
    return recommender


def _with_users(known: Vocab, ratings: Ratings) -> tuple[Vocab, Rows]:
    """Return the users with those who are new, behind the others, and the row there of each user of the ratings."""
    ids = known.like(ratings.users.series)
    if ids.null_count():
        odd = ratings.users.series.filter(ids.is_null())[0]
        raise DataError(f"user id {odd!r} is no integer, and the ids of this model are")
    fresh = ids.filter(known.rows(ids, missing="negative") < 0)
    users = Vocab(pl.concat([known.series, fresh.cast(known.series.dtype)]), "user") if len(fresh) else known
    return users, users.rows(ids)


def _new(recommender: Recommender, ratings: Ratings, users: int) -> Ratings:
    """Return the ratings of known items that were not there in training, on the model's items."""
    item = recommender.items.rows(ratings.items.ids(ratings.item), missing="negative")
    lost = int((item < 0).sum())
    if lost:
        log.warning(
            "%s of %s ratings are of items that are not known: left out (recsys train --continue learns them)",
            f"{lost:,}", f"{len(item):,}",
        )  # fmt: skip
    ratings = replace(ratings.take(item >= 0), items=recommender.items, item=item[item >= 0])
    width = len(recommender.items)
    known = pair_keys(*_wider(recommender.seen, users).of_users(np.arange(users)), width)
    repeated = np.isin(pair_keys(ratings.user, ratings.item, width), known)
    if repeated.any():
        log.info("%s ratings are known already", f"{int(repeated.sum()):,}")
    return ratings.take(~repeated)


def _moved(recommender: Recommender, new: Ratings) -> tuple[Floats, Floats]:
    """Return the vectors and biases of all users, with those of whom there is something new where that puts them.

    Ratings count as they did in training: all the same, but for those below a --min-rating, which are none.
    """
    plain, fold, were = recommender.plain, recommender.fold, len(recommender.users)
    more = len(new.users) - were
    vectors = np.concatenate((plain.users, np.zeros((more, plain.dim), np.float32)))
    bias = np.concatenate((plain.user_bias, np.zeros(more, np.float32)))
    told = new.positives(recommender.least)
    told = told.take(np.lexsort((told.item, told.user)))
    users, start = np.unique(told.user, return_index=True)
    for user, begin, end in zip(users.tolist(), start, np.append(start, len(told))[1:], strict=True):
        item = told.item[begin:end]
        said = Told(item, np.ones(len(item), np.float32), told.value[begin:end])
        if user < were:
            vector, at = fold.moved(user, recommender.history_of(user), vectors[user], float(bias[user]), said)
        else:
            vector, at = fold.new(said)
        vectors[user], bias[user] = vector, at
    return vectors, bias


def _made_of(recommender: Recommender, new: Ratings, users: int) -> Seen | None:
    """Return of which items users of a history model are made now, where that is not all that they rated."""
    positives = new.positives(recommender.least)
    if recommender.made_of is None and (recommender.plain.history is None or len(positives) == len(new)):
        return None
    return _wider(recommender.made_of or recommender.seen, users).union(positives.seen())


def _wider(seen: Seen, users: int) -> Seen:
    """Return the same with users behind who have nothing."""
    end = np.full(users + 1 - len(seen.start), len(seen.item), np.int64)
    return Seen(np.concatenate((seen.start, end)), seen.item)


def _without(held: Seen, new: Ratings) -> Seen:
    """Return what is held out without what is known now."""
    users = len(held.start) - 1
    user, item = held.of_users(np.arange(users))
    width = len(new.items)
    kept = ~np.isin(pair_keys(user, item, width), pair_keys(new.user, new.item, width))
    return Seen.of(user[kept], item[kept], users)
