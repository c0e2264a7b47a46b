"""A model as it answers now: the fitted state, with the events of its users laid over it."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars.selectors as cs

from recsys_embed.answering.explain import explain
from recsys_embed.answering.items import similar
from recsys_embed.answering.profile import UserProfile, profile_of
from recsys_embed.answering.rank import scores_of
from recsys_embed.answering.recommend import recommend_to
from recsys_embed.answering.request import Recommendations, RecommendRequest
from recsys_embed.answering.titles import TitleSearch
from recsys_embed.data.ids import Id, Rows
from recsys_embed.serving.event_store import EventLog, LatestFeedback
from recsys_embed.serving.model_source import FoundModel
from recsys_embed.state.fitted import FittedState

# Users with events whose profiles are kept in memory.
_PROFILE_CACHE_SIZE = 10_000


def _seconds(created: object) -> float:
    """Return the time of a model in seconds since 1970; 0 for a model without one."""
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


class LiveModel:
    """One model with the events of its users laid over it; events change nothing of the model.

    name, folder, version: of the model. Safe to ask from several threads.
    """

    def __init__(self, state: FittedState, found: FoundModel, events: EventLog) -> None:
        self.state, self.events = state, events
        self.name, self.folder, self.version = found
        self._created = _seconds(state.metadata.get("created"))
        self._search: TitleSearch | None = None
        self._lock = threading.Lock()
        self._profiles: OrderedDict[str, tuple[int, UserProfile]] = OrderedDict()
        # Made before the first request rather than in it.
        state.index, state.item_ids, state.titles, state.fold_in  # noqa: B018

    @property
    def columns(self) -> list[str]:
        """The columns that `where` may name."""
        return [*self.state.table.columns, "ratings"]

    def recommend(self, request: RecommendRequest) -> Recommendations:
        """Answer a request. Raises UnknownId and SettingError."""
        if request.on_unknown == "skip":  # events may tell of a user whom the model does not know
            request = replace(request.without_unknown(self.state), user=request.user)
        return recommend_to(self.state, self.profile(request), request)

    def profile(self, request: RecommendRequest) -> UserProfile:
        """Return the profile of whom a request names, with their events since the training folded in."""
        state, user = self.state, request.user
        last = None if user is None else self.events.last(str(user))
        if last is None:
            if request.on_unknown == "skip" and user not in state.users:
                user = None
            return profile_of(state, user, request.likes, request.dislikes, request.ratings)
        if request.likes or request.dislikes or request.ratings:
            return self._with_events(request)
        kept = self._profiles.get(str(user))
        if kept is not None and kept[0] == last:
            return kept[1]
        profile = self._with_events(request)
        self._profiles[str(user)] = last, profile
        while len(self._profiles) > _PROFILE_CACHE_SIZE:
            self._profiles.popitem(last=False)
        return profile

    def _with_events(self, request: RecommendRequest) -> UserProfile:
        """Return a user as the model knows them, updated with their events and with what the request says."""
        state, known = self.state, request.user in self.state.users
        now = set(state.items.rows([*request.likes, *request.dislikes, *request.ratings]).tolist())
        events = {row: event for row, event in self._events_of(request.user).items() if row not in now}
        if not known and not events and not now and request.on_unknown == "error":
            raise state.users.unknown(request.user)
        ids = state.item_ids
        likes = [ids[row] for row, event in events.items() if event.rating is None]
        ratings = {ids[row]: event.rating for row, event in events.items() if event.rating is not None}
        user = request.user if known else None
        return profile_of(state, user, [*likes, *request.likes], request.dislikes, {**ratings, **request.ratings})

    def _events_of(self, user: Id | None) -> dict[int, LatestFeedback]:
        """Return a user's latest events by row of the items that the model knows, the oldest first.

        Events from before the model was made, of items that it was fitted on, are in it already.
        """
        state, events = self.state, self.events.of(str(user))
        rows = state.items.rows([event.item for event in events], missing="negative").tolist()
        fitted: set[int] = set()
        if user is not None and user in state.users:
            fitted = set(state.seen[state.users.row(user)].tolist())
        return {
            row: event
            for row, event in zip(rows, events, strict=True)
            if row >= 0 and not (row in fitted and event.received < self._created)
        }

    def explain(self, request: RecommendRequest, item: Id) -> dict[str, Any]:
        """Return why an item is for whom a request names. Raises UnknownId."""
        row = int(self.state.items.rows([item])[0])
        found = explain(self.state, self.profile(request), row).summary()
        return {**found, "user": self.user_id(request.user)}

    def user_id(self, user: Id | None) -> Id | None:
        """Return a user's id as the model has it, or as it is given where the model does not know it."""
        cast = None if user is None else self.state.users.cast(user)
        return user if cast is None else cast

    def predict(self, user: Id, item: Id) -> dict[str, Any]:
        """Return what a user is expected to make of an item, and in what unit. Raises UnknownId."""
        state = self.state
        rows = state.items.rows([item])
        value = state.model.to_prediction(scores_of(state, self.profile(RecommendRequest(user=user)), rows))
        return {
            "user": self.user_id(user),
            **self.item(int(rows[0])),
            "value": float(value[0]),
            "unit": state.model.output,
        }

    def item(self, row: int) -> dict[str, Any]:
        """Return the id and the title of an item."""
        return {"item": self.state.item_ids[row], "title": self.state.titles[row]}

    def similar(self, item: Id, k: int) -> dict[str, Any]:
        """Return the k items nearest to one. Raises UnknownId."""
        table = similar(self.state, item, k)
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return {"item": self.state.items.cast(item), "items": items}

    def items(self, query: str, k: int, ids: Sequence[Id] = ()) -> list[dict[str, Any]]:
        """Return the rows of the item table of k items whose titles hold a text, or of those with these ids.

        See `titles.TitleSearch`. Raises UnknownId.
        """
        if ids:
            return self._entries(self.state.items.rows(ids))
        with self._lock:
            if self._search is None:
                self._search = TitleSearch(self.state.table["title"], self.state.counts)
        return self._entries(self._search.find(query, k))

    def _entries(self, rows: Rows) -> list[dict[str, Any]]:
        table = self.state.table[rows].drop("item", "ratings", cs.binary(), strict=False)
        return table.rename({"item_id": "item"}).with_columns(ratings=self.state.counts[rows]).to_dicts()

    def history(self, user: Id) -> list[dict[str, Any]]:
        """Return what a user rated, their events since the training first. Raises UnknownId."""
        state, events = self.state, self._events_of(user)
        rows = dict.fromkeys(reversed(events))
        if user in state.users or not events:
            seen = state.seen[state.users.row(user)]
            order = (-state.counts[seen]).argsort(kind="stable")
            rows |= dict.fromkeys(seen[order].tolist())
        return [{**self.item(row), "rating": events[row].rating if row in events else None} for row in rows]
