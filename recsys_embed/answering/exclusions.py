"""What the list of a user may not hold because of who they are: for one user, and for many at once."""

from __future__ import annotations

import numpy as np

from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.state.fitted import FittedState


def excluded_rows(state: FittedState, profile: UserProfile, request: RecommendRequest) -> Rows:
    """Return the item rows, ascending, to exclude for one user: their history, dislikes and held-out items."""
    hidden = profile.history if profile.hidden is None else profile.hidden
    excluded = [] if request.include_seen else [hidden, profile.disliked]
    if profile.user >= 0:
        if state.is_graph:  # a node is never recommended to itself
            excluded.append(np.array([profile.user]))
        if request.hide_test:
            excluded.append(state.held_out[profile.user])
    excluded = [rows for rows in excluded if len(rows)]
    if len(excluded) < 2:
        return excluded[0] if excluded else profile.history[:0]
    return np.unique(np.concatenate(excluded))


def excluded_items(state: FittedState, request: RecommendRequest) -> UserItems:
    """Return the same for all trained users as they are: without feedback, and so without dislikes."""
    excluded = state.excluded
    if request.include_seen:
        empty = UserItems.empty(len(state.users))
        excluded = empty.with_self_loops() if state.is_graph else empty
    return excluded.union(state.held_out) if request.hide_test else excluded
