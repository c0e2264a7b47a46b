"""Why an item is in a user's list: the parts of its score, and which of the user's items speak for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.rank import scores_of
from recsys_embed.data.ids import Id, Rows
from recsys_embed.models.base import OutputKind
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.retrieval.nearest import nearest_of
from recsys_embed.state.fitted import FittedState

# How far the sum of contributions may be from a vector, as a share of its length: what float32 loses in a sum.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended to a user.

    user: an id, or None for a user whom the model does not know. score: as in a list; it is the sum of `parts`:
        offset, user_bias and item_bias, then collaborative and, for a model with descriptions, text; or mlp, which has
        no parts; or popularity alone, for an anonymous user. value: what `predict` says, in `unit`.
    own: {"item", "title", "kind", "value"}, the user's items that speak most for it. Of the kind "contribution", a
        value is what the item adds to the score; with `rest` ("items" and "value" of those not listed, "vector" for a
        vector of the user's own) they add up to collaborative and text. Of the kind "nearest", it is the cosine.
    shared: {"column", "token", "items"}, the tokens that describe the item and so many of the user's.
    seen: whether the item is in the user's history already.
    """

    user: Id | None
    item: Id
    title: str
    score: float
    unit: OutputKind
    value: float
    parts: dict[str, float]
    own: list[dict[str, Any]]
    rest: dict[str, float] | None
    shared: list[dict[str, Any]]
    seen: bool

    def summary(self) -> dict[str, Any]:
        """Return it as `recsys explain --json` and the service have it, without the model's name."""
        return asdict(self)


def explain(state: FittedState, profile: UserProfile, row: int, k: int = 5) -> Explanation:
    """Explain the item of a row to a user. k: how many of their items are named, and half as many as of the tokens."""
    score, parts = _score_parts(state, profile, row)
    own, rest = _evidence(state, profile, row, k)
    others = profile.history[profile.history != row]
    anonymous = profile.vector is None
    return Explanation(
        user=state.users.ids(np.array([profile.user]))[0] if profile.user >= 0 else None,
        item=state.item_ids[row],
        title=state.titles[row],
        score=score,
        unit="score" if anonymous else state.model.output,
        value=score if anonymous else float(state.model.to_prediction(np.array([score], np.float32))[0]),
        parts=parts,
        own=own,
        rest=rest,
        shared=state.tokens.common(row, others, 2 * k),
        seen=len(others) < len(profile.history),
    )


def _score_parts(state: FittedState, profile: UserProfile, row: int) -> tuple[float, dict[str, float]]:
    """Return a score, as lists have it, and the parts that add up to it."""
    score = float(scores_of(state, profile, np.array([row]))[0])
    if profile.vector is None:
        return score, {"popularity": score}
    parts = state.model.score_parts(profile.bias, row, score)
    if "collaborative" not in parts or state.content_model is None:
        return score, parts
    match = parts.pop("collaborative")
    if not state.counts[row]:  # its description is all that is known of it
        return score, parts | {"collaborative": 0.0, "text": match}
    vectors = state.content_model.content_vectors
    if vectors is None:
        return score, parts | {"collaborative": match}
    text = float(profile.vector.astype(np.float64) @ vectors[row])
    return score, parts | {"collaborative": match - text, "text": text}


def _evidence(
    state: FittedState, profile: UserProfile, row: int, k: int
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """Return the k items of a user that speak most for an item; and what the others add, where there is a sum."""
    found = None if profile.vector is None else contributions(state, profile, row)
    if found is None:
        others = profile.history[profile.history != row]
        cosines, places = nearest_of(state.model.item_vectors, others, np.array([row]), k)
        rows, values, kind, rest = others[places[0]], cosines[0], "nearest", None
    else:
        order = np.argsort(-found.values, kind="stable")
        left = found.values[order[k:]]
        rest = {"items": len(left), "value": float(left.sum())}
        rest |= {} if found.remainder is None else {"vector": found.remainder}
        rows, values, kind = found.rows[order[:k]], found.values[order[:k]], "contribution"
    named = [
        {"item": state.item_ids[at], "title": state.titles[at], "kind": kind, "value": value}
        for at, value in zip(rows.tolist(), values.tolist(), strict=True)
    ]
    return named, rest


class Contributions(NamedTuple):
    """What each item of a user adds to a score: item rows [n] and values [n].

    remainder: what no item adds: a vector of the user's own, or the mean user that a new one begins from.
    """

    rows: Rows
    values: NDArray[np.float64]
    remainder: float | None = None


def contributions(state: FittedState, profile: UserProfile, row: int) -> Contributions | None:
    """Return what each item of a user adds to their score of the item of a row, or None where that is no sum.

    It is a sum where users are made of their histories, and for whoever was folded in. It is none for a vector that
    training gave to a user, nor for the cosine with a history and such a vector, of which only the direction is kept.
    """
    assert profile.vector is not None
    vector, feedback, own_vector = profile.vector.astype(np.float64), profile.feedback, False
    if state.model.users_are_histories and profile.user >= 0:
        history = state.history(profile.user)
        feedback = Feedback.from_likes(history) if feedback is None else feedback.merged_with(history)
        own_vector = _adds_own_vector(state)
    elif feedback is None or profile.user >= 0:
        feedback = Feedback.from_likes(profile.history)
    folded = state.fold_in.fit_user(feedback)[0].astype(np.float64)
    is_folded = _same(folded, vector)
    found = state.fold_in.contributions(feedback, folded, row) if is_folded or own_vector else None
    if found is None:
        return None
    remainder = found.remainder
    if not is_folded:
        remainder = float((vector - folded) @ state.model.item_vectors[row].astype(np.float64))
    return Contributions(feedback.rows, found.values, remainder)


def _adds_own_vector(state: FittedState) -> bool:
    """Whether a user is the sum of their history and a vector of their own."""
    return not state.embeddings.normalized and state.metadata["settings"].get("user_tower") == "both"


def _same(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    return bool(np.abs(one - other).max(initial=0) <= _TOLERANCE * np.abs(other).max(initial=0))
