"""Take new ratings into a fitted state without training: add new users, and update known ones."""

from __future__ import annotations

import copy
import datetime
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys_embed.data.columns import as_polars, find_columns
from recsys_embed.data.events import EventLog
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError
from recsys_embed.forks import needs_threads
from recsys_embed.models.fold_in.base import Feedback, UserVector
from recsys_embed.models.trend import Trend
from recsys_embed.state.fitted import FittedState

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger("recsys_embed")


@needs_threads("an update")
def update(state: FittedState, new_ratings: Ratings | pl.DataFrame | pd.DataFrame, quiet: bool = False) -> FittedState:
    """Return a new state that includes new ratings; see `Recommender.update`. `state` does not change.

    quiet: do not say how many ratings were known already.
    """
    if state.is_graph:
        raise SettingError(
            "a model of nodes cannot be updated, since an edge changes both of its ends: use recsys train --warm-start"
        )
    ratings = new_ratings if isinstance(new_ratings, Ratings) else _ratings_of(state, as_polars(new_ratings))
    users, rows = _with_users(state.users, ratings)
    given = _of_known_items(state, replace(ratings, users=users, user=rows[ratings.user]))
    new = _new_ratings(state, given, len(users))
    if len(new) < len(given) and not quiet:
        log.info("%s ratings were known already", f"{len(given) - len(new):,}")
    threshold = state.positive_threshold
    positives, unseen = new.positives(threshold), _not_among(new, state.seen.with_users(len(users)))
    # With weights, what was done before may count for more now.
    moving = positives if given.weight is None else given.positives(threshold)
    metadata = copy.deepcopy(state.metadata)
    totals = metadata.setdefault("updated", {"ratings": 0, "new_users": 0})
    totals["time"] = datetime.datetime.now(datetime.UTC).isoformat()
    totals["ratings"] += len(new)
    totals["new_users"] += len(users) - len(state.users)
    return state.replace(
        users=users,
        model=state.model.with_users(len(users), _updated_users(state, moving)),
        seen=state.seen.with_users(len(users)).union(unseen.seen()),
        held_out=_without_ratings(state.held_out.with_users(len(users)), new),
        item_counts=state.item_counts + np.bincount(unseen.positives(threshold).item, minlength=len(new.items)),
        trend=_trend(state, positives),
        metadata=metadata,
        history_items=_history_items(state, unseen, len(users)),
        hidden_items=_hidden_items(state, given, len(users)),
        # The fold-in stays that of the training, so that updating step by step equals updating at once.
        cached_fold_in=state.fold_in,
    )


def _ratings_of(state: FittedState, frame: pl.DataFrame) -> Ratings:
    """Return the ratings in a frame whose columns are called as in the training, or as is usual; of an event log for a
    model that was trained on one."""
    given = state.metadata.get("settings", {})
    frame = with_joined_times(frame, given.get("time_col"), further=True)
    time_format = given.get("time_format")
    roles = ("user", "item", "rating", "time", "weight", "event")
    columns = {role: name for role in roles if (name := given.get(f"{role}_col")) in frame.columns}
    if state.event_types.types is not None and "event" in find_columns(
        frame, {role: columns.get(role) for role in ("user", "item", "event")}
    ):
        return EventLog.from_frame(frame, columns, state.event_types.of_found, time_format=time_format).ratings()
    columns.pop("event", None)
    return Ratings.from_frame(frame, **columns, time_format=time_format)


def _with_users(known: Vocab, ratings: Ratings) -> tuple[Vocab, Rows]:
    """Return the known users followed by the new ones, and the row of each user of the ratings among them."""
    ids = known.cast_column(ratings.users.series)
    if ids.null_count():
        invalid = ratings.users.series.filter(ids.is_null())[0]
        raise DataError(f"user id {invalid!r} is not an integer, but the ids of this model are")
    new = ids.filter(known.rows(ids, missing="negative") < 0)
    users = Vocab(pl.concat([known.series, new.cast(known.series.dtype)]), "user") if len(new) else known
    return users, users.rows(ids)


def _of_known_items(state: FittedState, ratings: Ratings) -> Ratings:
    """Return the ratings of known items, with the state's item rows."""
    item = state.items.rows(ratings.items.ids(ratings.item), missing="negative")
    unknown = int((item < 0).sum())
    if unknown:
        log.warning(
            "%s of %s ratings are for unknown items and were skipped (recsys train --warm-start learns them)",
            f"{unknown:,}", f"{len(item):,}",
        )  # fmt: skip
    return replace(ratings.take(item >= 0), items=state.items, item=item[item >= 0])


def _new_ratings(state: FittedState, ratings: Ratings, users: int) -> Ratings:
    """Return the ratings that the state has not seen yet."""
    known = state.seen.with_users(users).contains(ratings.user, ratings.item)
    if state.hidden_items is not None:
        hides = np.ones(len(ratings), bool) if ratings.hidden is None else ratings.hidden
        known &= ~hides | state.hidden_items.with_users(users).contains(ratings.user, ratings.item)
    return ratings.take(~known)


def _not_among(ratings: Ratings, items: UserItems) -> Ratings:
    """Return the ratings of items that their users do not have among these."""
    return ratings.take(~items.contains(ratings.user, ratings.item))


def _updated_users(state: FittedState, positives: Ratings) -> dict[int, tuple[UserVector, float]]:
    """Return the new vector and bias of each user with new positives, by row.

    As in training, positives without weights count equally; ratings below --min-rating are not positives.
    """
    mean = state.event_types.mean_weight
    positives = positives.take(np.lexsort((positives.item, positives.user)))
    users, first = np.unique(positives.user, return_index=True)
    changed = {}
    for user, start, stop in zip(users.tolist(), first, np.append(first, len(positives))[1:], strict=True):
        item = positives.item[start:stop]
        weight = np.ones(len(item), np.float32) if positives.weight is None else positives.weight[start:stop] / mean
        feedback = Feedback(item, np.asarray(weight, np.float32), positives.value[start:stop])
        if user < len(state.users):
            vector, bias = state.model.user(user)
            changed[user] = state.fold_in.update_user(user, state.history(user), vector, bias, feedback)
        else:
            changed[user] = state.fold_in.fit_user(feedback)
    return changed


def _trend(state: FittedState, positives: Ratings) -> Trend | None:
    """Return the trend with new positives; those without a time are as new as the newest that it knows."""
    if state.trend is None:
        return None
    times = np.full(len(positives), state.trend.time) if positives.time is None else positives.time
    now = max(state.trend.time, datetime.datetime.now(datetime.UTC).timestamp())  # nothing comes from the future
    return state.trend.with_ratings(positives.item, np.minimum(times, now))


def _history_items(state: FittedState, new: Ratings, users: int) -> UserItems | None:
    """Return the items that users of a history model are the sum of, or None if that is everything they rated."""
    positives = new.positives(state.positive_threshold)
    if state.history_items is None and (not state.model.has_history_users or len(positives) == len(new)):
        return None
    return (state.history_items or state.seen).with_users(users).union(positives.seen())


def _hidden_items(state: FittedState, given: Ratings, users: int) -> UserItems | None:
    """Return the items that lists leave out after an update; what was only viewed before may be among those given."""
    if state.hidden_items is None:
        return None
    hidden = state.hidden_items.with_users(users)
    return hidden.union(_not_among(given.hiding(), hidden).seen())


def _without_ratings(held_out: UserItems, new: Ratings) -> UserItems:
    """Return the held-out items without those that are rated now."""
    users = len(held_out.indptr) - 1
    user, item = held_out.pairs_of(np.arange(users))
    unrated = ~new.seen().contains(user, item)
    return UserItems.of(user[unrated], item[unrated], users)
