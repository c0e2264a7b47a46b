"""Explanations: the components of an item's score, and the items of the user that support it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_embed.answering.exclusions import excluded_rows
from recsys_embed.answering.predict import predict_for
from recsys_embed.answering.profile import UserProfile
from recsys_embed.answering.rank import scores_of
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.data.ids import Id, Rows
from recsys_embed.forks import needs_threads
from recsys_embed.models.base import OutputKind
from recsys_embed.models.embedding import EmbeddingModel
from recsys_embed.models.fold_in.base import Feedback
from recsys_embed.models.hybrid import HybridUser, embedding_of
from recsys_embed.retrieval.nearest import largest
from recsys_embed.state.fitted import FittedState

# Relative tolerance between a vector and its recomputation: the rounding error of a float32 sum.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Explanation:
    """Why an item is recommended to a user.

    user: an id, or None for a user whom the model does not know.
    score: as in a list; the sum of `components`: offset, user_bias and item_bias, then collaborative and, for a model
        with descriptions, text; or mlp, which cannot be split; then trend, for a model that has one; or popularity
        alone, for an anonymous user.
    value: the prediction, in `unit`.
    evidence: {"item", "title", "kind", "value"}, the user's items that support it most. For the kind "contribution",
        the value is what the item adds to the score; together with `remainder` ("items" and "value" of the items not
        listed, "vector" for the user's individual vector) they add up to collaborative and text. For the kind
        "nearest", the value is the cosine.
    common_tokens: {"column", "token", "items"}, tokens that describe the item and this many items of the user.
    seen: whether the item is already in the user's history. hidden: whether the user's lists leave it out.
    """

    user: Id | None
    item: Id
    title: str
    score: float
    unit: OutputKind
    value: float
    components: dict[str, float]
    evidence: list[dict[str, Any]]
    remainder: dict[str, float] | None
    common_tokens: list[dict[str, Any]]
    seen: bool
    hidden: bool

    def summary(self) -> dict[str, Any]:
        """Return the explanation as `recsys explain --json` and the service do, without the name of the model.

        Their keys are a contract with programs, so that `hidden`, which came later, is not among them.
        """
        return {_JSON_KEYS.get(name, name): value for name, value in asdict(self).items() if name != "hidden"}


# JSON keys of the fields that are named differently there.
_JSON_KEYS = {"components": "parts", "evidence": "own", "remainder": "rest", "common_tokens": "shared"}


@needs_threads("an explanation")
def explain(state: FittedState, profile: UserProfile, row: int, k: int = 5) -> Explanation:
    """Explain the recommendation of an item row to a user. k: number of items to list; up to 2 k tokens are listed."""
    score, components = _score_components(state, profile, row)
    evidence, remainder = _evidence(state, profile, row, k)
    others = profile.history[profile.history != row]
    anonymous = profile.vector is None
    return Explanation(
        user=state.users.ids(np.array([profile.user]))[0] if profile.user >= 0 else None,
        item=state.item_ids[row],
        title=state.titles[row],
        score=score,
        unit="score" if anonymous else state.model.output,
        value=float(predict_for(state, profile, np.array([row]))[0]),
        components=components,
        evidence=evidence,
        remainder=remainder,
        common_tokens=state.tokens.common(row, others, 2 * k),
        seen=len(others) < len(profile.history),
        hidden=bool(np.isin(row, excluded_rows(state, profile, RecommendRequest()))),
    )


def _score_components(state: FittedState, profile: UserProfile, row: int) -> tuple[float, dict[str, float]]:
    """Return the score of an item, as in a list, and the components that add up to it."""
    score = float(scores_of(state, profile, np.array([row]))[0])
    if profile.vector is None:
        return score, {"popularity": score}
    if state.trend is None:
        return score, _model_components(state, profile, row, score)
    trend = float(state.trend_scores[row])
    return score, _model_components(state, profile, row, score - trend) | {"trend": trend}


def _model_components(state: FittedState, profile: UserProfile, row: int, score: float) -> dict[str, float]:
    """Return the components of what the model itself scores an item."""
    components = state.model.score_components(profile.vector, profile.bias, row, score)
    if "collaborative" not in components or state.content_model is None:
        return components
    product = components.pop("collaborative")
    if not state.item_counts[row]:  # the vector of a cold item comes from its description alone
        return components | {"collaborative": 0.0, "text": product}
    vectors = state.content_model.content_vectors
    if vectors is None:
        return components | {"collaborative": product}
    text = float(embedding_of(profile.vector).astype(np.float64) @ vectors[row])
    return components | {"collaborative": product - text, "text": text}


def _evidence(
    state: FittedState, profile: UserProfile, row: int, k: int
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """Return the k items of a user that support an item most, and what the others add if the score is a sum."""
    added = None if profile.vector is None else contributions(state, profile, row)
    if added is None:
        others = profile.history[profile.history != row]
        cosines, positions = largest(state.model.support(others, np.array([row])), k)
        rows, values, kind, remainder = others[positions[0]], cosines[0], "nearest", None
    else:
        order = np.argsort(-added.values, kind="stable")
        unlisted = added.values[order[k:]]
        remainder = {"items": len(unlisted), "value": float(unlisted.sum())}
        remainder |= {} if added.remainder is None else {"vector": added.remainder}
        rows, values, kind = added.rows[order[:k]], added.values[order[:k]], "contribution"
    evidence = [
        {"item": state.item_ids[item], "title": state.titles[item], "kind": kind, "value": value}
        for item, value in zip(rows.tolist(), values.tolist(), strict=True)
    ]
    return evidence, remainder


class Contributions(NamedTuple):
    """What each item of a user adds to a score: item rows [n] and values [n].

    remainder: what no item adds: the user's individual vector, or the mean user that a new user starts from.
    """

    rows: Rows
    values: NDArray[np.float64]
    remainder: float | None = None


def contributions(state: FittedState, profile: UserProfile, row: int) -> Contributions | None:
    """Return what each item of a user adds to their score of an item row, or None if the score is not such a sum.

    It is a sum for users of a history model, and for users who were folded in. It is not for a user vector that was
    trained directly, nor with a cosine scorer for the sum of a history and such a vector, since it was normalized.
    """
    assert profile.vector is not None
    feedback, has_own_vector = profile.feedback, False
    if state.model.has_history_users and profile.user >= 0:
        history = state.history(profile.user)
        feedback = Feedback.from_likes(history) if feedback is None else feedback.merged_with(history)
        has_own_vector = _has_own_vectors(state)
    elif feedback is None or profile.user >= 0:
        feedback = Feedback.from_likes(profile.history)
    if isinstance(profile.vector, HybridUser):
        found = state.fold_in.contributions(feedback, profile.vector, row)
        assert found is not None
        return Contributions(feedback.rows, *found)
    folded = state.fold_in.fit_user(feedback)[0]
    is_folded_in = _is_close(folded, profile.vector)
    added = state.fold_in.contributions(feedback, folded, row) if is_folded_in or has_own_vector else None
    if added is None:
        return None
    remainder = added.remainder
    if not is_folded_in:
        item = state.model.item_vectors[row].astype(np.float64)
        remainder = float((profile.vector.astype(np.float64) - folded) @ item)
    return Contributions(feedback.rows, added.values, remainder)


def _has_own_vectors(state: FittedState) -> bool:
    """Return whether a user is the sum of their history and of an individual vector."""
    if not isinstance(state.model, EmbeddingModel) or state.model.normalized:
        return False
    return state.metadata["settings"].get("user_tower") == "both"


def _is_close(actual: NDArray[np.floating], expected: NDArray[np.floating]) -> bool:
    return bool(np.abs(actual - expected).max(initial=0) <= _TOLERANCE * np.abs(expected).max(initial=0))
