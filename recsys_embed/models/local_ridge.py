"""Item neighbours with weights from ridge regression: a closed form in sparse arrays, for up to millions of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recsys_embed.arrays import Floats
from recsys_embed.data.disk import PROGRAM_BYTES
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.kernels import use_kernel
from recsys_embed.models.item_weights import Ints, ItemWeights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# A user with n items weighs n to the power of minus this in the co-occurrences (experiments/LOG.md).
_BALANCE = 0.5
# The most neighbours of an item with n users: the first, and n times the second. Few users tell no more neighbours
# apart, and the time goes with the cube (experiments/LOG.md).
_FREE_NEIGHBOURS, _NEIGHBOURS_PER_USER = 10, 2
# Added to the denominator of the cosine by which neighbours are chosen.
_SHRINKAGE = np.float32(20.0)
# Co-occurrences that are kept: 8 bytes each. Where there are more, each item keeps those with its most similar ones.
MAX_ENTRIES = 200_000_000
# Bytes for each neighbour of an item, under a few penalties; for each rating; and for each co-occurrence.
_BYTES_A_NEIGHBOUR, _BYTES_A_RATING, _BYTES_AN_ENTRY = 40, 60, 8


class Penalty(NamedTuple):
    """A ridge penalty of l2 + share x (the neighbour's own co-occurrence)."""

    l2: float
    share: float


class Sizes(NamedTuple):
    """What regressions may take: ratings, neighbours of an item, and co-occurrences."""

    ratings: int
    neighbours: int
    entries: int


def sizes_in(memory: int, items: int, neighbours: int) -> Sizes:
    """Return what regressions may take within so many bytes, of at most so many neighbours."""
    free = max(memory - PROGRAM_BYTES, memory // 10)
    fewer = min(neighbours, max(1, free // 2 // (items * _BYTES_A_NEIGHBOUR)))
    rest = free - fewer * items * _BYTES_A_NEIGHBOUR
    return Sizes(rest // 2 // _BYTES_A_RATING, fewer, min(MAX_ENTRIES, max(items, rest // 2 // _BYTES_AN_ENTRY)))


class LocalRidge:
    """Regress each item on its nearest neighbours.

    With G = X' D X, where X holds the users' items and D weights users by their activity, the neighbours of item i are
    the items with the highest G_ij / (sqrt(G_ii G_jj) + shrinkage), at most `neighbours` and fewer for an item with few
    users. Their weights w solve (G_nn + l2 I + share
    diag(G_nn)) w = G_ni. It is EASE (Steck, WWW 2019) made local, as SLIM with neighbourhoods chosen before (Ning and
    Karypis, ICDM 2011, section 4.2), and without an items x items matrix. The share is what dropout in a linear
    autoencoder comes to (EDLAE: Steck, NeurIPS 2020, eq. 9).
    """

    def __init__(
        self, train: Ratings, neighbours: int, amounts: Floats | None = None, max_entries: int = MAX_ENTRIES
    ) -> None:
        """Count the co-occurrences, and keep so many. amounts [n]: how much each rating counts, above 0; 1 each by
        default."""
        self.max_entries = max_entries
        self.history = balanced_history(train, amounts)
        self.items = self.history.shape[1]
        self.neighbours = max(1, min(neighbours, self.items - 1))
        users = np.bincount(self.history.indices, minlength=self.items)
        most = _FREE_NEIGHBOURS + _NEIGHBOURS_PER_USER * users
        self.limits = np.minimum(self.neighbours, most).astype(np.int32)  # neighbours of each item
        self.total = np.asarray(self.history.multiply(self.history).sum(axis=0), np.float32).ravel()

    @property
    def work(self) -> float:
        """The multiplications in the regressions under one penalty."""
        return float((self.limits.astype(np.float64) ** 3).sum() / 3)

    def fit(
        self, penalties: Sequence[Penalty], progress: Callable[[float, float], None] | None = None
    ) -> list[ItemWeights]:
        """Return the weights under each penalty. progress: told of items done, and of how many there are."""
        entries, progress = int(np.minimum(self._bounds, self.items - 1).sum()), progress or (lambda done, total: None)
        if use_kernel("neighbours", entries):
            neighbour, weight = self._fit_numba(penalties, progress)
        else:
            neighbour, weight = self._fit(penalties)
        return [ItemWeights.of_neighbours(neighbour, w) for w in weight]

    @cached_property
    def _bounds(self) -> Rows:
        """For each item, at least as many as the items that it occurs with, [items]."""
        history = self.history.copy()
        history.data[:] = 1
        bounds: Rows = (history.T @ (np.diff(history.indptr) - 1.0)).astype(np.int64)
        return bounds

    @cached_property
    def _rows(self) -> tuple[Rows, Rows, Ints, Ints, Floats]:
        """The co-occurrences by item, see `kernels.cooccurrence_rows`: order, indptr, count, column, value."""
        from recsys_embed.kernels.compiled import parallel_for
        from recsys_embed.kernels.neighbours import cooccurrence_rows

        limit = self.items - 1
        while np.minimum(self._bounds, limit).sum() > self.max_entries and limit > 2 * self.neighbours:
            limit = int(0.8 * limit)
        indptr = np.concatenate(([0], np.cumsum(np.minimum(self._bounds, limit))))
        order = np.random.default_rng(0).permutation(self.items)  # so that threads get equal shares of popular items
        count, column = np.zeros(self.items, np.int32), np.empty(indptr[-1], np.int32)
        value = np.empty(indptr[-1], np.float32)
        by_item = self.history.tocsc()
        parallel_for(
            self.items, cooccurrence_rows, order, indptr, count, column, value,
            by_item.indptr, by_item.indices, by_item.data,
            self.history.indptr, self.history.indices, self.history.data, self.total, _SHRINKAGE, min_rows=16,
        )  # fmt: skip
        return order, indptr, count, column, value

    def _fit_numba(self, penalties: Sequence[Penalty], progress: Callable[[float, float], None]) -> tuple[Ints, Floats]:
        """Do what `_fit` does, on all threads and in bounded memory."""
        from recsys_embed.kernels.compiled import parallel_for
        from recsys_embed.kernels.neighbours import local_ridge

        order, *rows = self._rows
        l2, share = (np.array(column, np.float32) for column in zip(*penalties, strict=True))
        neighbour = np.empty((self.items, self.neighbours), np.int32)
        weight = np.empty((len(penalties), self.items, self.neighbours), np.float32)
        arguments = neighbour, weight, *rows, self.total, l2, share, _SHRINKAGE, self.limits
        for start in range(0, self.items, step := max(256, self.items // 50)):
            part = order[start : start + step]
            parallel_for(len(part), local_ridge, part, *arguments, min_rows=16)
            progress(start + len(part), self.items)
        return neighbour, weight

    def _fit(self, penalties: Sequence[Penalty]) -> tuple[Ints, Floats]:
        """Return the neighbours of each item [items, k], -1 for none, and their weights [penalties, items, k]."""
        gram = (self.history.T @ self.history).tocsr()
        neighbour = np.full((self.items, self.neighbours), -1, np.int32)
        weight = np.zeros((len(penalties), *neighbour.shape), np.float32)
        for i in range(self.items):
            span = slice(gram.indptr[i], gram.indptr[i + 1])
            others = gram.indices[span] != i
            column, value = gram.indices[span][others], gram.data[span][others]
            order = np.argsort(column)
            column, value = column[order], value[order]
            similar = value / (np.sqrt(self.total[i] * self.total[column]) + _SHRINKAGE)
            best = np.sort(np.argsort(-similar, kind="stable")[: self.limits[i]])
            rows = column[best]
            neighbour[i, : len(rows)] = rows
            together = gram[rows][:, rows].toarray()
            for r, penalty in enumerate(penalties):
                ridge = np.diag(penalty.l2 + (penalty.share + 1e-6) * self.total[rows])
                weight[r, i, : len(rows)] = np.linalg.solve(together + ridge, value[best])
        return neighbour, weight


def balanced_history(train: Ratings, amounts: Floats | None = None) -> csr_matrix:
    """Return the users' items [users, items], sparse, where a user with n items weighs n to the power of -1/4.

    Their squares, in co-occurrences, weigh n to the power of `_BALANCE`; on average over ratings they weigh 1.
    """
    history = train.matrix(amounts)
    count = np.maximum(1, np.diff(history.indptr)).astype(np.float64)
    weight = count**-_BALANCE
    weight /= (weight @ count) / max(1.0, count.sum())
    history.data = (history.data * np.repeat(np.sqrt(weight), np.diff(history.indptr))).astype(np.float32)
    return history
