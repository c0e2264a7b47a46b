"""The model that a service answers with: a fitted state plus the events received since its training."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars.selectors as cs

from recsys_embed.answering.audience import audience_entries, similar_user_entries
from recsys_embed.answering.explain import explain
from recsys_embed.answering.items import SimilarBy, similar_entries
from recsys_embed.answering.predict import predict_for
from recsys_embed.answering.profile import ANONYMOUS, UserProfile, profile_of
from recsys_embed.answering.recommend import recommend_to
from recsys_embed.answering.request import Recommendations, RecommendRequest
from recsys_embed.answering.titles import TitleSearch
from recsys_embed.data.event_types import Interaction
from recsys_embed.data.ids import Id, Rows
from recsys_embed.errors import DataError
from recsys_embed.retrieval.base import NO_ROWS
from recsys_embed.serving.event_store import EventStore, ItemEvents
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.item_values import ItemValues
from recsys_embed.serving.items_file import ItemsTable
from recsys_embed.serving.model_source import FoundModel
from recsys_embed.serving.trend_of_events import TrendOfEvents
from recsys_embed.state.fitted import FittedState

# Most users with events whose profiles are cached.
_PROFILE_CACHE_SIZE = 10_000


def _seconds(created: object) -> float:
    """Return when a model was created in seconds since 1970; 0 for a model without a date."""
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


def _interaction(state: FittedState, events: ItemEvents) -> Interaction:
    """Return what a user's events of an item say. A rating counts unless the model goes by types of events."""
    by_type = state.event_types.types is not None and events.types != (None,)
    interaction = state.event_types.interaction(events.types)
    return interaction if by_type or events.rating is None else interaction._replace(rating=events.rating)


class ServedModel:
    """A model, and the events of its users, which are folded in when a request needs them.

    Events do not change the fitted state, but for its trend. Values of items that a store and a table set are in the
    state's item table, and so are items that they describe. name, folder, version: of the model. Thread-safe.
    Raises DataError for a table that does not fit the model.
    """

    def __init__(
        self,
        state: FittedState,
        found: FoundModel,
        events: EventStore,
        items: ItemStore | None = None,
        table: ItemsTable | None = None,
    ) -> None:
        self.events, self.fitted, self.found, self.table = events, state, found, table
        self.name, self.folder, self.version = found
        self.values = ItemValues(items or ItemStore(events), table)
        state = self.values.start(state)
        self._created = _seconds(state.metadata.get("created"))
        self._trend = TrendOfEvents(state, events, self._created)
        self._search: tuple[list[str], TitleSearch] | None = None
        self._lock, self._items_lock = threading.Lock(), threading.Lock()
        self._profiles: OrderedDict[str, tuple[int, UserProfile]] = OrderedDict()
        # Computed before the first request rather than in it.
        state = self.state
        state.index, state.item_ids, state.titles, state.fold_in  # noqa: B018

    @property
    def state(self) -> FittedState:
        """The fitted state, with the events in its trend if it has one."""
        return self._trend.state()

    def follow_items(self) -> None:
        """Take in the values of items that any process has set meanwhile. Cheap if there are none."""
        # Where they cannot be read any more, the items stay as they are, and /ready says so.
        with self._items_lock, contextlib.suppress(DataError):
            if self.values.are_new():
                self._trend.change(self.values.follow)

    @property
    def columns(self) -> list[str]:
        """The columns that `where` may name."""
        return [*self.state.table.columns, "ratings"]

    def recommend(self, request: RecommendRequest) -> Recommendations:
        """Answer a request. Raises UnknownId and SettingError."""
        if request.on_unknown != "error":  # a user who is unknown to the model may have events
            request = replace(request.without_unknown(self.state), user=request.user)
        return recommend_to(self.state, self.profile(request), request)

    def profile(self, request: RecommendRequest) -> UserProfile:
        """Return the profile of a request's user, with their events since the training folded in."""
        state, user = self.state, request.user
        last = None if user is None else self.events.last_seq(str(user))
        if last is None:
            if request.on_unknown != "error" and user not in state.users:
                user = None
            return profile_of(state, user, request.likes, request.dislikes, request.ratings)
        if request.likes or request.dislikes or request.ratings:
            return self._with_events(request)
        cached = self._profiles.get(str(user))
        if cached is not None and cached[0] == last:
            return cached[1]
        profile = self._with_events(request)
        if profile is ANONYMOUS:  # no event says anything: whether the user is unknown is for each request to say
            return profile
        self._profiles[str(user)] = last, profile
        while len(self._profiles) > _PROFILE_CACHE_SIZE:
            self._profiles.popitem(last=False)
        return profile

    def _with_events(self, request: RecommendRequest) -> UserProfile:
        """Return a user's profile, updated with their events and with the request's likes, dislikes and ratings."""
        state, known = self.state, request.user in self.state.users
        requested = state.items.rows([*request.likes, *request.dislikes, *request.ratings])
        events = self._events_of(request.user)
        if not known and not events and not len(requested) and request.on_unknown == "error":
            raise state.users.unknown(request.user)
        given = request.likes, request.dislikes, request.ratings
        interactions = {row: _interaction(state, event) for row, event in events.items()}
        return profile_of(state, request.user if known else None, *given, interactions)

    def _events_of(self, user: Id | None) -> dict[int, ItemEvents]:
        """Return a user's events by item row, the oldest first; events of unknown items are left out.

        So are events from before the model was created of items that it was fitted on: it contains them already.
        """
        state, events = self.state, self.events.by_item(str(user))
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
        """Explain an item for the request's user. Raises UnknownId."""
        row = int(self.state.items.rows([item])[0])
        found = explain(self.state, self.profile(request), row).summary()
        return {**found, "user": self.user_id(request.user)}

    def user_id(self, user: Id | None) -> Id | None:
        """Return a user's id in the type that the model uses, or as it was given if the model does not know it."""
        cast = None if user is None else self.state.users.cast(user)
        return user if cast is None else cast

    def predict(self, user: Id, item: Id) -> dict[str, Any]:
        """Predict a user's rating of an item, and name its unit. Raises UnknownId."""
        state = self.state
        rows = state.items.rows([item])
        value = predict_for(state, self.profile(RecommendRequest(user=user)), rows)
        return {
            "user": self.user_id(user),
            **self.item(int(rows[0])),
            "value": float(value[0]),
            "unit": state.model.output,
        }

    def item(self, row: int) -> dict[str, Any]:
        """Return the id and the title of an item."""
        return {"item": self.state.item_ids[row], "title": self.state.titles[row]}

    def similar(self, item: Id, k: int, by: SimilarBy | None = None, min_support: int = 0) -> dict[str, Any]:
        """Return the k items nearest to one. Raises UnknownId, and SettingError without embeddings."""
        return {"item": self.state.items.cast(item), **similar_entries(self.state, item, k, by, min_support)}

    def similar_users(self, user: Id, k: int) -> dict[str, Any]:
        """Return the k users nearest to one of the training. Raises UnknownId."""
        return {"user": self.user_id(user), **similar_user_entries(self.state, user, k)}

    def audience(self, item: Id, k: int, include_seen: bool, hide_test: bool) -> dict[str, Any]:
        """Return the k users most likely to want an item, without those who took it since the training.

        Raises UnknownId.
        """
        state, row = self.state, self.state.items.row(item)
        takers = NO_ROWS if include_seen else self._takers(row)
        return {**self.item(row), **audience_entries(state, row, k, include_seen, hide_test, takers)}

    def _takers(self, item: int) -> Rows:
        """Return the user rows, ascending, whose events hide an item from their lists."""
        state = self.state
        events = self.events.of_item(str(state.item_ids[item]))
        users = [user for user, types in events.items() if state.event_types.interaction(types).hides]
        rows = state.users.rows(users, missing="negative")
        return np.unique(rows[rows >= 0])

    def items(self, query: str, k: int, ids: Sequence[Id] = ()) -> list[dict[str, Any]]:
        """Return item table rows: of k items with the query in their titles, or of those with these ids.

        See `titles.TitleSearch`. Raises UnknownId.
        """
        if ids:
            return self._entries(self.state.items.rows(ids))
        state = self.state
        with self._lock:
            if self._search is None or self._search[0] is not state.titles:
                self._search = state.titles, TitleSearch(state.table["title"], state.item_counts)
            search = self._search[1]
        return self._entries(search.find(query, k))

    def _entries(self, rows: Rows) -> list[dict[str, Any]]:
        table = self.state.table[rows].drop("item", "ratings", cs.binary(), strict=False)
        return table.rename({"item_id": "item"}).with_columns(ratings=self.state.item_counts[rows]).to_dicts()

    def history(self, user: Id) -> list[dict[str, Any]]:
        """Return the items that a user rated, their events since the training first. Raises UnknownId."""
        state, events = self.state, self._events_of(user)
        rows = dict.fromkeys(reversed(events))
        if user in state.users or not events:
            seen = state.seen[state.users.row(user)]
            order = (-state.item_counts[seen]).argsort(kind="stable")
            rows |= dict.fromkeys(seen[order].tolist())
        return [{**self.item(row), "rating": events[row].rating if row in events else None} for row in rows]
