"""A model as it answers now: what was trained, and what its users rated since."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars.selectors as cs

from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.ask import Answer, Ask, answer_for, without_unknown
from recsys_embed.recommend.explain import explain_for
from recsys_embed.recommend.lists import scores_of
from recsys_embed.recommend.person import Person, somebody
from recsys_embed.recommend.recommender import Recommender
from recsys_embed.recommend.titles import TitleSearch
from recsys_embed.serve.events import EventLog, Said
from recsys_embed.serve.source import Found

# People with events whose vectors are kept at hand.
_AT_HAND = 10_000


def _seconds(created: object) -> float:
    """Return a time of a model's facts in seconds since 1970; that of its beginning for a model without one."""
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


class Live:
    """One model, with the events of its users laid over it. Nothing of the model is changed by them.

    name, folder, version: of the model. Safe to ask from several threads.
    """

    def __init__(self, recommender: Recommender, found: Found, events: EventLog) -> None:
        self.recommender, self.events = recommender, events
        self.name, self.folder, self.version = found
        self._created = _seconds(recommender.facts.get("created"))
        self._search: TitleSearch | None = None
        self._lock = threading.Lock()
        self._moved: OrderedDict[str, tuple[int, Person]] = OrderedDict()
        # Prepared before the first question rather than in it.
        recommender.index, recommender.item_ids, recommender.titles, recommender.fold  # noqa: B018

    @property
    def columns(self) -> list[str]:
        """What `where` may speak of."""
        return [*self.recommender.table.columns, "ratings"]

    def answer(self, ask: Ask) -> Answer:
        """Answer a question. Raises UnknownId and SettingError."""
        if ask.on_unknown == "skip":
            ask = replace(without_unknown(self.recommender, ask), user=ask.user)  # of a new user events may tell
        return answer_for(self.recommender, self.person(ask), ask)

    def person(self, ask: Ask) -> Person:
        """Return whom a question is about, with what they rated since the training."""
        recommender, user = self.recommender, ask.user
        last = None if user is None else self.events.last(str(user))
        if last is None:
            if ask.on_unknown == "skip" and user not in recommender.users:
                user = None
            return somebody(recommender, user, ask.likes, ask.dislikes, ask.ratings)
        if ask.likes or ask.dislikes or ask.ratings:
            return self._since(ask)
        kept = self._moved.get(str(user))
        if kept is not None and kept[0] == last:
            return kept[1]
        person = self._since(ask)
        self._moved[str(user)] = last, person
        while len(self._moved) > _AT_HAND:
            self._moved.popitem(last=False)
        return person

    def _since(self, ask: Ask) -> Person:
        """Return somebody as the model knows them, moved by what they rated since, and by what is asked with them."""
        recommender, known = self.recommender, ask.user in self.recommender.users
        row_of = recommender.items.rows
        now = set(row_of([*ask.likes, *ask.dislikes, *ask.ratings]).tolist())
        said = {row: what for row, what in self._said(ask.user).items() if row not in now}
        if not known and not said and not now and ask.on_unknown == "error":
            raise recommender.users.unknown(ask.user)
        ids = recommender.item_ids
        likes = [ids[row] for row, what in said.items() if what.rating is None]
        ratings = {ids[row]: what.rating for row, what in said.items() if what.rating is not None}
        user = ask.user if known else None
        return somebody(recommender, user, [*likes, *ask.likes], ask.dislikes, {**ratings, **ask.ratings})

    def _said(self, user: Id | None) -> dict[int, Said]:
        """Return what a user said since of the items that the model knows, by row, the oldest first.

        What was said before the model was made, of items that it was fitted on, is in it already.
        """
        recommender, events = self.recommender, self.events.of(str(user))
        rows = recommender.items.rows([said.item for said in events], missing="negative").tolist()
        fitted: set[int] = set()
        if user is not None and user in recommender.users:
            fitted = set(recommender.seen[recommender.users.row(user)].tolist())
        return {
            row: said
            for row, said in zip(rows, events, strict=True)
            if row >= 0 and not (row in fitted and said.received < self._created)
        }

    def explain(self, ask: Ask, item: Id) -> dict[str, Any]:
        """Return why an item is for whom a question is about. Raises UnknownId."""
        row = int(self.recommender.items.rows([item])[0])
        found = explain_for(self.recommender, self.person(ask), row).summary()
        return {**found, "user": self.named(ask.user)}

    def named(self, user: Id | None) -> Id | None:
        """Return a user's id as the model has it, or as it is given where the model does not know it."""
        cast = None if user is None else self.recommender.users.cast(user)
        return user if cast is None else cast

    def predict(self, user: Id, item: Id) -> dict[str, Any]:
        """Return what a user is expected to make of an item, and in what unit. Raises UnknownId."""
        recommender = self.recommender
        rows = recommender.items.rows([item])
        value = recommender.plain.meant(scores_of(recommender, self.person(Ask(user=user)), rows))
        named = {"user": self.named(user), **self.item(int(rows[0]))}
        return {**named, "value": float(value[0]), "unit": recommender.plain.link}

    def item(self, row: int) -> dict[str, Any]:
        """Return the id and the title of an item."""
        return {"item": self.recommender.item_ids[row], "title": self.recommender.titles[row]}

    def similar(self, item: Id, k: int) -> dict[str, Any]:
        """Return the k items nearest to one. Raises UnknownId."""
        table = self.recommender.similar(item, k)
        items = table.select(item="item_id", title="title", score="score", rank="rank").to_dicts()
        return {"item": self.recommender.items.cast(item), "items": items}

    def items(self, query: str, k: int, ids: Sequence[Id] = ()) -> list[dict[str, Any]]:
        """Return all that the item table says of k items whose titles hold a text, or of those with these ids.

        See `titles.TitleSearch`. Raises UnknownId.
        """
        if ids:
            return self._entries(self.recommender.items.rows(ids))
        recommender = self.recommender
        with self._lock:
            if self._search is None:
                self._search = TitleSearch(recommender.table["title"], recommender.counts)
        return self._entries(self._search.find(query, k))

    def _entries(self, rows: Rows) -> list[dict[str, Any]]:
        recommender = self.recommender
        table = recommender.table[rows].drop("item", "ratings", cs.binary(), strict=False)
        return table.rename({"item_id": "item"}).with_columns(ratings=recommender.counts[rows]).to_dicts()

    def history(self, user: Id) -> list[dict[str, Any]]:
        """Return what a user rated: what was rated since the training first. Raises UnknownId."""
        recommender = self.recommender
        said = self._said(user)
        rows = dict.fromkeys(reversed(said))
        if user in recommender.users or not said:
            own = recommender.seen[recommender.users.row(user)]
            order = (-recommender.counts[own]).argsort(kind="stable")
            rows |= dict.fromkeys(own[order].tolist())
        return [{**self.item(row), "rating": said[row].rating if row in said else None} for row in rows]
