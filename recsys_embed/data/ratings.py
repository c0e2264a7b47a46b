"""Ratings: which user rated which item how, as columns of equal length."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.settings import DuplicatesName
from recsys_embed.data.columns import as_polars, find_columns
from recsys_embed.data.disk import Columns, Disk, release
from recsys_embed.data.from_python import matrix_frame, tuples_frame
from recsys_embed.data.ids import Id, RowLabel, Rows, id_column
from recsys_embed.data.merge_rows import deduplicate, drop_isolated_nodes, mirror_edges, orient_edges
from recsys_embed.data.sorting import pair_keys, stable_argsort
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.values import parse_columns
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, SettingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from scipy.sparse import csr_matrix, sparray, spmatrix

log = logging.getLogger("recsys_embed")

# The columns of Ratings.
_COLUMNS = ("user", "item", "value", "time", "weight", "hidden")
# Pairs that are written as text at a time, to be hashed.
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by users: each row is one (user, item) pair, and no pair has more than one row.

    users, items: the vocabularies. user, item: rows of these, int64 [n]. value: float32 [n], 1.0 if the data has no
    ratings. time: int64 [n], seconds since 1970, or None. weight: float32 [n], how much each row counts in training, or
    None for all alike; rows of weight 0 only hide. hidden: bool [n], whether the user's lists leave the item out, or
    None: they do. n_duplicates: rows that were dropped as duplicates.
    For a graph both vocabularies are the same object (see `is_graph`), and each edge has two rows, (a, b) and (b, a).
    disk: where the columns are, if they are not in memory; their rows are ascending by user, then by item. What is done
    with all of such rows is done with `blocks` of them.
    """

    users: Vocab
    items: Vocab
    user: Rows
    item: Rows
    value: NDArray[np.float32]
    time: Rows | None = None
    weight: NDArray[np.float32] | None = None
    hidden: NDArray[np.bool_] | None = None
    n_duplicates: int = 0
    disk: Disk | None = None

    def __post_init__(self) -> None:
        columns = self.user, self.item, self.value, self.time, self.weight, self.hidden
        lengths = [len(column) for column in columns if column is not None]
        if len(set(lengths)) != 1:
            raise DataError(f"the columns of Ratings differ in length: {lengths}")

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        time: str | None = None,
        weight: str | None = None,
        duplicates: DuplicatesName = "last",
        *,
        shared_ids: bool = False,
        vocabs: tuple[Vocab, Vocab] | None = None,
        from_text: bool = False,
        row_label: RowLabel = RowLabel(),  # noqa: B008
        time_format: str | None = None,
    ) -> Ratings:
        """Build Ratings from a polars frame (eager or lazy), a pandas frame or a pyarrow table.

        user, item, rating, time: column names; by default they are found, see `find_columns`. a rating column
            every row is a positive with value 1; without a time column `time` is None.
        weight: name of the column of weights; without it, `weight` is None.
        duplicates: what to do with several rows of one user and item: keep the "last" (by time, else by row order),
            keep the "first", take the "mean" or the "sum" of the ratings and weights (with the last time), or raise an
            "error".
        shared_ids: both id columns name nodes of one graph, and each row is an undirected edge. Self-loops are
            dropped, and an edge that is given in both directions is a duplicate.
        vocabs: the users and the items, if several frames share them; by default they are built from this frame.
        from_text: the frame was read from a text file, so ids that are all integers become integers.
        row_label: how error messages number the rows.
        time_format: how dates are written, such as "%d/%m/%Y"; by default their content tells, see docs/data.md.
        Raises DataError for missing columns, empty frames, and values that are missing or not finite.
        """
        data = with_joined_times(as_polars(frame), time)
        given = {"user": user, "item": item, "rating": rating, "time": time, "weight": weight}
        if data.is_empty():
            raise DataError("there are no ratings: the data has a header but no row")
        names = find_columns(data, given)
        ids = [id_column(data[names[side]], side, from_text, row_label) for side in ("user", "item")]
        users, items = vocabs or _build_vocabs(ids, shared_ids)
        rows = {"user": pl.Series(users.rows(ids[0])), "item": pl.Series(items.rows(ids[1]))}
        columns, order = parse_columns(data, names, row_label, time_format)
        table = pl.DataFrame({**rows, **columns})
        table = table if order is None else table[order]
        table, n_duplicates = deduplicate(orient_edges(table) if shared_ids else table, duplicates, row_label)
        if shared_ids:
            table = mirror_edges(table)
            if not vocabs:
                table, users = drop_isolated_nodes(table, users)
                items = users
        return cls(
            users=users,
            items=items,
            user=table["user"].to_numpy(writable=True),
            item=table["item"].to_numpy(writable=True),
            value=table["value"].to_numpy(),
            time=table["time"].to_numpy() if "time" in names else None,
            weight=table["weight"].to_numpy() if "weight" in names else None,
            n_duplicates=n_duplicates,
        )

    @classmethod
    def from_matrix(
        cls, matrix: spmatrix | sparray, users: Sequence[Id] | None = None, items: Sequence[Id] | None = None
    ) -> Ratings:
        """Build Ratings from the stored values of a SciPy sparse matrix [users, items].

        users, items: the ids of its rows and columns; by default their numbers. Those without a stored value are left
        out; a pair that is stored twice has the sum. Raises DataError for stored zeros, which may be ratings of 0 or
        left over: X.eliminate_zeros() drops them, `from_tuples` takes them.
        """
        return cls.from_frame(matrix_frame(matrix, users, items))

    @classmethod
    def from_tuples(cls, rows: Iterable[Sequence[Any]], duplicates: DuplicatesName = "last") -> Ratings:
        """Build Ratings from an iterable of (user, item), (user, item, rating) or (user, item, rating, time) tuples.

        Ids are integers, text, bytes (as UTF-8 text) or UUIDs (as text), all of one kind. duplicates: see `from_frame`.
        """
        return cls.from_frame(tuples_frame(rows), duplicates=duplicates)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        if self.is_graph:
            return f"Ratings({len(self) // 2:,} edges, {len(self.users):,} nodes)"
        return f"Ratings({len(self):,} rows, {len(self.users):,} users, {len(self.items):,} items)"

    @property
    def is_graph(self) -> bool:
        """True for a graph, whose nodes are both the users and the items: one vocabulary serves for both."""
        return self.users is self.items

    def of_random_users(self, most: int, seed: int = 0) -> Ratings:
        """Return the ratings of at most `most` users, drawn at random."""
        users = np.flatnonzero(np.bincount(self.user))
        if len(users) <= most:
            return self
        drawn = np.zeros(len(self.users), bool)
        drawn[np.random.default_rng(seed).permutation(users)[:most]] = True
        return self.where(lambda rows: drawn[rows.user])

    def take(self, rows: Rows | slice | NDArray[np.bool_]) -> Ratings:
        """Return the given rows (row numbers, a slice or a mask), in memory, with the same vocabularies."""
        if not isinstance(rows, slice) and rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once, rather than once per column
        columns = {name: None if column is None else column[rows] for name, column in self._columns.items()}
        return replace(self, **columns, n_duplicates=0, disk=None)  # type: ignore[arg-type]

    def where(self, condition: Callable[[Ratings], NDArray[np.bool_]]) -> Ratings:
        """Return the rows of which a condition is true; it takes rows and returns a mask."""
        return self.partition(1, lambda rows: (rows.take(condition(rows)),))[0]

    def partition(self, number: int, divide: Callable[[Ratings], Sequence[Ratings]]) -> tuple[Ratings, ...]:
        """Return so many parts of the rows; splits are made of this.

        divide: takes rows, all of some users, and returns these parts of them, each in the same order. It is called
        with all rows, or for rows on disk with each block, and then the parts are on the same disk.
        """
        if self.disk is None:
            return tuple(divide(self))
        written = [Columns(self.disk) for _ in range(number)]
        for block in self.blocks():
            for columns, part in zip(written, divide(block), strict=True):
                columns.append(part._columns)
        return tuple(replace(self, **columns.finish(), n_duplicates=0) for columns in written)  # type: ignore[arg-type]

    def blocks(self) -> Iterator[Ratings]:
        """Yield the rows as Ratings in memory, all of each user together: at once, unless they are on disk."""
        if self.disk is None:
            yield self
            return
        start = 0
        while start < len(self) or not start:
            stop = min(start + self.disk.block, len(self))
            if stop < len(self):  # what a user has is in one block
                side = "left" if self.user[stop] != self.user[start] else "right"
                stop = int(np.searchsorted(self.user, self.user[stop], side))  # type: ignore[call-overload]
            yield self.take(slice(start, stop))
            start = max(stop, 1)
        release(*self._columns.values())

    @property
    def _columns(self) -> dict[str, NDArray[Any] | None]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def amounts(self, by_value: bool = False) -> NDArray[np.float64] | None:
        """Return how much each row counts in training, float64 [n], on any scale; None if all count alike.

        by_value: multiply weights by ratings. Raises SettingError if these cannot be weights.
        """
        if not by_value:
            return None if self.weight is None else self.computed(lambda rows: np.asarray(rows.weight, np.float64))
        if self.value.min(initial=0) < 0 or not self.value.any():
            raise SettingError("--sample-weight rating needs ratings from 0 up, and one above 0")
        return self.computed(lambda rows: rows.value.astype(np.float64) * (1 if rows.weight is None else rows.weight))

    def computed(self, column: Callable[[Ratings], NDArray[Any]]) -> NDArray[Any]:
        """Return a column [n] that a function makes of rows, on disk where the rows are."""
        if self.disk is None:
            return column(self)
        written = Columns(self.disk)
        for block in self.blocks():
            written.append({"": column(block)})
        return np.asarray(written.finish()[""])

    def positives(self, threshold: float | None) -> Ratings:
        """Return the ratings of at least the threshold, or all of them if it is None, without rows of weight 0."""
        if self.weight is not None and not self.weight.all():
            return self.where(lambda rows: np.asarray(rows.weight) > 0).positives(threshold)
        return self if threshold is None else self.where(lambda rows: rows.value >= threshold)

    def concat(self, other: Ratings) -> Ratings:
        """Return these rows followed by those of other Ratings with the same vocabularies.

        If only one of them has weights, the others' rows weigh as much as its rows do on average.
        """
        if self.disk is not None:
            return self._merged(other)
        one, two = self._like(other), other._like(self)
        pairs = {name: (getattr(one, name), getattr(two, name)) for name in _COLUMNS}
        columns = {name: None if a is None or b is None else np.concatenate((a, b)) for name, (a, b) in pairs.items()}
        return replace(self, **columns, n_duplicates=0)  # type: ignore[arg-type]

    def _merged(self, other: Ratings) -> Ratings:
        """Return these rows and those of other Ratings, in the order of rows on disk. other: on disk too, or few."""
        if other.disk is None:
            other = other.take(stable_argsort(other.user, stable_argsort(other.item)))
        done, width = 0, len(self.items)

        def with_others(block: Ratings) -> tuple[Ratings]:
            nonlocal done
            is_last = not len(block) or block.user[-1] == self.user[-1]
            stop = len(other) if is_last else int(np.searchsorted(other.user, block.user[-1], "right"))
            both = block.concat(other.take(slice(done, stop)))
            done = stop
            return (both.take(stable_argsort(both.user * width + both.item)),)

        return self.partition(1, with_others)[0]

    def _like(self, other: Ratings) -> Ratings:
        """Return these rows with weights and `hidden` if others have them."""
        weight, hidden = self.weight, self.hidden
        if weight is None and other.weight is not None:
            weight = np.full(len(self), other.weight.mean() if len(other) else 1.0, np.float32)
        if hidden is None and other.hidden is not None:
            hidden = np.ones(len(self), bool)
        return replace(self, weight=weight, hidden=hidden)

    def with_items(self, ids: pl.Series) -> Ratings:
        """Return the same ratings over a vocabulary that has these item ids too, rated or not."""
        cast_ids = self.items.cast_column(ids.drop_nulls())
        if cast_ids.null_count():
            log.warning(
                "ignored %d items of the item table: their ids are not integers, as the other ids are",
                cast_ids.null_count(),
            )
        joined = pl.concat([self.items.series, cast_ids.drop_nulls()])
        items = Vocab.of(joined, self.items.name)
        new_row = items.rows(self.items.series)
        if self.is_graph:
            return replace(self, items=items, users=items, item=new_row[self.item], user=new_row[self.user])
        widened = self.partition(1, lambda rows: (replace(rows, item=new_row[rows.item]),))[0]  # in the same order
        return replace(widened, items=items, n_duplicates=self.n_duplicates)

    @property
    def explicit(self) -> bool:
        """True if the values differ, so that they say how much each item was liked."""
        return len(self) > 0 and float(self.value.min()) != float(self.value.max())

    @property
    def item_counts(self) -> Rows:
        """The number of ratings of each item, int64 [items]."""
        return np.bincount(self.item, minlength=len(self.items))

    @property
    def item_amounts(self) -> NDArray[np.float64]:
        """How much the ratings of each item count: the sum of their weights, or their number, float64 [items]."""
        return np.bincount(self.item, self.weight, minlength=len(self.items)).astype(np.float64)

    def matrix(self, amounts: NDArray[np.float32] | None = None) -> csr_matrix:
        """Return a sparse float32 matrix [users, items] with a one for each rating, or with these amounts [n]."""
        from scipy.sparse import csr_matrix

        amounts = np.ones(len(self), np.float32) if amounts is None else amounts
        shape = len(self.users), len(self.items)
        if self.disk is not None:
            return csr_matrix((amounts, self.item, self.seen().indptr), shape=shape)
        return csr_matrix((amounts, (self.user, self.item)), shape=shape)

    def seen(self) -> UserItems:
        """Return the items that each user rated."""
        if self.disk is not None:
            count = np.bincount(self.user, minlength=len(self.users))
            return UserItems(np.concatenate(([0], np.cumsum(count))), self.item)
        return UserItems.of(self.user, self.item, len(self.users))

    def hiding(self) -> Ratings:
        """Return the rows whose items are left out of their users' lists."""
        return self if self.hidden is None else self.where(lambda rows: rows.hidden)  # type: ignore[arg-type,return-value]

    def excluded(self) -> UserItems:
        """Return the items that are not recommended to a user: what they rated, if that hides it.

        A node of a graph is hidden from its own list too.
        """
        seen = self.hiding().seen()
        return seen.with_self_loops() if self.is_graph else seen

    def digest(self) -> str:
        """Return 16 hex digits that are equal for equal ratings, on any machine."""
        sha = hashlib.sha256()
        for vocab in (self.users, self.items):
            sha.update("\x1f".join(map(str, vocab.series.to_list())).encode() + b"\x1e")
        weights = () if self.weight is None else (self.weight,)  # they came later than digests
        for column in (self.user, self.item, self.value, self.time, *weights):
            if column is None:
                sha.update(b"none")
                continue
            for start in range(0, len(column), _HASH_CHUNK):
                sha.update(np.ascontiguousarray(column[start : start + _HASH_CHUNK]).tobytes())
        return sha.hexdigest()[:16]

    def pairs_digest(self) -> str:
        """Return 16 hex digits that are equal for equal sets of (user, item) pairs, whatever their order and values."""
        users, items = (vocab.series.cast(pl.String) for vocab in (self.users, self.items))
        by_id, item_order = users.arg_sort().to_numpy(), items.arg_sort().to_numpy()
        rank = np.empty(len(items), np.int64)
        rank[item_order] = np.arange(len(items))
        sorted_items, seen, sha = items.gather(item_order), self.seen(), hashlib.sha256()
        ends, start = np.cumsum(seen.count[by_id]), 0
        while start < len(by_id) or not start:  # whole users, of so many pairs or of at least one
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _HASH_CHUNK, "right")))
            line, item = seen.pairs_of(by_id[start:stop])
            line, item = np.divmod(np.sort(pair_keys(line, rank[item], len(items))), max(1, len(items)))
            lines = {"user_id": users.gather(by_id[start:stop][line]), "item_id": sorted_items.gather(item)}
            sha.update(pl.DataFrame(lines).write_csv(include_header=not start).encode())
            start = stop
        return sha.hexdigest()[:16]

    def frame(self) -> pl.DataFrame:
        """Return the ratings with external ids: user_id, item_id, rating; and timestamp and weight if there are any."""
        columns: dict[str, Any] = {
            "user_id": self.users.ids(self.user),
            "item_id": self.items.ids(self.item),
            "rating": self.value,
        }
        optional = {"timestamp": self.time, "weight": self.weight}
        return pl.DataFrame(columns | {name: column for name, column in optional.items() if column is not None})


def _build_vocabs(ids: list[pl.Series], shared_ids: bool) -> tuple[Vocab, Vocab]:
    """Return the users and the items of two id columns; for a graph, both are one vocabulary of nodes."""
    if not shared_ids:
        return Vocab.of(ids[0], "user"), Vocab.of(ids[1], "item")
    if ids[0].dtype != ids[1].dtype:
        ids = [column.cast(pl.String) for column in ids]
    nodes = Vocab.of(pl.concat([column.alias("node") for column in ids]), "node")
    return nodes, nodes
