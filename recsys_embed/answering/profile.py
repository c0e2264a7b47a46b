"""The user that an answer is for: a trained user, a new user described by their feedback, or an anonymous user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from recsys_embed.data.event_types import Interaction
from recsys_embed.data.ids import Id, Rows
from recsys_embed.errors import SettingError
from recsys_embed.models.fold_in.base import Feedback, UserVector
from recsys_embed.state.fitted import FittedState

# Weight of the lowest rating and of a dislike, where a like weighs 1 (experiments/LOG.md). It is close to zero, since
# having interacted with an item at all says most. On a wider scale than this, ratings are amounts and all weigh 1.
_LOWEST_WEIGHT, _WIDEST_SCALE = -0.1, 100.0


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class UserProfile:
    """A user to rank items for.

    vector: None for an anonymous user, whose items are ranked by popularity. bias: the user bias.
    history: rows of items that they rated or like, ascending; explanations refer to them. disliked: rows of items that
    they dislike. hidden: rows of items that their lists leave out besides these; None: the whole history. user: their
    row, or -1 for a user whom the model does not know. feedback: what was folded in after training, or None.
    """

    vector: UserVector | None
    bias: float = 0.0
    history: Rows = field(default_factory=_no_rows)
    disliked: Rows = field(default_factory=_no_rows)
    hidden: Rows | None = None
    user: int = -1
    feedback: Feedback | None = None


ANONYMOUS = UserProfile(None)


def known_user(state: FittedState, row: int) -> UserProfile:
    """Return the profile of a trained user, by row, without further feedback."""
    vector, bias = state.model.user(row)
    known = state.is_known(np.array([row]))[0]
    hidden = None if state.hidden_items is None else state.hidden_items[row]
    return UserProfile(vector if known else None, bias, state.seen[row], hidden=hidden, user=row)


def profile_of(
    state: FittedState,
    user: Id | None = None,
    likes: Iterable[Id] = (),
    dislikes: Iterable[Id] = (),
    ratings: Mapping[Id, float] | None = None,
    interactions: Mapping[int, Interaction] | None = None,
) -> UserProfile:
    """Return the profile of a trained user, of a new user given by their feedback, or of an anonymous user.

    A trained user with feedback is updated with it. interactions: what events say, by item row. Raises UnknownId for
    unknown users and items, SettingError for ratings that are not numbers.
    """
    items = state.items
    profile = ANONYMOUS if user is None else known_user(state, state.users.row(user))
    rated = dict(zip(items.rows(list(ratings)).tolist(), ratings.values(), strict=True)) if ratings else {}
    return with_feedback(state, profile, items.rows(likes), items.rows(dislikes), rated, interactions or {})


def with_feedback(
    state: FittedState,
    profile: UserProfile,
    likes: Rows,
    dislikes: Rows,
    ratings: Mapping[int, float],
    interactions: Mapping[int, Interaction] = MappingProxyType({}),
) -> UserProfile:
    """Fold feedback into a profile; without feedback, return the same profile.

    profile: from `known_user`, or ANONYMOUS. likes, dislikes: item rows in any order, duplicates allowed. ratings,
    interactions: by item row. Feedback is cumulative: pass everything since training, not only what is new. For the
    same item, a rating takes precedence over a dislike, a dislike over a like, and a like over an interaction.
    """
    given = {*np.asarray(likes).tolist(), *np.asarray(dislikes).tolist(), *ratings}
    events = {row: event for row, event in interactions.items() if row not in given}
    ratings = {row: event.rating for row, event in events.items() if event.rating is not None} | {**ratings}
    interactions = {row: event for row, event in events.items() if event.rating is None}
    feedback, disliked = to_feedback(state, likes, dislikes, ratings, interactions)
    profile = _with_hidden(profile, feedback.rows, interactions)
    if not len(feedback.rows):
        return profile
    if profile.vector is None:
        vector, bias = state.fold_in.fit_user(feedback)
    else:
        history = state.history(profile.user)
        vector, bias = state.fold_in.update_user(profile.user, history, profile.vector, profile.bias, feedback)
    return replace(
        profile,
        vector=vector,
        bias=bias,
        history=np.setdiff1d(np.union1d(profile.history, feedback.rows), disliked, assume_unique=True),
        disliked=np.union1d(profile.disliked, disliked),
        feedback=feedback,
    )


def _with_hidden(profile: UserProfile, rows: Rows, interactions: Mapping[int, Interaction]) -> UserProfile:
    """Return a profile whose lists leave out items of feedback too, but those whose interactions do not hide them."""
    if profile.hidden is None and all(event.hides and event.weight for event in interactions.values()):
        return profile  # the whole history is hidden
    hides, visible = ([row for row, event in interactions.items() if event.hides == yes] for yes in (True, False))
    known = profile.history if profile.hidden is None else profile.hidden
    hidden = np.concatenate((known, np.array(hides, np.int64), np.setdiff1d(rows, visible)))
    return replace(profile, hidden=np.unique(hidden))


def to_feedback(
    state: FittedState,
    likes: Rows,
    dislikes: Rows,
    ratings: Mapping[int, float],
    interactions: Mapping[int, Interaction] = MappingProxyType({}),
) -> tuple[Feedback, Rows]:
    """Convert likes, dislikes, ratings and interactions to feedback; return it and the rows of the disliked items.

    For a ranking model, the weight of a rating rises linearly from -0.1 for the lowest training rating to 1 for the
    highest; with --min-rating it is 1 from there on and 0 below, as in training. For a model of "stars", a like is a
    rating half way from the mean to the highest rating, and a dislike half way to the lowest.
    """
    model, (low, high) = state.model, state.model.scale
    liked = (model.offset + high) / 2
    entries = {row: (event.weight, liked, False) for row, event in interactions.items() if event.weight}
    entries |= dict.fromkeys(np.asarray(likes, np.int64).tolist(), (1.0, liked, False))
    disliked = _LOWEST_WEIGHT, (model.offset + low) / 2, True
    entries |= dict.fromkeys(np.asarray(dislikes, np.int64).tolist(), disliked)
    for row, rating in ratings.items():
        if not np.isfinite(rating):
            raise SettingError(f"a rating must be a number, got {rating}")
        weight = _weight_of(rating, state.positive_threshold, low, high)
        value = min(max(rating, low), high) if model.output == "stars" else rating
        entries[row] = weight, value, weight < (1 + _LOWEST_WEIGHT) / 2
    rows = np.array(sorted(entries), np.int64)
    columns = np.array([entries[row] for row in rows.tolist()], np.float32).reshape(-1, 3)
    return Feedback(rows, columns[:, 0], columns[:, 1]), rows[columns[:, 2] > 0]


def _weight_of(rating: float, threshold: float | None, low: float, high: float) -> float:
    if threshold is not None:
        return float(rating >= threshold)
    if 0 < high - low <= _WIDEST_SCALE:
        return _LOWEST_WEIGHT + (1 - _LOWEST_WEIGHT) * min(1.0, max(0.0, (rating - low) / (high - low)))
    return 1.0
