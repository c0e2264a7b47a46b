"""Six example lists: users of different kinds, what they had, what they get, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys_embed.answering.recommend import recommend
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.data.ids import Rows
from recsys_embed.reports.facts import Data, K
from recsys_embed.state.fitted import FittedState

_HISTORY = 6  # items of a user's history that are named


class Owned(NamedTuple):
    """An item that a user had. value: the rating, if ratings have values."""

    row: int
    value: float | None = None


class Entry(NamedTuple):
    """An item of a list. reasons: item rows of the user that support it. hit: whether the test says it was right."""

    row: int
    reasons: list[int]
    hit: bool


@dataclass(frozen=True)
class Example:
    """The list of one user. kind: which of the kinds it stands for. user: a row, or -1 for a new user.

    n_history, history: how many items the user has, and some of them. n_test: how many test ratings.
    """

    kind: str
    user: int
    n_history: int
    history: list[Owned]
    n_test: int
    entries: list[Entry]


def examples(state: FittedState, data: Data | None) -> list[Example]:
    """Return lists for users with few, a typical number, and many ratings, for the users whose lists turned out best
    and worst in the test, and for a new user.

    The first three are chosen by the number of their ratings alone, the next two by how their lists turned out.
    """
    answers = _Answers(state, data)
    chosen: dict[int, str] = {}
    by_size = _by_history(state)
    for kind, share in (("few", 0.1), ("typical", 0.5), ("many", 0.9)):
        if len(by_size):
            chosen.setdefault(int(by_size[int(share * (len(by_size) - 1))]), kind)
    for kind, user in _by_outcome(state):
        chosen.setdefault(user, kind)
    found = [answers.example(kind, user) for user, kind in chosen.items()]
    return [*found, answers.example("new", -1)]


def _by_history(state: FittedState) -> Rows:
    """Return the tested users, or else all, who have something, fewest ratings first."""
    users = np.arange(len(state.users))
    if state.per_user is not None and state.per_user.height:
        rows = state.users.rows(state.per_user["user_id"], missing="negative")
        users = np.sort(rows[rows >= 0])
    users = users[state.seen.count[users] > 0]
    return users[np.argsort(state.seen.count[users], kind="stable")]


def _by_outcome(state: FittedState) -> list[tuple[str, int]]:
    """Return the user with the best list, and the user with most ratings of those without a hit."""
    if state.per_user is None or not state.per_user.height:
        return []
    rows = state.users.rows(state.per_user["user_id"], missing="negative")
    quality = state.per_user[f"ndcg_at_{K}"].to_numpy()
    counts = np.where(rows >= 0, state.seen.count[rows], 0)
    known = np.flatnonzero(counts > 0)
    if not len(known):
        return []
    found = [("best", int(rows[known[np.argmax(quality[known])]]))]
    failed = known[quality[known] == 0]
    if len(failed):
        found.append(("nothing", int(rows[failed[np.argmax(counts[failed])]])))
    return found


class _Answers:
    """Asks the model for lists, and looks up what the users had."""

    def __init__(self, state: FittedState, data: Data | None) -> None:
        self.state, self.data = state, data

    def example(self, kind: str, user: int) -> Example:
        state = self.state
        id_ = None if user < 0 else state.users.ids(np.array([user]))[0]
        answer = recommend(state, RecommendRequest(user=id_, k=K, explain=True))
        test = self._test(user)
        reasons = answer.nearest or [[] for _ in answer.rows]
        entries = [Entry(row, why, row in test) for row, why in zip(answer.rows.tolist(), reasons, strict=True)]
        n_history = 0 if user < 0 else int(state.seen.count[user])
        return Example(kind, user, n_history, self._history(user), len(test), entries)

    def _test(self, user: int) -> set[int]:
        """Return the test items of a user: the positives, where the data are there."""
        if user < 0:
            return set()
        if self.data is None or self.data.test is None:
            return set(self.state.held_out[user].tolist())
        test = self.data.test
        return set(test.item[test.user == user].tolist())

    def _history(self, user: int) -> list[Owned]:
        """Return some items of a user: the latest or else the best rated, where the data are there."""
        if user < 0:
            return []
        own = self.state.seen[user]
        ratings = None if self.data is None else self.data.dataset.ratings
        if ratings is None:
            return [Owned(row) for row in own[:_HISTORY].tolist()]
        rows = ratings.users.rows(self.state.users.ids(np.array([user])), missing="negative")
        place = np.flatnonzero(ratings.user == rows[0]) if rows[0] >= 0 else np.zeros(0, np.int64)
        items = self.state.items.rows(ratings.items.ids(ratings.item[place]), missing="negative")
        place, items = (values[np.isin(items, own)] for values in (place, items))
        order = np.argsort(-(ratings.value if ratings.time is None else ratings.time)[place], kind="stable")[:_HISTORY]
        values = ratings.value[place[order]].tolist() if ratings.explicit else [None] * len(order)
        return [Owned(row, value) for row, value in zip(items[order].tolist(), values, strict=True)]
