"""The items of each user, as compressed sparse rows (CSR)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_embed.data.ids import Rows
from recsys_embed.data.sorting import pair_keys, sorted_values


@dataclass(frozen=True)
class UserItems:
    """The items of each user: those of user u are `indices[indptr[u]:indptr[u + 1]]`, ascending.

    indptr: int64 [users + 1]. indices: int64 [n]. Both as in SciPy's csr_matrix.
    """

    indptr: Rows
    indices: Rows

    @classmethod
    def of(cls, user: Rows, item: Rows, users: int) -> UserItems:
        """Build it from (user, item) pairs in any order. users: the number of users."""
        count, width = np.bincount(user, minlength=users), int(item.max(initial=0)) + 1
        keys = sorted_values(pair_keys(user, item, width))
        return cls(np.concatenate(([0], np.cumsum(count))), keys - np.repeat(np.arange(users) * width, count))

    @classmethod
    def empty(cls, users: int) -> UserItems:
        """Build it for users who have no items."""
        return cls(np.zeros(users + 1, np.int64), np.zeros(0, np.int64))

    def checked(self, users: int, items: int) -> UserItems:
        """Return it. Raises ValueError unless it is of so many users, and of items among so many."""
        start, item = self.indptr, self.indices
        of_users = start.shape == (users + 1,) and item.ndim == 1 and start.dtype.kind == item.dtype.kind == "i"
        if not of_users or start[0] or start[-1] != len(item) or bool((start[1:] < start[:-1]).any()):
            raise ValueError(f"the items of {users:,} users do not lie one after the other")
        if len(item) and not 0 <= int(item.min()) <= int(item.max()) < items:
            raise ValueError(f"users have items that are not among the {items:,}")
        return self

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, user: int) -> Rows:
        return self.indices[self.indptr[user] : self.indptr[user + 1]]

    @cached_property
    def count(self) -> Rows:
        """The number of items of each user, int64 [users]."""
        return np.diff(self.indptr)

    def pairs_of(self, users: Rows) -> tuple[Rows, Rows]:
        """Return (position in `users`, item) for every item of the given users, both int64 [n]; -1 has none."""
        count = np.where(users < 0, 0, self.count[users])
        shift = self.indptr[users] - (np.cumsum(count) - count)
        at = np.repeat(shift, count)
        at += np.arange(len(at))
        return np.repeat(np.arange(len(users)), count), self.indices[at]

    def contains(self, user: Rows, item: Rows) -> NDArray[np.bool_]:
        """Return for (user, item) pairs, both [n], whether the user has the item, bool [n]; -1 is nobody, and nothing.

        It takes time for the items of these users only, however many others there are.
        """
        known = (user >= 0) & (item >= 0)
        users, line = np.unique(user[known], return_inverse=True)
        position, items = self.pairs_of(users)
        width = 1 + max(int(items.max(initial=0)), int(item.max(initial=0)))
        keys, wanted = pair_keys(position, items, width), pair_keys(line, item[known], width)
        at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
        found = np.zeros(len(user), bool)
        if len(keys):
            found[known] = keys[at] == wanted
        return found

    def transposed(self, items: int) -> UserItems:
        """Return the users of each item, by item row. items: the number of items."""
        return UserItems.of(self.indices, np.repeat(np.arange(len(self.count)), self.count), items)

    def union(self, other: UserItems) -> UserItems:
        """Return the items of both; no user may have an item in both."""
        users = np.arange(len(self.indptr) - 1)
        user, item = (np.concatenate(c) for c in zip(self.pairs_of(users), other.pairs_of(users), strict=True))
        return UserItems.of(user, item, len(users))

    def with_users(self, users: int) -> UserItems:
        """Return the same for `users` users; those added at the end have no items."""
        end = np.full(users + 1 - len(self.indptr), len(self.indices), np.int64)
        return UserItems(np.concatenate((self.indptr, end)), self.indices)

    def with_self_loops(self) -> UserItems:
        """Return the same for a graph, with every node added to its own neighbours."""
        nodes = np.arange(len(self.indptr) - 1)
        user = np.repeat(nodes, self.count)
        below = np.bincount(user[self.indices < user], minlength=len(nodes))
        item = np.insert(self.indices, self.indptr[:-1] + below, nodes)
        return UserItems(self.indptr + np.arange(len(self.indptr)), item)
