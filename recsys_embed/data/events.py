"""Event logs: users view, buy or otherwise use items, several times and in several ways; what is learnt from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.settings import DataConfig
from recsys_embed.data.columns import find_columns
from recsys_embed.data.event_types import EventType
from recsys_embed.data.ids import RowLabel, Rows, id_column, row_labels
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import pair_keys, stable_argsort
from recsys_embed.data.splits import Split, check_span, split_leave_last, split_random, time_cuts
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.time_formats import settled_format
from recsys_embed.data.values import read_times
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError

# The users and the items of some events, as rows [n].
Pairs = tuple[Rows, Rows]


@dataclass(frozen=True)
class EventLog:
    """Events in any number for each user and item, as columns of equal length.

    users, items: the vocabularies. user, item: rows of these, int64 [n]. event: positions in `types`, int64 [n].
    time: int64 [n], seconds since 1970, or None.
    """

    users: Vocab
    items: Vocab
    user: Rows
    item: Rows
    event: Rows
    types: tuple[EventType, ...]
    time: Rows | None = None

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        columns: Mapping[str, str | None],
        types_of: Callable[[dict[str, int]], tuple[EventType, ...]],
        from_text: bool = False,
        row_label: RowLabel = RowLabel(),  # noqa: B008
        time_format: str | None = None,
    ) -> EventLog:
        """Build a log from a frame.

        columns: the names of the "user", "item", "event" and "time" columns, or None for the usual ones. types_of:
        takes the names in the event column, with the number of events of each, and returns the types; see
        `event_types`. from_text, row_label, time_format: see `Ratings.from_frame`. Raises DataError for missing columns
        and values.
        """
        frame = with_joined_times(frame, columns.get("time"))
        names = find_columns(frame, {role: columns.get(role) for role in ("user", "item", "event", "time")})
        if "event" not in names:
            raise DataError("there is no column of event types: name it with --event-col")
        if frame.is_empty():
            raise DataError("there are no events: the data has a header but no row")
        ids = [id_column(frame[names[side]], side, from_text, row_label) for side in ("user", "item")]
        column = frame[names["event"]].cast(pl.String).str.strip_chars()
        missing = column.is_null() | (column == "")
        if missing.any():
            raise DataError(f"event is missing in {row_labels(missing, row_label)}")
        counts = column.value_counts().sort("count", column.name, descending=[True, False])
        found = dict(zip(counts[column.name].to_list(), counts["count"].to_list(), strict=True))
        order = pl.Series(list(found), dtype=pl.String)
        event = column.replace_strict(order, np.arange(len(order)), return_dtype=pl.Int64)
        users, items = Vocab.of(ids[0], "user"), Vocab.of(ids[1], "item")
        log = cls(users, items, users.rows(ids[0]), items.rows(ids[1]), event.to_numpy(), types_of(found))
        if "time" not in names:
            return log
        column = frame[names["time"]]
        times = read_times(column, row_label, settled_format(column, time_format))
        log = replace(log, time=times.seconds.to_numpy())
        return log if times.order is None else log.take(times.order)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def counts(self) -> Rows:
        """The number of events of each type, [types]."""
        return np.bincount(self.event, minlength=len(self.types))

    def describe(self) -> str:
        """Return the types with their numbers and weights, in words."""
        all_targets = all(t.is_target for t in self.types)
        texts = []
        for t, count in zip(self.types, self.counts.tolist(), strict=True):
            weight = f"weight {t.weight:g}" if t.weight else "not trained on"
            target = ", the target" if t.is_target and not all_targets else ""
            texts.append(f"{t.name} {count:,} ({weight}{target})")
        return ", ".join(texts)

    def take(self, rows: NDArray[Any]) -> EventLog:
        """Return some of the events, by a mask or by their places."""
        time = None if self.time is None else self.time[rows]
        return replace(self, user=self.user[rows], item=self.item[rows], event=self.event[rows], time=time)

    def with_weights(self, weights: dict[str, float]) -> EventLog:
        """Return the log with other weights of its types, by name."""
        return replace(self, types=tuple(replace(t, weight=weights[t.name]) for t in self.types))

    def with_items(self, ids: pl.Series) -> EventLog:
        """Return the log over a vocabulary that has these item ids too; see `Ratings.with_items`."""
        widened = self.ratings().with_items(ids).items
        return replace(self, items=widened, item=widened.rows(self.items.series)[self.item])

    def _of_types(self, values: list[Any]) -> NDArray[Any]:
        """Return the value of each event's type, [n]."""
        return np.array(values)[self.event]

    def ratings(self) -> Ratings:
        """Return one row for each user and item with an event that counts or hides.

        It has a weight, 0 if no event counts, and the time of the last event that does.

        weight = sum over the types of (weight of the type) x (1 + log(number of such events)): repeats count, each of
        them less. What came before an event that takes it back does not count. `hidden` says whether one of the events
        hides the item.
        """
        frame = pl.DataFrame(
            {"user": self.user, "item": self.item, "event": self.event, "number": 1 - self._is_taken_back()}
        ).with_columns(time=pl.lit(0) if self.time is None else pl.Series(self.time))
        by_type = frame.group_by("user", "item", "event", maintain_order=True).agg(
            pl.col("number").sum(), pl.col("time").max()
        )
        of_type = by_type["event"].to_numpy()
        weight, hides = (
            np.array([t.weight for t in self.types])[of_type],
            np.array([t.hides for t in self.types])[of_type],
        )
        pairs = (
            by_type.with_columns(
                weight=pl.when(pl.col("number") > 0)
                .then(pl.Series(weight) * (1 + pl.col("number").log()))
                .otherwise(0),
                hides=pl.Series(hides),
            )
            .with_columns(counted=pl.when(pl.col("weight") > 0).then(pl.col("time")))
            .group_by("user", "item", maintain_order=True)
            .agg(pl.col("weight").sum().cast(pl.Float32), pl.col("hides").any(), pl.col("counted", "time").max())
            .filter((pl.col("weight") > 0) | pl.col("hides"))
            .with_columns(time=pl.col("counted").fill_null(pl.col("time")))
        )
        return Ratings(
            self.users, self.items, pairs["user"].to_numpy(), pairs["item"].to_numpy(),
            np.ones(pairs.height, np.float32), None if self.time is None else pairs["time"].to_numpy(),
            pairs["weight"].to_numpy(), pairs["hides"].to_numpy(),
        )  # fmt: skip

    def _is_taken_back(self) -> Rows:
        """Return 1 for events that a later one of their user and item takes back, else 0, [n]."""
        takes_back = self._of_types([t.takes_back for t in self.types])
        if not takes_back.any():
            return np.zeros(len(self), np.int64)
        place = np.empty(len(self), np.int64)
        place[np.arange(len(self)) if self.time is None else stable_argsort(self.time)] = np.arange(len(self))
        keys = pl.Series(pair_keys(self.user, self.item, len(self.items)))
        frame = pl.DataFrame({"pair": keys, "taken": pl.Series(np.where(takes_back, place, -1))})
        last = frame.select(pl.col("taken").max().over("pair")).to_series().to_numpy()
        return np.asarray(place < last, np.int64)

    def targets(self) -> Ratings:
        """Return one row for each user and item with a target event, and the time of the last of them; no weights."""
        found = self.take(self._of_types([t.is_target for t in self.types]))
        keys = pair_keys(found.user, found.item, len(self.items))
        order = np.arange(len(keys)) if found.time is None else stable_argsort(found.time)
        by_pair = stable_argsort(keys, order)
        last = by_pair[np.append(np.flatnonzero(np.diff(keys[by_pair])), len(keys) - 1)] if len(keys) else by_pair
        last = np.sort(last)
        time = None if found.time is None else found.time[last]
        ones = np.ones(len(last), np.float32)
        return Ratings(self.users, self.items, found.user[last], found.item[last], ones, time)

    def split(self, config: DataConfig, window: int = 0) -> tuple[Split, Ratings]:
        """Return (train, valid, test), and the rows of train and validation together. window: see `Dataset.split`.

        What is held out are target events. A split by time cuts the log at two points: what came before is learnt,
        whatever was done with an item later. The other splits hold out users' items, with all events of these. Items
        that a list cannot hold, since an earlier event hides them, are no part of what is held out.
        """
        if config.split == "time":
            return self._split_by_time(config, window)
        targets = self.targets()
        if config.split == "leave-last":
            _, valid, tested = split_leave_last(targets)
        elif config.split == "random":
            _, valid, tested = split_random(targets, config.valid_share, config.test_share, config.split_seed or 0)
        else:
            raise SettingError(f"--split {config.split} does not go with events: random, leave-last and time do")
        keys, width = pair_keys(self.user, self.item, len(self.items)), len(self.items)
        in_valid, in_test = (np.isin(keys, pair_keys(part.user, part.item, width)) for part in (valid, tested))
        train, both = self.take(~in_valid & ~in_test).ratings(), self.take(~in_test).ratings()
        return Split(train, valid, tested), both

    def _split_by_time(self, config: DataConfig, window: int) -> tuple[Split, Ratings]:
        if self.time is None:
            raise DataError("a split by time needs times, and this data has none: name the column with --time-col")
        cuts = time_cuts(self.time, config.valid_share, config.test_share, window, config.window_seconds)
        before, both = self.take(self.time < cuts.valid), self.take(self.time < cuts.test)
        train = before.ratings()
        check_span(self.time, len(train))
        valid = self.take((self.time >= cuts.valid) & (self.time < cuts.test)).targets()
        valid = _without(valid, before._hiding_pairs())
        tested = self.take((self.time >= cuts.test) & (self.time < cuts.end)).targets()
        tested = _without(tested, both._hiding_pairs(), (valid.user, valid.item))
        return Split(train, valid, tested), both.ratings()

    def tested_by_type(self, config: DataConfig, window: int = 0) -> dict[str, Ratings]:
        """Return what is done in the test part of a split by time, for each type that counts, by name.

        Items that lists cannot hold are not in it, as in `split`. Nothing for other splits, which hold out users'
        items with all that was done with them, and where only one type counts.
        """
        counting = [t.name for t in self.types if t.weight > 0]
        if config.split != "time" or self.time is None or len(counting) < 2:
            return {}
        cuts = time_cuts(self.time, config.valid_share, config.test_share, window, config.window_seconds)
        hiding = self.take(self.time < cuts.test)._hiding_pairs()
        tested = self.take((self.time >= cuts.test) & (self.time < cuts.end))
        tests = {}
        for name in counting:
            only = replace(tested, types=tuple(replace(t, is_target=t.name == name) for t in self.types))
            tests[name] = _without(only.targets(), hiding)
        return {name: test for name, test in tests.items() if len(test)}

    def _hiding_pairs(self) -> Pairs:
        """Return the users and items of the events that hide, whether they count in training or not."""
        hides = self._of_types([t.hides for t in self.types])
        return self.user[hides], self.item[hides]


def _without(rows: Ratings, *pairs: Pairs) -> Ratings:
    """Return the rows without those of some (user, item) pairs."""
    width = len(rows.items)
    left_out = np.concatenate([pair_keys(user, item, width) for user, item in pairs])
    return rows.take(~np.isin(pair_keys(rows.user, rows.item, width), left_out))
