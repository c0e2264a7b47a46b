"""A request for recommendations, and its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from recsys_embed.arrays import Floats
from recsys_embed.config.answers import NO_RULES, OnUnknown, Rules
from recsys_embed.data.ids import Id, Rows
from recsys_embed.state.fitted import FittedState

# What a list goes by: the vector of a user of the model, or of somebody else's feedback; or what is popular, lately or
# ever.
ListOrigin = Literal["personal", "session", "recent", "popular"]


@dataclass(frozen=True)
class Exploration:
    """Places of a list that new items get. share: of the places, on average; max_ratings: most training ratings of a
    new item; key: the same text makes the same choice, e.g. a user and a day."""

    share: float
    max_ratings: int = 5
    key: str = ""


@dataclass(frozen=True)
class RecommendRequest:
    """Who a list is for, how long it is, and what it may hold.

    user: the id of a known user; likes, dislikes (item ids) and ratings (by item id): feedback of a new user, or, with
    `user`, recent feedback of a known one. Without any of these, the list is for an anonymous user.
    k: length of the list. candidates: item ids to choose from; None for all. exclude: item ids to leave out.
    include_seen: allow items of the user's history. hide_test: leave out their held-out items. explain: add to each
    item the items of the user's history nearest to it. on_unknown: whether unknown ids are an "error", or "skip" to
    ignore them; an unknown user is then treated as a new one. "popular" differs for files of lists only: unknown users
    have a list there, that of an anonymous user. exploration: which places new items get; None: those that
    their scores bring.
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
    on_unknown: OnUnknown = "error"
    exploration: Exploration | None = None

    def without_unknown(self, state: FittedState) -> RecommendRequest:
        """Return the request without ids that the model does not know."""
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
    """Recommended item rows and their scores, best first.

    nearest[n]: rows of the user's items nearest to the n-th item, if the request asked for them. shortfall: why there
    are fewer items than requested, or None. origin: what the list goes by. explored: the places, from 0, of items that
    are there because they are new.
    """

    state: FittedState
    rows: Rows
    scores: Floats
    nearest: list[list[int]] | None = None
    shortfall: str | None = None
    origin: ListOrigin = "popular"
    explored: Collection[int] = ()

    def entries(self) -> list[dict[str, Any]]:
        """Return the list as dicts, as in `recsys recommend --json` and the service."""
        ids, titles = self.state.item_ids, self.state.titles
        entries: list[dict[str, Any]] = [
            {"item": ids[row], "title": titles[row], "score": score, "rank": rank}
            for rank, (row, score) in enumerate(zip(self.rows.tolist(), self.scores.tolist(), strict=True), 1)
        ]
        for entry, nearest in zip(entries, self.nearest or (), strict=False):
            entry["why"] = [{"item": ids[row], "title": titles[row]} for row in nearest]
        for place in self.explored:
            entries[place]["from"] = "exploration"
        return entries
