"""Item-item weights: what the items of a history add to the scores of other items, as sparse arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.kernels import use_kernel

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = NDArray[np.int32]

# Histories scored one by one where only some items are asked for.
_FEW_LINES = 64


@dataclass(frozen=True)
class Histories:
    """The items of each user with amounts, as compressed sparse rows: how much each item counts in a score.

    User u has item[indptr[u]:indptr[u + 1]] with the same part of amount. indptr: int64 [users + 1]; item: int32 [n];
    amount: float32 [n], 1 for a plain rating and below 0 for a dislike.
    """

    indptr: Rows
    item: Ints
    amount: Floats

    @classmethod
    def of(cls, matrix: csr_matrix) -> Histories:
        """Return the histories in a sparse matrix of amounts [users, items]."""
        matrix.sort_indices()
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def user(self, row: int) -> tuple[Ints, Floats]:
        """Return the items of a user and their amounts."""
        span = slice(self.indptr[row], self.indptr[row + 1])
        return self.item[span], self.amount[span]

    def __getitem__(self, users: Any) -> Histories:
        """Return the histories of some users: rows, or a slice."""
        if isinstance(users, slice):
            users = np.arange(*users.indices(len(self)))
        rows = np.asarray(users)
        count = self.indptr[1:][rows] - self.indptr[rows]
        indptr = np.concatenate(([0], np.cumsum(count)))
        at = np.repeat(self.indptr[rows] - indptr[:-1], count) + np.arange(indptr[-1])
        return Histories(indptr, self.item[at], self.amount[at])

    @property
    def totals(self) -> NDArray[np.float64]:
        """The sum of the absolute amounts of each history, [users]."""
        line = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        return np.bincount(line, np.abs(self.amount), minlength=len(self)).astype(np.float64)

    def normalized(self) -> Histories:
        """Return the histories with amounts divided by the square root of their sum, so that short ones count too."""
        factors = np.repeat(length_factors(self.totals), np.diff(self.indptr))
        return Histories(self.indptr, self.item, self.amount * factors)

    def with_users(self, count: int, changed: Mapping[int, tuple[Ints, Floats]]) -> Histories:
        """Return the histories of `count` users, where those in `changed` (by row) have these items and amounts."""
        size = np.zeros(count, np.int64)
        size[: len(self)] = np.diff(self.indptr)
        kept = np.ones(len(self), bool)
        for row, (items, _) in changed.items():
            size[row] = len(items)
            if row < len(self):
                kept[row] = False
        indptr = np.concatenate(([0], np.cumsum(size)))
        item, amount = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
        unchanged = np.flatnonzero(kept)
        old = self[unchanged]
        at = np.repeat(indptr[unchanged] - old.indptr[:-1], np.diff(old.indptr)) + np.arange(len(old.item))
        item[at], amount[at] = old.item, old.amount
        for row, values in changed.items():
            span = slice(indptr[row], indptr[row + 1])
            item[span], amount[span] = values
        return Histories(indptr, item, amount)


def length_factors(total: NDArray[Any]) -> Floats:
    """Return 1 / sqrt(total), or 1 where the total is 0. total: sums of absolute amounts."""
    return np.asarray(1 / np.sqrt(np.where(total > 0, total, 1)), np.float32)


@dataclass(frozen=True)
class ItemWeights:
    """A sparse matrix [items, items] by rows: item j adds weight[e] x its amount to item target[e] for e in row j.

    indptr: int64 [items + 1]; target: int32 [n], ascending within a row; weight: float32 [n].
    """

    indptr: Rows
    target: Ints
    weight: Floats

    @classmethod
    def of_neighbours(cls, neighbour: Ints, weight: Floats) -> ItemWeights:
        """Return the weights of each item's neighbours: weight[i, n] is what neighbour[i, n] (-1: none) adds to i."""
        used = (neighbour >= 0) & (weight != 0)
        source, target = neighbour[used], np.repeat(np.arange(len(neighbour), dtype=np.int32), used.sum(axis=1))
        order = np.argsort(source, kind="stable")  # the targets stay ascending
        counts = np.bincount(source, minlength=len(neighbour))
        return cls(np.concatenate(([0], np.cumsum(counts))), target[order], weight[used][order])

    @classmethod
    def of_matrix(cls, matrix: Floats) -> ItemWeights:
        """Return the weights of a dense matrix [items, items], where matrix[j, i] is what j adds to i."""
        source, target = np.nonzero(matrix)
        counts = np.bincount(source, minlength=len(matrix))
        return cls(np.concatenate(([0], np.cumsum(counts))), target.astype(np.int32), matrix[source, target])

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def with_items(self, count: int) -> ItemWeights:
        """Return the weights of `count` items; those added at the end neither give nor get anything."""
        end = np.full(count - len(self), self.indptr[-1])
        return ItemWeights(np.concatenate((self.indptr, end)), self.target, self.weight)

    def scores(self, histories: Histories, rows: Rows | None = None, targets: int | None = None) -> Floats:
        """Return the sums of what the items of histories [b] add, [b, items], or for some item rows.

        targets: their number, where what is added to are not the items.
        """
        b, n = len(histories), len(self) if targets is None else targets
        if rows is not None:
            if b > _FEW_LINES:
                return self.scores(histories)[:, rows]
            lines = [histories.user(line) for line in range(b)]
            sums = [amounts @ self.between(items, rows) for items, amounts in lines]
            return np.asarray(sums, np.float32).reshape(b, len(rows))
        work = len(histories.item) * max(1, len(self.target) // max(1, len(self))) + b * n
        if use_kernel("neighbours", work):
            from recsys_embed.kernels.compiled import parallel_for
            from recsys_embed.kernels.neighbours import add_neighbour_scores

            out = np.zeros((b, n), np.float32)
            arrays = self.indptr, self.target, self.weight
            parallel_for(
                b, add_neighbour_scores, out, histories.indptr, histories.item, histories.amount, *arrays, min_rows=8
            )
            return out
        if b == 1:
            return self._sums(*histories.user(0), n)[None]
        line = np.repeat(np.arange(b), np.diff(histories.indptr))
        at, entry = self._entries(histories.item)
        index = line[at] * n + self.target[entry]
        added = histories.amount[at].astype(np.float64) * self.weight[entry]
        return np.bincount(index, added, minlength=b * n).astype(np.float32).reshape(b, n)

    def _sums(self, items: Rows | Ints, amounts: Floats, n: int) -> Floats:
        """Return what the items of one history add to n targets, [n]: twice as fast as for several."""
        if not len(items):
            return np.zeros(n, np.float32)
        spans = [
            slice(*span) for span in zip(self.indptr[items].tolist(), self.indptr[items + 1].tolist(), strict=True)
        ]
        target, added = (np.concatenate([column[span] for span in spans]) for column in (self.target, self.weight))
        added *= np.repeat(amounts, self.indptr[1:][items] - self.indptr[items])
        return np.bincount(target, added, minlength=n).astype(np.float32)

    def sparse_scores(self, items: Rows | Ints, amounts: Floats) -> tuple[Rows, Floats]:
        """Return what the items of one history add: the items that get something, ascending, and the sums."""
        at, entry = self._entries(items)
        targets, place = np.unique(self.target[entry], return_inverse=True)
        added = np.bincount(place, amounts[at].astype(np.float64) * self.weight[entry], minlength=len(targets))
        return targets.astype(np.int64), added.astype(np.float32)

    def between(self, sources: Rows | Ints, rows: Rows) -> Floats:
        """Return what each source item adds to each item row, [sources, rows]."""
        distinct, place_of_row = np.unique(rows, return_inverse=True)
        out = np.zeros((len(sources), len(distinct)), np.float32)
        if out.size:
            at, entry = self._entries(sources)
            column = np.full(len(self), -1, np.int32)
            column[distinct] = np.arange(len(distinct))
            place = column[self.target[entry]]
            found = np.flatnonzero(place >= 0)
            out[at[found], place[found]] = self.weight[entry[found]]
        return out[:, place_of_row]

    def _entries(self, sources: Rows | Ints) -> tuple[Rows, Rows]:
        """Return (position in `sources`, entry) of every weight of some items, both [n]."""
        count = self.indptr[1:][sources] - self.indptr[sources]
        start = np.repeat(self.indptr[sources] - (np.cumsum(count) - count), count)
        return np.repeat(np.arange(len(sources)), count), start + np.arange(len(start))
