"""What an index of items is, and what it asks of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows

Pairs = tuple[Rows, Rows]


Mask = NDArray[np.bool_]


NO_ROWS = np.zeros(0, np.int64)


class ItemScorer(Protocol):
    """A model whose items can be ranked."""

    @property
    def item_vectors(self) -> Floats:
        """The items, [n, e]."""
        ...

    def score(self, queries: Any, rows: Rows | None = None) -> Floats:
        """Return the scores of queries [b, q] with all items, or with some item rows: a new array."""
        ...


class VectorScorer(ItemScorer, Protocol):
    """A model that scores by vectors [n, d] and biases [n] of its items, and by layers where it has any."""

    @property
    def items(self) -> Floats:
        """The items' vectors, [n, d]."""
        ...

    @property
    def item_bias(self) -> Floats:
        """The items' biases, [n]."""
        ...

    @property
    def layers(self) -> Sequence[tuple[Floats, Floats]]:
        """Weights and biases of a perceptron; none for a dot product."""
        ...

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...


class Index(Protocol):
    """Finds the k best keys of queries."""

    def __len__(self) -> int:
        """Return the number of keys."""
        ...

    def search(
        self, queries: Floats, k: int, allowed: Mask | None = None, exclude: Pairs | None = None
    ) -> tuple[Floats, Rows]:
        """Return (scores [b, k'], rows [b, k']), best first, for queries [b, d]; k' = min(k, keys).

        allowed: bool [n], keys that may be found. exclude: (query, key) pairs, ascending by query, that may not.
        Where fewer are left, the end of a line holds row -1 and score -inf; that is where keys go whose score is -inf
        or no number. Equal scores go by ascending row.
        """
        ...


def check_exclusions(n: int, allowed: Mask | None, exclude: Pairs | None) -> Pairs:
    """Return what is excluded; refuse what names no key of n."""
    if allowed is not None and len(allowed) != n:
        raise ValueError(f"allowed must say of each of {n} keys whether it is, and says so of {len(allowed)}")
    if exclude is None:
        return NO_ROWS, NO_ROWS
    if len(exclude[1]) and not 0 <= exclude[1].min() <= exclude[1].max() < n:
        raise IndexError(f"of {n} keys, one is excluded that is none of them")
    return exclude
