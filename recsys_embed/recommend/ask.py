"""One question and its answer: the command line, the service and MLflow all ask here, so that they answer alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.config import NO_RULES, Rules, UnknownName
from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.lists import check_k, list_for
from recsys_embed.recommend.person import Person, somebody
from recsys_embed.recommend.rules import ready

if TYPE_CHECKING:
    from recsys_embed.recommend.recommender import Recommender


@dataclass(frozen=True)
class Ask:
    """A question for a list: for whom, how long, and of what.

    user: an id of the model; else likes, dislikes (item ids) and ratings (of items, by id) say what is known of
    somebody. With none of them the answer is for nobody in particular. among: item ids to choose from; exclude: ids to
    leave out. include_seen: what is theirs may appear too. hide_held: held-out ratings may not. why: give reasons.
    on_unknown: whether ids that the model does not know are an "error", or are left out ("skip"): a user then becomes
    somebody new.
    """

    user: Id | None = None
    likes: Sequence[Id] = ()
    dislikes: Sequence[Id] = ()
    ratings: Mapping[Id, float] = field(default_factory=dict)
    k: int = 10
    among: Sequence[Id] | None = None
    exclude: Sequence[Id] = ()
    include_seen: bool = False
    hide_held: bool = False
    rules: Rules = NO_RULES
    why: bool = False
    on_unknown: UnknownName = "error"


@dataclass(frozen=True)
class Answer:
    """A list: item rows and their scores, best first; why[n]: the rows of what speaks for the n-th, or None.

    short: why there are fewer than asked for, or None.
    """

    recommender: Recommender
    rows: Rows
    scores: Floats
    why: list[list[int]] | None = None
    short: str | None = None

    def entries(self) -> list[dict[str, Any]]:
        """Return the list as `recsys recommend --json` and the service have it."""
        ids, titles = self.recommender.item_ids, self.recommender.titles
        found = [
            {"item": ids[row], "title": titles[row], "score": score, "rank": rank}
            for rank, (row, score) in enumerate(zip(self.rows.tolist(), self.scores.tolist(), strict=True), 1)
        ]
        for entry, near in zip(found, self.why or (), strict=False):
            entry["why"] = [{"item": ids[row], "title": titles[row]} for row in near]
        return found


def answer(recommender: Recommender, ask: Ask) -> Answer:
    """Answer a question. Raises UnknownId and SettingError."""
    if ask.on_unknown == "skip":
        ask = without_unknown(recommender, ask)
    return answer_for(recommender, somebody(recommender, ask.user, ask.likes, ask.dislikes, ask.ratings), ask)


def without_unknown(recommender: Recommender, ask: Ask) -> Ask:
    """Return a question without the ids that the model does not know."""
    items = recommender.items
    return replace(
        ask,
        user=ask.user if ask.user in recommender.users else None,
        likes=[item for item in ask.likes if item in items],
        dislikes=[item for item in ask.dislikes if item in items],
        ratings={item: value for item, value in ask.ratings.items() if item in items},
        among=None if ask.among is None else [item for item in ask.among if item in items],
        exclude=[item for item in ask.exclude if item in items],
    )


def answer_for(recommender: Recommender, person: Person, ask: Ask) -> Answer:
    """Answer a question for somebody who was found already; what it says of whom it is for is not looked at."""
    check_k(ask.k)
    shown, hidden = ready(recommender, ask.rules, ask.among, ask.exclude), hidden_rows(recommender, person, ask)
    rows, scores, short = list_for(recommender, person, ask.k, shown, hidden)
    why = recommender.near_own(person.own, rows) if ask.why else None
    return Answer(recommender, rows, scores, why, short)


def hidden_rows(recommender: Recommender, person: Person, ask: Ask) -> Rows:
    """Return the item rows that may not stand in somebody's list because of who they are, ascending."""
    parts = [] if ask.include_seen else [person.own, person.disliked]
    if person.user >= 0:
        if recommender.shared:  # a node is never recommended to itself
            parts.append(np.array([person.user]))
        if ask.hide_held:
            parts.append(recommender.held[person.user])
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else person.own[:0]
    return np.unique(np.concatenate(parts))
