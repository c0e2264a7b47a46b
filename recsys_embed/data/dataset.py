"""A data set: ratings and an item table, with held-out parts that came as files or are split off."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.events import EventLog
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.splits import Split, split_cold_items, split_leave_last, split_random, split_time


class Dataset(NamedTuple):
    """The ratings of a data set and its item table, a frame whose first column is `item_id`, or None.

    log: the events that the ratings come from, if there are several types of them. valid, test: held-out ratings that
    came in files of their own; `ratings` is then the training part. event_like_column: one that seems to hold
    types of events, though no setting names it. time_format: how dates are written; None: numbers or ISO. refunds: a
    column of amounts that no setting names, and how many of its rows are below 0 and positives all the same.
    """

    ratings: Ratings
    items: pl.DataFrame | None
    valid: Ratings | None = None
    test: Ratings | None = None
    log: EventLog | None = None
    event_like_column: str | None = None
    time_format: str | None = None
    refunds: tuple[str, int] | None = None

    def with_unrated_items(self) -> Dataset:
        """Return the same with a vocabulary of items that includes those of the item table without a rating."""
        if self.items is None:
            return self
        ids = self.items["item_id"]
        ratings, valid, test = (
            None if part is None else part.with_items(ids) for part in (self.ratings, self.valid, self.test)
        )
        assert ratings is not None
        log = None if self.log is None else self.log.with_items(ids)
        return self._replace(ratings=ratings, valid=valid, test=test, log=log)

    def split(self, config: DataConfig, window: int = 0) -> Split:
        """Return (train, valid, test): held-out files as they are, otherwise the split that the settings name.

        window: for a split by time, how many test windows before the newest one; see `splits.time_cuts`.

        With a validation file but no test file, the test part is empty. With a test file but no validation file, the
        split takes the validation part from the training ratings.
        """
        if self.log is not None:
            return self.log.split(config, window)[0]
        empty = self.ratings.take(np.arange(0))
        if self.valid is not None:
            return Split(self.ratings, self.valid, empty if self.test is None else self.test)
        train, valid, test = SPLITS[config.split](self.ratings, config, self.test is None, window)
        return Split(train, valid, test if self.test is None else self.test)


# A split takes (ratings, settings, whether to hold out a test part, window) and returns (train, valid, test).
SPLITS: dict[str, Callable[[Ratings, DataConfig, bool, int], Split]] = {
    "random": lambda r, c, test, _: split_random(r, c.valid_share, c.test_share * test, c.split_seed or 0),
    "leave-last": lambda r, _config, test, _window: split_leave_last(r, test),
    "cold-items": lambda r, c, test, _: split_cold_items(
        r, c.cold_share, c.valid_share, c.test_share * test, c.split_seed or 0
    ),
    "time": lambda r, c, test, w: split_time(r, c.valid_share, c.test_share * test, w, c.window_seconds),
}
