"""Rows that are there several times: copies, contradictions, repeats, and rows of a test file that are in train."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ids import Rows
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.sorting import pair_keys, sorted_values
from recsys_embed.data.values import coarseness
from recsys_embed.data.vocab import Vocab
from recsys_embed.doctor.codes import N_EXAMPLES, Finding, finding, plural


def pair_of(key: int, users: Vocab, items: Vocab) -> str:
    """Return the user and the item of a pair key, in words."""
    user, item = divmod(int(key), len(items))
    return f"user {users.ids([user])[0]} and item {items.ids([item])[0]}"


def find_repeats(frame: pl.DataFrame, columns: dict[str, str], dataset: Dataset, policy: str) -> Iterator[Finding]:
    """Yield rows that are copies of others, contradict them or repeat them.

    frame: whose cells can be read. columns: the column of each role. dataset: what was made of them.
    """
    users, items = dataset.ratings.users, dataset.ratings.items
    if dataset.log is None and not dataset.ratings.n_duplicates:
        return
    if dataset.ratings.is_graph:
        yield from merged_repeats(dataset, policy)
        return
    frame = frame.filter(_may_repeat(frame[columns["user"]], frame[columns["item"]]))
    keys = pair_keys(users.rows(frame[columns["user"]]), items.rows(frame[columns["item"]]), len(items))
    table = pl.DataFrame({"key": keys})
    repeated = table["key"].is_duplicated()
    table, frame = table.filter(repeated), frame.filter(repeated)
    equal = columns_of_copies(frame, columns, dataset)
    names = {"rating": "value", "event": "event", "time": "time"}
    if equal is not None:
        table = table.with_columns(
            (frame[equal[role]].cast(pl.Float32, strict=False) if role == "rating" else frame[equal[role]]).alias(name)
            for role, name in names.items()
            if role in equal
        )
    if equal is None:
        yield from _perhaps_again(frame, columns, dataset)
    distinct = table.unique()
    copies = table.height - distinct.height
    if dataset.log is not None:
        if copies and equal is not None:
            yield _copies(copies, table, users, items, "user, item, type and time")
        return
    yield from _of_ratings(table, distinct, users, items, policy)


def columns_of_copies(frame: pl.DataFrame, columns: dict[str, str], dataset: Dataset) -> dict[str, str] | None:
    """Return the columns in which a row equals another if it is a copy of it, by role.

    None where a row that is there twice may have happened twice: without a rating, or a time to the second.
    """
    rows = dataset.ratings if dataset.log is None else dataset.log
    is_exact = rows.time is not None and coarseness(frame[columns["time"]], pl.Series(rows.time)) is None
    if not is_exact and ("rating" not in columns or dataset.log is not None):
        return None
    return _columns_of_equal(columns, dataset)


def _columns_of_equal(columns: dict[str, str], dataset: Dataset) -> dict[str, str]:
    found: dict[str, str] = {
        role: columns[role] for role in ("user", "item", "rating", "event", "time") if role in columns
    }
    # Another type of event is another event, also where no option names the types.
    return found if dataset.event_like_column is None else {"event": dataset.event_like_column} | found


def _perhaps_again(frame: pl.DataFrame, columns: dict[str, str], dataset: Dataset) -> Iterator[Finding]:
    """Yield rows that equal another, but happened perhaps twice, as their times have no seconds. frame: rows of users
    and items that come again."""
    rows = dataset.ratings if dataset.log is None else dataset.log
    if rows.time is None:
        return
    unit = coarseness(frame[columns["time"]], pl.Series(rows.time))
    equal = list(_columns_of_equal(columns, dataset).values())
    count = frame.height - frame.select(equal).n_unique()
    if count:
        message = f"{plural(count, 'row')} {'is' if count == 1 else 'are'} like another to the last cell that counts; "
        message += f"the times are of {unit}, so each may have happened again: nothing tells, and --fix keeps them"
        yield finding("D103", count, message, remedy="write times with seconds, and what is there twice is a copy")


def _of_ratings(
    table: pl.DataFrame, distinct: pl.DataFrame, users: Vocab, items: Vocab, policy: str
) -> Iterator[Finding]:
    """Yield what repeated rows of ratings are. table: pairs, values and times. distinct: without copies."""
    words = (("value", "rating"), ("event", "type"), ("time", "time"))
    what = [word for column, word in words if column in table.columns]
    copies = table.height - distinct.height
    if copies and not what:
        yield _repeats(copies, policy)
        return
    if copies:
        yield _copies(copies, table, users, items, " and ".join([", ".join(["user", "item", *what[:-1]]), what[-1]]))
    if "value" in table.columns:
        values = distinct.unique(["key", "value"])
        pairs = values.filter(pl.col("key").is_duplicated())
        if pairs.height:
            yield _conflicts(pairs, pairs["key"].n_unique(), users, items, policy)
            distinct = distinct.filter(~pl.col("key").is_in(pairs["key"].unique().implode()))
    again = distinct.height - distinct["key"].n_unique()
    if again:
        yield _repeats(again, policy)


def _may_repeat(user: pl.Series, item: pl.Series) -> pl.Series:
    """Return which rows have the hash of another, so that the others need not be looked up."""
    mixed = user.hash(1).to_numpy() * np.uint64(0x9E3779B97F4A7C15) + item.hash(2).to_numpy()
    hashes = mixed.view(np.int64)
    ordered = sorted_values(hashes)
    return pl.Series(hashes).is_in(pl.Series(ordered[1:][ordered[1:] == ordered[:-1]]).unique().implode())


def find_loops(frame: pl.DataFrame, columns: dict[str, str]) -> Iterator[Finding]:
    """Yield edges of a node with itself."""
    source, target = (frame[columns[side]].cast(pl.String) for side in ("user", "item"))
    loops = int((source == target).sum())
    if loops:
        examples = source.filter(source == target).head(N_EXAMPLES).to_list()
        yield finding("D111", loops, f"{plural(loops, 'edge')} of a node with itself", examples)


def merged_repeats(dataset: Dataset, policy: str) -> Iterator[Finding]:
    """Yield rows of a user and item that were merged; what they said is not known any more."""
    ratings = dataset.ratings
    if ratings.n_duplicates:
        what = "an edge, in one direction or the other" if ratings.is_graph else "a user and item"
        message = f"{plural(ratings.n_duplicates, 'row')} repeated {what}: --duplicates {policy} was applied"
        yield finding("D103", ratings.n_duplicates, message)


def _copies(count: int, table: pl.DataFrame, users: Vocab, items: Vocab, what: str) -> Finding:
    keys = table.filter(table.is_duplicated())["key"].unique(maintain_order=True).head(N_EXAMPLES)
    message = f"{plural(count, 'row')} repeat{'s' * (count == 1)} the {what} of another"
    return finding("D101", count, message, [pair_of(key, users, items) for key in keys])


def _repeats(count: int, policy: str) -> Finding:
    message = f"{plural(count, 'row')} repeat{'s' * (count == 1)} a user and item with nothing new"
    return finding("D103", count, f"{message}: --duplicates {policy} is applied")


def _conflicts(pairs: pl.DataFrame, count: int, users: Vocab, items: Vocab, policy: str) -> Finding:
    some = pairs.sort("key").group_by("key", maintain_order=True).agg(pl.col("value").sort()).head(N_EXAMPLES)
    examples = [
        f"{pair_of(key, users, items)}: {', '.join(f'{value:g}' for value in values[:5])}"
        for key, values in some.iter_rows()
    ]
    message = f"{count:,} users' items have different ratings: --duplicates {policy} is applied"
    if count == 1:
        message = f"a user's item has different ratings: --duplicates {policy} is applied"
    return finding("D102", count, message, examples)


def shared_pairs(one: Ratings, other: Ratings) -> Rows:
    """Return the keys of the (user, item) pairs that are in two parts, where the first hides them from lists."""
    width, one = len(one.items), one.hiding()
    keys, others = (pair_keys(part.user, part.item, width) for part in (one, other))
    return np.intersect1d(keys, others, assume_unique=True)


def find_leaks(dataset: Dataset) -> Iterator[Finding]:
    """Yield pairs of files of held-out ratings that are in the training file too, or in one another."""
    named = (("the training", dataset.ratings), ("the validation", dataset.valid), ("the test", dataset.test))
    files = [(f"{name} file", part) for name, part in named if part is not None]
    for n, (name, part) in enumerate(files):
        for other_name, other in files[n + 1 :]:
            shared = shared_pairs(part, other)
            if len(shared):
                examples = [pair_of(key, part.users, part.items) for key in shared[:N_EXAMPLES].tolist()]
                message = f"{plural(len(shared), 'pair')} of {other_name} {_be(len(shared))} in {name} too"
                yield finding("D701", len(shared), message, examples, is_fixed=not n)


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
