"""New ratings for a fitted state, without training: new users become its users, and known ones are updated."""

from __future__ import annotations

import copy
import datetime
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import pair_keys
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.state.fitted import FittedState

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger("recsys_embed")


def update(state: FittedState, given: Ratings | pl.DataFrame | pd.DataFrame) -> FittedState:
    """Return a state that has taken in new ratings; see `Recommender.update`. `state` is left as it is."""
    if state.shared:
        raise SettingError(
            "a model of nodes cannot be updated, since an edge moves both of its ends: recsys train --continue does it"
        )
    ratings = given if isinstance(given, Ratings) else Ratings.from_frame(given)
    users, rows = _with_users(state.users, ratings)
    new = _new_ratings(state, replace(ratings, users=users, user=rows[ratings.user]), len(users))
    positives = new.positives(state.positive_threshold)
    metadata = copy.deepcopy(state.metadata)
    log_ = metadata.setdefault("updated", {"ratings": 0, "new_users": 0})
    log_["time"] = datetime.datetime.now(datetime.UTC).isoformat()
    log_["ratings"] += len(new)
    log_["new_users"] += len(users) - len(state.users)
    return state.but(
        users=users,
        model=state.model.with_users(len(users), _folded_in(state, positives)),
        seen=state.seen.with_users(len(users)).union(new.seen()),
        held_out=_without(state.held_out.with_users(len(users)), new),
        counts=state.counts + np.bincount(positives.item, minlength=len(new.items)),
        metadata=metadata,
        history_items=_history_items(state, new, len(users)),
        # The fold-in stays that of the training, so that updating one by one equals updating all at once.
        fold_in_of=state.fold_in,
    )


def _with_users(known: Vocab, ratings: Ratings) -> tuple[Vocab, Rows]:
    """Return the users with those who are new, behind the others, and the row there of each user of the ratings."""
    ids = known.like(ratings.users.series)
    if ids.null_count():
        odd = ratings.users.series.filter(ids.is_null())[0]
        raise DataError(f"user id {odd!r} is no integer, and the ids of this model are")
    fresh = ids.filter(known.rows(ids, missing="negative") < 0)
    users = Vocab(pl.concat([known.series, fresh.cast(known.series.dtype)]), "user") if len(fresh) else known
    return users, users.rows(ids)


def _new_ratings(state: FittedState, ratings: Ratings, users: int) -> Ratings:
    """Return the ratings of known items that the state has not seen, on its items."""
    item = state.items.rows(ratings.items.ids(ratings.item), missing="negative")
    unknown = int((item < 0).sum())
    if unknown:
        log.warning(
            "%s of %s ratings are of items that are not known: left out (recsys train --continue learns them)",
            f"{unknown:,}", f"{len(item):,}",
        )  # fmt: skip
    ratings = replace(ratings.take(item >= 0), items=state.items, item=item[item >= 0])
    width = len(state.items)
    known = pair_keys(*state.seen.with_users(users).of_users(np.arange(users)), width)
    repeated = np.isin(pair_keys(ratings.user, ratings.item, width), known)
    if repeated.any():
        log.info("%s ratings are known already", f"{int(repeated.sum()):,}")
    return ratings.take(~repeated)


def _folded_in(state: FittedState, positives: Ratings) -> dict[int, tuple[Floats, float]]:
    """Return the vectors and biases of the users who have new positives, by row.

    Ratings count as they did in training: all alike, but for those below a --min-rating, which are not positives.
    """
    positives = positives.take(np.lexsort((positives.item, positives.user)))
    users, first = np.unique(positives.user, return_index=True)
    changed = {}
    for user, start, stop in zip(users.tolist(), first, np.append(first, len(positives))[1:], strict=True):
        item = positives.item[start:stop]
        feedback = Feedback(item, np.ones(len(item), np.float32), positives.value[start:stop])
        if user < len(state.users):
            vector, bias = state.model.user(user)
            changed[user] = state.fold_in.update_user(user, state.history(user), vector, bias, feedback)
        else:
            changed[user] = state.fold_in.fit_user(feedback)
    return changed


def _history_items(state: FittedState, new: Ratings, users: int) -> UserItems | None:
    """Return the items that users of a history model are the sum of now, where that is not all that they rated."""
    positives = new.positives(state.positive_threshold)
    if state.history_items is None and (not state.model.users_are_histories or len(positives) == len(new)):
        return None
    return (state.history_items or state.seen).with_users(users).union(positives.seen())


def _without(held_out: UserItems, new: Ratings) -> UserItems:
    """Return what is held out, without what is known now."""
    users = len(held_out.start) - 1
    user, item = held_out.of_users(np.arange(users))
    width = len(new.items)
    kept = ~np.isin(pair_keys(user, item, width), pair_keys(new.user, new.item, width))
    return UserItems.of(user[kept], item[kept], users)
