"""Ratings: which user rated which item how, as columns of equal length."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_embed.config.settings import DuplicatesName
from recsys_embed.data.columns import as_polars, find_columns
from recsys_embed.data.from_python import matrix_frame, tuples_frame
from recsys_embed.data.ids import Id, RowLabel, Rows, id_column, row_labels
from recsys_embed.data.sorting import pair_keys, sorted_values, stable_argsort
from recsys_embed.data.time_columns import with_joined_times
from recsys_embed.data.time_formats import settled_format
from recsys_embed.data.user_items import UserItems
from recsys_embed.data.values import parse_values, parse_weights, read_times
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
        columns, order = _parse_columns(data, names, row_label, time_format)
        table = pl.DataFrame({**rows, **columns})
        table = table if order is None else table[order]
        table, n_duplicates = _deduplicate(_orient_edges(table) if shared_ids else table, duplicates, row_label)
        if shared_ids:
            table = _mirror_edges(table)
            if not vocabs:
                table, users = _drop_isolated_nodes(table, users)
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
        users = np.unique(self.user)
        if len(users) <= most:
            return self
        return self.take(np.isin(self.user, np.random.default_rng(seed).permutation(users)[:most]))

    def take(self, rows: Rows | NDArray[np.bool_]) -> Ratings:
        """Return the given rows (row numbers or a mask) with the same vocabularies; splits are built from this."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once, rather than once per column
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            value=self.value[rows],
            time=None if self.time is None else self.time[rows],
            weight=None if self.weight is None else self.weight[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            n_duplicates=0,
        )

    def amounts(self, by_value: bool = False) -> NDArray[np.float64] | None:
        """Return how much each row counts in training, float64 [n], on any scale; None if all count alike.

        by_value: multiply weights by ratings. Raises SettingError if these cannot be weights.
        """
        if not by_value:
            return None if self.weight is None else self.weight.astype(np.float64)
        if self.value.min(initial=0) < 0 or not self.value.any():
            raise SettingError("--sample-weight rating needs ratings from 0 up, and one above 0")
        value = self.value.astype(np.float64)
        return value if self.weight is None else value * self.weight

    def positives(self, threshold: float | None) -> Ratings:
        """Return the ratings of at least the threshold, or all of them if it is None, without rows of weight 0."""
        if self.weight is not None and not self.weight.all():
            return self.take(self.weight > 0).positives(threshold)
        return self if threshold is None else self.take(self.value >= threshold)

    def concat(self, other: Ratings) -> Ratings:
        """Return these rows followed by those of other Ratings with the same vocabularies.

        If only one of them has weights, the others' rows weigh as much as its rows do on average.
        """
        one, two = self._like(other), other._like(self)
        pairs = {name: (getattr(one, name), getattr(two, name)) for name in _COLUMNS}
        columns = {name: None if a is None or b is None else np.concatenate((a, b)) for name, (a, b) in pairs.items()}
        return replace(self, **columns, n_duplicates=0)  # type: ignore[arg-type]

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
        users = {"users": items, "user": new_row[self.user]} if self.is_graph else {}
        return replace(self, items=items, item=new_row[self.item], **users)  # type: ignore[arg-type]

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
        return csr_matrix((amounts, (self.user, self.item)), shape=(len(self.users), len(self.items)))

    def seen(self) -> UserItems:
        """Return the items that each user rated."""
        return UserItems.of(self.user, self.item, len(self.users))

    def hiding(self) -> Ratings:
        """Return the rows whose items are left out of their users' lists."""
        return self if self.hidden is None else self.take(self.hidden)

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
            sha.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
        return sha.hexdigest()[:16]

    def pairs_digest(self) -> str:
        """Return 16 hex digits that are equal for equal sets of (user, item) pairs, whatever their order and values."""
        sorted_ids, ranks = [], []
        for vocab, rows in ((self.users, self.user), (self.items, self.item)):
            order = vocab.series.cast(pl.String).arg_sort().to_numpy()
            rank = np.empty(len(vocab), np.int64)
            rank[order] = np.arange(len(vocab))
            sorted_ids.append(vocab.series.cast(pl.String).gather(order))
            ranks.append(rank[rows])
        keys, sha = sorted_values(pair_keys(ranks[0], ranks[1], len(self.items))), hashlib.sha256()
        for start in range(0, max(1, len(keys)), _HASH_CHUNK):
            user, item = np.divmod(keys[start : start + _HASH_CHUNK], max(1, len(self.items)))
            lines = pl.DataFrame({"user_id": sorted_ids[0].gather(user), "item_id": sorted_ids[1].gather(item)})
            sha.update(lines.write_csv(include_header=not start).encode())
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


def _parse_columns(
    data: pl.DataFrame, names: dict[str, str], row_label: RowLabel, time_format: str | None
) -> tuple[dict[str, pl.Series], Rows | None]:
    """Return the values and, if there are any, the times and weights of the rows, and their order; see `Times`.

    names: the column of each role.
    """
    columns = {"value": pl.repeat(1.0, data.height, dtype=pl.Float32, eager=True)}
    if "rating" in names:
        columns["value"] = parse_values(data[names["rating"]], row_label)
    order = None
    if "time" in names:
        times = data[names["time"]]
        columns["time"], order = read_times(times, row_label, settled_format(times, time_format))
    if "weight" in names:
        columns["weight"] = parse_weights(data[names["weight"]], row_label)
    return columns, order


def _orient_edges(table: pl.DataFrame) -> pl.DataFrame:
    """Turn each edge so that the node with the lower row comes first."""
    return table.with_columns(user=pl.min_horizontal("user", "item"), item=pl.max_horizontal("user", "item"))


def _mirror_edges(table: pl.DataFrame) -> pl.DataFrame:
    """Return each edge in both directions, without self-loops."""
    edges = table.filter(pl.col("user") != pl.col("item"))
    if edges.height < table.height:
        log.warning("dropped %s edges of a node with itself", f"{table.height - edges.height:,}")
    if edges.is_empty():
        raise DataError("there are no edges between two nodes")
    return pl.concat([edges, edges.with_columns(user="item", item="user")])


def _drop_isolated_nodes(table: pl.DataFrame, nodes: Vocab) -> tuple[pl.DataFrame, Vocab]:
    """Leave only nodes that have an edge; those that had self-loops alone have none."""
    rows = table["user"].unique().sort().to_numpy()
    vocab = Vocab(nodes.ids(rows), "node")
    return table.with_columns(pl.Series(c, np.searchsorted(rows, table[c])) for c in ("user", "item")), vocab


def _deduplicate(table: pl.DataFrame, duplicates: DuplicatesName, row_label: RowLabel) -> tuple[pl.DataFrame, int]:
    """Return the table with one row per (user, item), by the given policy, and the number of rows dropped."""
    width = int(table["item"].max()) + 1  # type: ignore[arg-type]
    keys = pair_keys(table["user"].to_numpy(), table["item"].to_numpy(), width)
    if pl.Series(keys).n_unique() == len(keys):
        return table, 0
    if duplicates == "error":
        repeated = row_labels(pl.Series(keys).is_duplicated(), row_label)
        raise DataError(f"a user and item, or an edge, occur more than once in {repeated}")
    by_time = stable_argsort(table["time"].to_numpy()) if "time" in table.columns else np.arange(len(keys))
    if duplicates in ("last", "first"):
        by_pair = stable_argsort(keys, by_time)
        last_of_pair = np.flatnonzero(np.diff(keys[by_pair]))
        keep = np.zeros(len(keys), bool)
        keep[by_pair[np.append(last_of_pair, -1) if duplicates == "last" else np.insert(last_of_pair + 1, 0, 0)]] = True
        unique = table[by_time[keep[by_time]]]
    else:
        sums = [pl.col(name) for name in ("value", "weight") if name in table.columns]
        time = [pl.col("time").last()] if "time" in table.columns else []
        merged = [column.mean() if duplicates == "mean" else column.sum() for column in sums]
        unique = table[by_time].group_by("user", "item", maintain_order=True).agg(*merged, *time)
    return unique, table.height - unique.height
