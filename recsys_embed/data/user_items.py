"""The items of each user, in compressed rows (CSR)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.data.sorting import ascending, pair_keys

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class UserItems:
    """The items of each user: those of user u are `item[start[u]:start[u + 1]]`, ascending.

    start: int64 [users + 1]. item: int64 [n].
    """

    start: Rows
    item: Rows

    @classmethod
    def of(cls, user: Rows, item: Rows, users: int) -> UserItems:
        """Sort (user, item) rows by user and item."""
        count, width = np.bincount(user, minlength=users), int(item.max(initial=0)) + 1
        keys = ascending(pair_keys(user, item, width))
        return cls(np.concatenate(([0], np.cumsum(count))), keys - np.repeat(np.arange(users) * width, count))

    @classmethod
    def nothing(cls, users: int) -> UserItems:
        """Nobody has seen anything."""
        return cls(np.zeros(users + 1, np.int64), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, user: int) -> Rows:
        return self.item[self.start[user] : self.start[user + 1]]

    @cached_property
    def count(self) -> Rows:
        """Items a user has, int64 [users]."""
        return np.diff(self.start)

    def of_users(self, users: Rows) -> tuple[Rows, Rows]:
        """Return (position in `users`, item) of everything that the given users have seen, both int64 [n]."""
        count = self.count[users]
        shift = self.start[users] - (np.cumsum(count) - count)
        place = np.repeat(shift, count)
        place += np.arange(len(place))
        return np.repeat(np.arange(len(users)), count), self.item[place]

    def union(self, other: UserItems) -> UserItems:
        """Return what is in one or the other; the two must not overlap."""
        users = np.arange(len(self.start) - 1)
        user, item = (np.concatenate(c) for c in zip(self.of_users(users), other.of_users(users), strict=True))
        return UserItems.of(user, item, len(users))

    def with_users(self, users: int) -> UserItems:
        """Return the same with so many users; those at the end have no items."""
        end = np.full(users + 1 - len(self.start), len(self.item), np.int64)
        return UserItems(np.concatenate((self.start, end)), self.item)

    def with_self_loops(self) -> UserItems:
        """Return the same with every node among its own neighbours."""
        nodes = np.arange(len(self.start) - 1)
        user = np.repeat(nodes, self.count)
        below = np.bincount(user[self.item < user], minlength=len(nodes))
        item = np.insert(self.item, self.start[:-1] + below, nodes)
        return UserItems(self.start + np.arange(len(self.start)), item)
