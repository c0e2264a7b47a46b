"""Neighbours: item-item weights, and how a history of any length scores by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.models.base import Arrays
from recsys_embed.models.item_weights import Histories, Ints, ItemWeights, length_factors

_PREFIX, _WEIGHTS = "neighbours.", ("indptr", "target", "weight")

# A history of up to the first number of items has no discount on popular ones; the second has the power that is given.
_SHORT, _LONG = 5, 50


@dataclass(frozen=True)
class Neighbours:
    """What the items of a history add to the score of item i.

    sum over the history of amount x weights[i] / sqrt(total) / (ratings of i) ** power(total), where total is the sum
    of absolute amounts. The root lets a history of a few items weigh almost as much as a long one. power(total) =
    power x log(total / 5) / log(50 / 5), at least 0: those who have a lot seek less of what everybody has. (For both
    see experiments/LOG.md.)

    log_counts [items]: the logarithm of each item's ratings. power: that of histories of 50 items.
    """

    weights: ItemWeights
    log_counts: Floats
    power: float = 0.0

    def __len__(self) -> int:
        return len(self.weights)

    def scores(self, histories: Histories, rows: Rows | None = None) -> Floats:
        """Return the scores of the items, or of some item rows, for histories [b]: [b, items]."""
        out = self.weights.scores(histories.normalized(), rows)
        power = self.powers(histories.totals)
        if power.any():
            log_counts = self.log_counts if rows is None else self.log_counts[rows]
            out *= np.exp(-power[:, None] * log_counts)
        return out

    def sparse_scores(self, items: Rows | Ints, amounts: Floats) -> tuple[Rows, Floats]:
        """Return the items that get something from one history, ascending, and their scores up to a factor."""
        targets, scores = self.weights.sparse_scores(items, amounts)
        return targets, scores * np.exp(-self.powers(np.abs(amounts).sum()) * self.log_counts[targets])

    def contributions(self, items: Ints | Rows, amounts: Floats, row: int) -> NDArray[np.float64]:
        """Return what each of n items with amounts [n] adds to the score of an item row, [n]."""
        total = np.abs(amounts).sum()
        factor = length_factors(total) * np.exp(-self.powers(total) * self.log_counts[row])
        added: NDArray[np.float64] = amounts.astype(np.float64) * self.weights.between(items, np.array([row]))[:, 0]
        return added * factor

    def with_items(self, count: int) -> Neighbours:
        """Return the neighbours of `count` items; those added at the end have none."""
        log_counts = np.concatenate((self.log_counts, np.zeros(count - len(self), np.float32)))
        return replace(self, weights=self.weights.with_items(count), log_counts=log_counts)

    def scaled(self, factor: float) -> Neighbours:
        """Return the neighbours with all scores times a factor."""
        return replace(self, weights=replace(self.weights, weight=self.weights.weight * np.float32(factor)))

    def powers(self, total: Any) -> Floats:
        """Return the power of popularity for histories with these sums of absolute amounts."""
        length = np.log(np.maximum(total, _SHORT) / _SHORT) / np.log(_LONG / _SHORT)
        return np.asarray(self.power * length, np.float32)

    def save(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays, and the rest as JSON."""
        arrays = {_PREFIX + name: getattr(self.weights, name) for name in _WEIGHTS}
        return {**arrays, _PREFIX + "log_counts": self.log_counts}, {"popularity_power": self.power}

    @classmethod
    def load(cls, arrays: Arrays, metadata: Mapping[str, Any]) -> Neighbours:
        """Restore what `save` returned, here or before there was a discount. Raises KeyError if more is missing."""
        weights = ItemWeights(*(arrays[_PREFIX + name] for name in _WEIGHTS))
        log_counts = arrays.get(_PREFIX + "log_counts", np.zeros(len(weights), np.float32))
        return cls(weights, log_counts, metadata.get("popularity_power", 0.0))
