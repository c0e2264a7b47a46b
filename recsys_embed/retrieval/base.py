"""The interface of an index of items, and what it needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows

# Row pairs as two arrays [n], e.g. (query, item).
Pairs = tuple[Rows, Rows]

Mask = NDArray[np.bool_]

NO_ROWS = np.zeros(0, np.int64)


class ItemScorer(Protocol):
    """A model whose items can be ranked."""

    @property
    def item_vectors(self) -> Floats:
        """The item vectors, [n, e]."""
        ...

    def score(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries [b, q] for all items, or for some item rows, as a new array."""
        ...


class VectorScorer(ItemScorer, Protocol):
    """A model that scores by item vectors [n, d] and biases [n], and by the layers of an MLP if it has one."""

    @property
    def items(self) -> Floats:
        """The item vectors, [n, d]."""
        ...

    @property
    def item_bias(self) -> Floats:
        """The item biases, [n]."""
        ...

    @property
    def layers(self) -> Sequence[tuple[Floats, Floats]]:
        """Weights and biases of an MLP; empty for a dot product."""
        ...

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...


class Index(Protocol):
    """Finds the k best keys for each query."""

    def __len__(self) -> int:
        """Return the number of keys."""
        ...

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """Return (scores [b, k'], rows [b, k']), best first, for queries [b, d]; k' = min(k, keys).

        allowed: bool [n], the keys that may be returned. exclude: (query, key) pairs, ascending by query, that may not.
        If fewer than k' keys are left, the line is padded with row -1 and score -inf; a key whose score is -inf or NaN
        counts as missing. Equal scores are ordered by row.
        """
        ...


def check_exclusions(n: int, allowed: Mask | None, exclude: Pairs | None) -> Pairs:
    """Return the (query, key) pairs to exclude.

    Raises ValueError if the mask has not one value for each of n keys, IndexError if an excluded key does not exist.
    """
    if allowed is not None and len(allowed) != n:
        raise ValueError(f"allowed must hold one value for each of {n} keys; it holds {len(allowed)}")
    if exclude is None:
        return NO_ROWS, NO_ROWS
    if len(exclude[1]) and not 0 <= exclude[1].min() <= exclude[1].max() < n:
        raise IndexError(f"exclude names a key outside the {n} keys")
    return exclude
