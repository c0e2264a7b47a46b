"""A model as it answers now: what was trained, and what its users rated since."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from recsys_embed.ratings.vocab import Id, Rows
from recsys_embed.recommend.ask import Answer, Ask, answer_for
from recsys_embed.recommend.explain import explain_for
from recsys_embed.recommend.lists import scores_of
from recsys_embed.recommend.person import Person, somebody
from recsys_embed.recommend.recommender import Recommender
from recsys_embed.recommend.titles import TitleSearch
from recsys_embed.serve.events import EventLog
from recsys_embed.serve.source import Found

# People with events whose vectors are kept at hand.
_AT_HAND = 10_000


class Live:
    """One model, with the events of its users laid over it. Nothing of the model is changed by them.

    name, folder, version: of the model. Safe to ask from several threads. Raises BundleError.
    """

    def __init__(self, found: Found, events: EventLog) -> None:
        self.name, self.folder, self.version = found
        self.events = events
        self.recommender = recommender = Recommender.load(found.folder, mmap=True)
        self._search: TitleSearch | None = None
        self._lock = threading.Lock()
        self._moved: OrderedDict[str, tuple[int, Person]] = OrderedDict()
        # Prepared before the first question rather than in it.
        recommender.index, recommender.item_ids, recommender.titles  # noqa: B018

    def answer(self, ask: Ask) -> Answer:
        """Answer a question. Raises UnknownId and SettingError."""
        return answer_for(self.recommender, self.person(ask), ask)

    def person(self, ask: Ask) -> Person:
        """Return whom a question is about, with what they rated since the training."""
        if ask.user is None:
            return somebody(self.recommender, None, ask.likes, ask.dislikes, ask.ratings)
        since = self.events.of(str(ask.user))
        if not since:
            return somebody(self.recommender, ask.user, ask.likes, ask.dislikes, ask.ratings)
        if ask.likes or ask.dislikes or ask.ratings:
            return self._since(ask, since)
        user = str(ask.user)
        kept = self._moved.get(user)
        if kept is not None and kept[0] == len(since):
            return kept[1]
        person = self._since(ask, since)
        self._moved[user] = len(since), person
        while len(self._moved) > _AT_HAND:
            self._moved.popitem(last=False)
        return person

    def _since(self, ask: Ask, since: list[tuple[str, float | None]]) -> Person:
        """Return somebody as the model knows them, moved by what they rated since; the last word on an item counts."""
        items, users = self.recommender.items, self.recommender.users
        said: dict[Id, float | None] = {}
        for item, rating in since:
            if item in items:
                said[item] = rating
        likes = [item for item, rating in said.items() if rating is None]
        ratings: dict[Id, float] = {item: rating for item, rating in said.items() if rating is not None}
        user = ask.user if ask.user in users else None
        if user is None and not said and not (ask.likes or ask.dislikes or ask.ratings):
            raise users.unknown(ask.user)
        return somebody(self.recommender, user, [*likes, *ask.likes], ask.dislikes, {**ratings, **ask.ratings})

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
        found = recommender.table[rows].rename({"item_id": "item"}).with_columns(ratings=recommender.counts[rows])
        return found.to_dicts()

    def history(self, user: Id) -> list[dict[str, Any]]:
        """Return what a user rated: what was rated since the training first. Raises UnknownId."""
        recommender = self.recommender
        said = {int(recommender.items.rows([i])[0]): r for i, r in self.events.of(str(user)) if i in recommender.items}
        rows = dict.fromkeys(reversed(said))
        if user in recommender.users or not said:
            row = int(recommender.users.rows([user])[0])
            own = recommender.seen[row]
            order = (-recommender.counts[own]).argsort(kind="stable")
            rows |= dict.fromkeys(own[order].tolist())
        return [{**self.item(row), "rating": said.get(row)} for row in rows]
