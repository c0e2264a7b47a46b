"""A request for recommendations, and the list that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recsys_embed.arrays import Floats
from recsys_embed.config.settings import NO_RULES, Rules, UnknownName
from recsys_embed.data.ids import Id, Rows
from recsys_embed.state.fitted import FittedState


@dataclass(frozen=True)
class RecommendRequest:
    """For whom a list is asked, how long it is, and what it may hold.

    user: an id of the model; or likes, dislikes (item ids) and ratings (by item id) of a new user; or both, for a user
    with what they like lately. With none of them the list is for an anonymous user. candidates: item ids to choose
    from; exclude: item ids to leave out. include_seen: the user's own items may be in the list. hide_test: their
    held-out ratings may not. explain: say for each item which of the user's items are nearest to it.
    on_unknown: whether unknown ids are an "error", or are left out ("skip"): an unknown user is then a new one.
    """

    user: Id | None = None
    likes: Sequence[Id] = ()
    dislikes: Sequence[Id] = ()
    ratings: Mapping[Id, float] = field(default_factory=dict)
    k: int = 10
    candidates: Sequence[Id] | None = None
    exclude: Sequence[Id] = ()
    include_seen: bool = False
    hide_test: bool = False
    rules: Rules = NO_RULES
    explain: bool = False
    on_unknown: UnknownName = "error"

    def without_unknown(self, state: FittedState) -> RecommendRequest:
        """Return the request without the ids that the model does not know."""
        items = state.items
        return replace(
            self,
            user=self.user if self.user in state.users else None,
            likes=[item for item in self.likes if item in items],
            dislikes=[item for item in self.dislikes if item in items],
            ratings={item: value for item, value in self.ratings.items() if item in items},
            candidates=None if self.candidates is None else [item for item in self.candidates if item in items],
            exclude=[item for item in self.exclude if item in items],
        )


@dataclass(frozen=True)
class Recommendations:
    """A list: item rows and their scores, best first.

    nearest[n]: the rows of the user's items that are nearest to the n-th, where that was asked for. shortfall: why
    there are fewer items than asked for, or None.
    """

    state: FittedState
    rows: Rows
    scores: Floats
    nearest: list[list[int]] | None = None
    shortfall: str | None = None

    def entries(self) -> list[dict[str, Any]]:
        """Return the list as `recsys recommend --json` and the service give it."""
        ids, titles = self.state.item_ids, self.state.titles
        found = [
            {"item": ids[row], "title": titles[row], "score": score, "rank": rank}
            for rank, (row, score) in enumerate(zip(self.rows.tolist(), self.scores.tolist(), strict=True), 1)
        ]
        for entry, nearest in zip(found, self.nearest or (), strict=False):
            entry["why"] = [{"item": ids[row], "title": titles[row]} for row in nearest]
        return found
