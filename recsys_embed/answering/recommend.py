"""Answer a recommendation request. Python, the command line, the service and MLflow all use this, so they agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys_embed.answering.exclusions import excluded_rows
from recsys_embed.answering.explore import explore
from recsys_embed.answering.profile import UserProfile, profile_of
from recsys_embed.answering.rank import check_k, rank_for
from recsys_embed.answering.request import ListOrigin, Recommendations, RecommendRequest
from recsys_embed.config.answers import Rules
from recsys_embed.data.ids import Id, Rows
from recsys_embed.retrieval.nearest import largest
from recsys_embed.rules.compile import CompiledRules
from recsys_embed.state.fitted import FittedState


def recommend(state: FittedState, request: RecommendRequest) -> Recommendations:
    """Answer a request. Raises UnknownId and SettingError."""
    if request.on_unknown != "error":
        request = request.without_unknown(state)
    profile = profile_of(state, request.user, request.likes, request.dislikes, request.ratings)
    return recommend_to(state, profile, request)


def recommend_to(state: FittedState, profile: UserProfile, request: RecommendRequest) -> Recommendations:
    """Answer a request for a given profile; the user that the request names is ignored."""
    check_k(request.k)
    rules = compile_rules(state, request.rules, request.candidates, request.exclude)
    excluded = excluded_rows(state, profile, request)
    explored: list[int] = []
    rows, scores, shortfall = rank_for(state, profile, request.k, rules, excluded)
    if request.exploration is not None:
        rows, scores, explored = explore(state, profile, request.exploration, rules, excluded, (rows, scores))
    nearest = nearest_in(state, profile.history, rows) if request.explain else None
    return Recommendations(state, rows, scores, nearest, shortfall, origin_of(state, profile), explored)


def origin_of(state: FittedState, profile: UserProfile) -> ListOrigin:
    """Return what the lists of a user go by."""
    if profile.vector is None:
        return popular_origin(state)
    known = profile.user >= 0 and bool(state.is_known(np.array([profile.user]))[0])
    return "personal" if known else "session"


def origins_of(state: FittedState, users: Rows) -> list[ListOrigin]:
    """Return what the lists of users of the model, by row, go by: `origin_of` without feedback."""
    return ["personal" if known else popular_origin(state) for known in state.is_known(users)]


def popular_origin(state: FittedState) -> ListOrigin:
    """Return what the list of somebody of whom nothing is known goes by."""
    return "popular" if state.trend is None else "recent"


def compile_rules(
    state: FittedState, rules: Rules, candidates: Sequence[Id] | None, exclude: Sequence[Id]
) -> CompiledRules:
    """Compile rules. candidates: item ids to choose from; exclude: item ids. Raises UnknownId, SettingError."""
    candidate_rows = None if candidates is None else state.items.rows(candidates)
    return state.rules.compile(rules, candidate_rows, state.items.rows(exclude))


def nearest_in(state: FittedState, history: Rows, rows: Rows, k: int = 2) -> list[list[int]]:
    """Return, for each item row, the k rows of a history that support it most."""
    if not len(history) or not len(rows):
        return [[] for _ in rows]
    support, positions = largest(state.model.support(history, rows), k)
    return [history[at[value > -np.inf]].tolist() for value, at in zip(support, positions, strict=True)]
