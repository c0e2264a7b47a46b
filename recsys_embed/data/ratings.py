"""Ratings: who rated what how, as columns of one length; and Seen, the same by user."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.settings import DuplicatesName
from recsys_embed.data.ids import RowLabel, Rows, id_column, row_labels
from recsys_embed.data.sorting import ascending, ordered, pair_keys
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix
from recsys_embed.data.columns import as_polars, find_columns
from recsys_embed.data.user_items import UserItems

log = logging.getLogger("recsys_embed")


# Pairs that are written out at once, to be hashed.
_LINES = 1 << 20


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by users; every row is one (user, item) pair and every pair has one row at most.

    users, items: the vocabularies. user, item: their rows, int64 [n]. value: float32 [n], 1.0 where the data
    has no ratings. time: int64 [n], seconds since 1970, or None. `merged` counts rows that were duplicates.
    Of a graph both vocabularies are one and the same (`shared`), and every edge stands in two rows, (a, b) and (b, a).
    """

    users: Vocab
    items: Vocab
    user: Rows
    item: Rows
    value: NDArray[np.float32]
    time: Rows | None = None
    merged: int = 0

    def __post_init__(self) -> None:
        lengths = [len(self.user), len(self.item), len(self.value)] + ([] if self.time is None else [len(self.time)])
        if len(set(lengths)) != 1:
            raise DataError(f"the columns of Ratings differ in length: {lengths}")

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame | pd.DataFrame,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        time: str | None = None,
        duplicates: DuplicatesName = "last",
        *,
        shared_ids: bool = False,
        vocabs: tuple[Vocab, Vocab] | None = None,
        from_text: bool = False,
        place: RowLabel = RowLabel(),  # noqa: B008
    ) -> Ratings:
        """Make Ratings of a polars or pandas frame.

        user, item, rating, time: column names; by default the usual ones (`COLUMN_NAMES`) are looked for.
            Without a rating column every row is a positive of value 1; without a time column `time` is None.
        duplicates: what becomes of several rows of one user and item: the "last" one (in time, else in file
            order), the "first", their "mean", their "sum" (time is the last), or an "error".
        shared_ids: both id columns name nodes of one kind, and a row is an edge without direction. Edges of a node
            with itself are left out, and one that stands there in both directions is a duplicate.
        vocabs: the users and items, where several frames share them. By default they are made of this frame.
        from_text: the frame was read from text, so ids that are all integers become integers.
        place: how the frame's rows are named in error messages.
        Raises DataError for missing columns, empty frames, and values that are missing or not finite.
        """
        data = as_polars(frame)
        names = find_columns(data.columns, {"user": user, "item": item, "rating": rating, "time": time})
        if data.is_empty():
            raise DataError("there are no ratings: the data has a header but no row")
        ids = [id_column(data[names[side]], side, from_text, place) for side in ("user", "item")]
        if shared_ids:
            users, items = vocabs or (_nodes(ids),) * 2
        else:
            users, items = vocabs or (Vocab.of(ids[0], "user"), Vocab.of(ids[1], "item"))
        columns = {
            "user": pl.Series(users.rows(ids[0])),
            "item": pl.Series(items.rows(ids[1])),
            "value": _values(data[names["rating"]], place)
            if "rating" in names
            else pl.repeat(1.0, data.height, dtype=pl.Float32, eager=True),
        }
        if "time" in names:
            columns["time"] = _times(data[names["time"]], place)
        table = pl.DataFrame(columns)
        table, merged = _merge(_one_way(table) if shared_ids else table, duplicates, place)
        if shared_ids:
            table = _both_ways(table)
            if not vocabs:  # who had edges with themselves alone is no node
                rows = table["user"].unique().sort().to_numpy()
                users = items = Vocab(users.ids(rows), "node")
                table = table.with_columns(pl.Series(c, np.searchsorted(rows, table[c])) for c in ("user", "item"))
        return cls(
            users=users,
            items=items,
            user=table["user"].to_numpy(writable=True),
            item=table["item"].to_numpy(writable=True),
            value=table["value"].to_numpy(),
            time=table["time"].to_numpy() if "time" in names else None,
            merged=merged,
        )

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        if self.shared:
            return f"Ratings({len(self) // 2:,} edges, {len(self.users):,} nodes)"
        return f"Ratings({len(self):,} rows, {len(self.users):,} users, {len(self.items):,} items)"

    @property
    def shared(self) -> bool:
        """Whether users and items are one vocabulary: the nodes of a graph."""
        return self.users is self.items

    def take(self, rows: Rows | NDArray[np.bool_]) -> Ratings:
        """Return the given rows (numbers or a mask) with the same vocabularies; all splits are made of this."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once for all columns
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            value=self.value[rows],
            time=None if self.time is None else self.time[rows],
            merged=0,
        )

    def positives(self, least: float | None) -> Ratings:
        """Return the ratings of at least so much; all of them for None."""
        return self if least is None else self.take(self.value >= least)

    def with_rows(self, other: Ratings) -> Ratings:
        """Return these rows and then those of another table of the same vocabularies."""
        time = None if self.time is None or other.time is None else np.concatenate((self.time, other.time))
        columns = {
            name: np.concatenate((getattr(self, name), getattr(other, name))) for name in ("user", "item", "value")
        }
        return replace(self, **columns, time=time, merged=0)  # type: ignore[arg-type]

    def with_items(self, ids: pl.Series) -> Ratings:
        """Return the same ratings over a vocabulary that holds these item ids too, rated or not."""
        known = self.items.like(ids.drop_nulls())
        if known.null_count():
            log.warning("%d items of the item table have ids that are no integers: left out", known.null_count())
        joined = pl.concat([self.items.series, known.drop_nulls()])
        items = Vocab.of(joined, self.items.name)
        row = items.rows(self.items.series)
        users = {"users": items, "user": row[self.user]} if self.shared else {}
        return replace(self, items=items, item=row[self.item], **users)  # type: ignore[arg-type]

    @property
    def explicit(self) -> bool:
        """True where the values differ, so that they say how much an item was liked."""
        return len(self) > 0 and float(self.value.min()) != float(self.value.max())

    @property
    def counts(self) -> Rows:
        """Ratings an item has, int64 [items]."""
        return np.bincount(self.item, minlength=len(self.items))

    def matrix(self) -> csr_matrix:
        """Return the ratings as ones, a sparse float32 matrix [users, items]."""
        from scipy.sparse import csr_matrix

        ones = (np.ones(len(self), np.float32), (self.user, self.item))
        return csr_matrix(ones, shape=(len(self.users), len(self.items)))

    def seen(self) -> UserItems:
        """Return the items of each user."""
        return UserItems.of(self.user, self.item, len(self.users))

    def hidden(self) -> UserItems:
        """Return what stands in no list of a user, and is no negative: what they rated; of a node, itself too."""
        return self.seen().with_self_loops() if self.shared else self.seen()

    def digest(self) -> str:
        """Return 16 hex digits that are equal for equal ratings, whatever the machine."""
        sha = hashlib.sha256()
        for vocab in (self.users, self.items):
            sha.update("\x1f".join(map(str, vocab.series.to_list())).encode() + b"\x1e")
        for column in (self.user, self.item, self.value, self.time):
            sha.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
        return sha.hexdigest()[:16]

    def pairs_digest(self) -> str:
        """Return 16 hex digits that are equal for equal pairs of user and item, whatever their order and the rest."""
        texts, places = [], []
        for vocab, rows in ((self.users, self.user), (self.items, self.item)):
            order = vocab.series.cast(pl.String).arg_sort().to_numpy()
            place = np.empty(len(vocab), np.int64)
            place[order] = np.arange(len(vocab))
            texts.append(vocab.series.cast(pl.String).gather(order))
            places.append(place[rows])
        keys, sha = ascending(pair_keys(places[0], places[1], len(self.items))), hashlib.sha256()
        for start in range(0, max(1, len(keys)), _LINES):
            user, item = np.divmod(keys[start : start + _LINES], max(1, len(self.items)))
            lines = pl.DataFrame({"user_id": texts[0].gather(user), "item_id": texts[1].gather(item)})
            sha.update(lines.write_csv(include_header=not start).encode())
        return sha.hexdigest()[:16]

    def frame(self) -> pl.DataFrame:
        """Return the ratings in outside ids: user_id, item_id, rating and, where known, timestamp."""
        columns: dict[str, Any] = {
            "user_id": self.users.ids(self.user),
            "item_id": self.items.ids(self.item),
            "rating": self.value,
        }
        return pl.DataFrame(columns if self.time is None else {**columns, "timestamp": self.time})


def _values(column: pl.Series, place: RowLabel) -> pl.Series:
    values = column.cast(pl.Float32, strict=False) if column.dtype != pl.Boolean else column.cast(pl.Float32)
    broken = values.is_null() & column.is_not_null()
    if broken.any():
        example = column.filter(broken)[0]
        raise DataError(f"rating {example!r} is not a number in {row_labels(broken, place)}")
    if values.null_count():
        raise DataError(f"rating is missing in {row_labels(values.is_null(), place)}")
    if not values.is_finite().all():
        raise DataError(f"rating is NaN or infinite in {row_labels(~values.is_finite(), place)}")
    return values


def _times(column: pl.Series, place: RowLabel) -> pl.Series:
    if column.dtype.is_temporal():
        times = column.cast(pl.Datetime("ms")).dt.epoch("s")
    elif column.dtype == pl.String:
        seconds = column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        times = seconds
        if seconds.null_count() == len(column):
            times = column.str.to_datetime(strict=False, time_unit="ms", time_zone="UTC").dt.epoch("s")
    else:
        times = column.cast(pl.Int64, strict=False)
    if times.null_count():
        example = column.filter(times.is_null())[0]
        raise DataError(
            f"time {example!r} is neither seconds since 1970 nor a date in {row_labels(times.is_null(), place)}"
        )
    return times.cast(pl.Int64)


def _nodes(ends: list[pl.Series]) -> Vocab:
    """Return the vocabulary of what stands at either end of an edge, with ids of one type."""
    if ends[0].dtype != ends[1].dtype:
        ends = [end.cast(pl.String) for end in ends]
    return Vocab.of(pl.concat([end.alias("node") for end in ends]), "node")


def _one_way(table: pl.DataFrame) -> pl.DataFrame:
    """Turn every edge so that the lower row comes first."""
    return table.with_columns(user=pl.min_horizontal("user", "item"), item=pl.max_horizontal("user", "item"))


def _both_ways(table: pl.DataFrame) -> pl.DataFrame:
    """Return every edge of two nodes in both directions."""
    edges = table.filter(pl.col("user") != pl.col("item"))
    if edges.height < table.height:
        log.warning("%s edges of a node with itself were left out", f"{table.height - edges.height:,}")
    if edges.is_empty():
        raise DataError("there are no edges between two nodes")
    return pl.concat([edges, edges.with_columns(user="item", item="user")])


def _merge(table: pl.DataFrame, duplicates: DuplicatesName, place: RowLabel) -> tuple[pl.DataFrame, int]:
    """Leave one row a (user, item), by the stated policy; return it and how many rows went."""
    width = int(table["item"].max()) + 1  # type: ignore[arg-type]
    keys = pair_keys(table["user"].to_numpy(), table["item"].to_numpy(), width)
    if pl.Series(keys).n_unique() == len(keys):
        return table, 0
    if duplicates == "error":
        repeated = row_labels(pl.Series(keys).is_duplicated(), place)
        raise DataError(f"a user and item, or an edge, stand there more than once in {repeated}")
    order = ordered(table["time"].to_numpy()) if "time" in table.columns else np.arange(len(keys))
    if duplicates in ("last", "first"):
        by_pair = ordered(keys, order)
        ends = np.flatnonzero(np.diff(keys[by_pair]))
        chosen = np.zeros(len(keys), bool)
        chosen[by_pair[np.append(ends, -1) if duplicates == "last" else np.insert(ends + 1, 0, 0)]] = True
        kept = table[order[chosen[order]]]
    else:
        value = pl.col("value").mean() if duplicates == "mean" else pl.col("value").sum()
        rest = [pl.col("time").last()] if "time" in table.columns else []
        kept = table[order].group_by("user", "item", maintain_order=True).agg(value, *rest)
    return kept, table.height - kept.height
