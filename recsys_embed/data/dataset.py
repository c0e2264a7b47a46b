"""A data set: ratings, and what is known of the items."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split, split_cold_items, split_leave_last, split_random, split_time


class Dataset(NamedTuple):
    """A data set: its ratings, and what is known of its items (a frame with `item_id` first) or None.

    valid, test: held-out parts that came as files of their own; `ratings` is then the training part.
    """

    ratings: Ratings
    items: pl.DataFrame | None
    valid: Ratings | None = None
    test: Ratings | None = None

    def with_unrated(self) -> Dataset:
        """Return the same with the items of the item table that nobody has rated among the items."""
        if self.items is None:
            return self
        ids = self.items["item_id"]
        parts = [None if part is None else part.with_items(ids) for part in (self.ratings, self.valid, self.test)]
        assert parts[0] is not None
        return Dataset(parts[0], self.items, parts[1], parts[2])

    def split(self, config: DataConfig) -> Split:
        """Return (train, valid, test): the files where there are such, else the split that the settings name.

        A validation file alone holds nothing out for test. A test file alone leaves it to the split to carve
        validation out of the training ratings.
        """
        nothing = self.ratings.take(np.arange(0))
        if self.valid is not None:
            return Split(self.ratings, self.valid, nothing if self.test is None else self.test)
        train, valid, test = SPLITS[config.split](self.ratings, config, self.test is None)
        return Split(train, valid, test if self.test is None else self.test)


# A split takes (ratings, settings, whether to hold out a test part) and gives (train, valid, test).
SPLITS: dict[str, Callable[[Ratings, DataConfig, bool], Split]] = {
    "random": lambda r, c, test: split_random(r, c.valid_share, c.test_share * test, c.split_seed or 0),
    "leave-last": lambda r, c, test: split_leave_last(r, test),
    "cold-items": lambda r, c, test: split_cold_items(
        r, c.cold_share, c.valid_share, c.test_share * test, c.split_seed or 0
    ),
    "time": lambda r, c, test: split_time(r, c.valid_share, c.test_share * test),
}
