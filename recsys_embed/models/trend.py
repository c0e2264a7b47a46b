"""Trend: popularity with a half-life, and what of it is new."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings

_DAY = 86_400
# Recent ratings that an item's growth is shrunk by, and the share of all-time popularity in the recent one, which
# orders items that nobody rated lately (experiments/LOG.md).
_SHRINKAGE, _ALL_TIME = 0.3, 0.01
# The recent ratings that are kept of those of the training, as a share, however long nobody rates anything.
_FLOOR = 0.5


@dataclass(frozen=True)
class Trend:
    """What is rated more lately than before.

    recent [items]: each item's ratings, where one from time t counts 0.5 ** ((time - t) / half-life). time: seconds
    since 1970. half_life: in days. weight: how often an item's growth is added to its scores. trained [items]: the
    recent ratings at the end of the training. Where fewer than half as many are left, since few have come for long,
    they make up for the rest, so that a few new ratings after a gap do not decide all.
    """

    recent: NDArray[np.float64]
    time: float
    half_life: float
    weight: float
    trained: NDArray[np.float64]

    @classmethod
    def of(cls, positives: Ratings, half_life: float, weight: float = 0.0) -> Trend:
        """Return the trend at the last of some positives, which must have times."""
        assert positives.time is not None
        empty = np.zeros(len(positives.items))
        trend = cls(empty, float(positives.time.max() if len(positives) else 0), half_life, weight, empty)
        trend = trend.with_ratings(positives.item, positives.time)
        return replace(trend, trained=trend.recent)

    def with_ratings(self, items: Rows, times: NDArray[np.int64] | NDArray[np.float64]) -> Trend:
        """Return the trend after more ratings of items [n] at times [n], in any order."""
        time = max(self.time, float(times.max() if len(times) else -np.inf))
        scale = 1 / (self.half_life * _DAY)
        added = np.bincount(items, np.exp2((times - time) * scale), minlength=len(self.recent))
        return replace(self, recent=self.recent * np.exp2((self.time - time) * scale) + added, time=time)

    def with_items(self, count: int) -> Trend:
        """Return the trend of `count` items; those added at the end have no ratings."""
        none = np.zeros(count - len(self.recent))
        return replace(self, recent=np.append(self.recent, none), trained=np.append(self.trained, none))

    def _current(self) -> NDArray[np.float64]:
        """Return the recent ratings [items], of which there are at least half as many as at the end of the training."""
        total, missing = self.trained.sum(), _FLOOR * self.trained.sum() - self.recent.sum()
        return self.recent if missing <= 0 else self.recent + self.trained * (missing / total)

    def growth(self, counts: Rows) -> Floats:
        """Return the logarithm of how many times more recent ratings each item has than it would have if its share of
        them were that of all ratings; near 0 for items with few ratings, [items]. counts [items]: all ratings."""
        recent = self._current()
        expected = counts * (recent.sum() / max(1, counts.sum()))
        return np.asarray(np.log((recent + _SHRINKAGE) / (expected + _SHRINKAGE)), np.float32)

    def added(self, counts: Rows) -> Floats:
        """Return what is added to the scores of the items for users of whom something is known, [items]."""
        return np.float32(self.weight) * self.growth(counts)

    def popularity(self, counts: Rows) -> Floats:
        """Return the scores of the items for users of whom nothing is known: the logarithm of 1 + the ratings that the
        item would have if it had always been rated as lately, [items]; compare `popularity_scores`."""
        recent = self._current()
        lately = recent * (counts.sum() / max(recent.sum(), 1e-9))
        return np.asarray(np.log1p((1 - _ALL_TIME) * lately + _ALL_TIME * counts), np.float32)
