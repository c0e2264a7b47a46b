"""Batch recommendations: for many users, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_embed.answering.exclusions import excluded_items
from recsys_embed.answering.rank import check_k, index_for, popularity_index_for, rank_block
from recsys_embed.answering.recommend import compile_rules
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table
from recsys_embed.config.answers import ListShape
from recsys_embed.data.ids import Id, Rows
from recsys_embed.retrieval.exact import query_batch_size
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.table_files import table_writer


def iter_recommendations(state: FittedState, users: Rows, request: RecommendRequest) -> Iterator[pl.DataFrame]:
    """Yield recommendations for trained users, by row, block by block: user_id, item_id, title, score, rank.

    request: the length of the lists and what they may hold; the user that it names is ignored.
    """
    check_k(request.k)
    rules = compile_rules(state, request.rules, request.candidates, request.exclude)
    index, excluded = index_for(state, rules), excluded_items(state, request)
    step = query_batch_size(len(state.items))
    for start in range(0, max(1, len(users)), step):
        block = users[start : start + step]
        scores, rows = rank_block(index, state.model.queries(block), request.k, rules, excluded.pairs_of(block))
        unknown = np.flatnonzero(~state.is_known(block))
        if len(unknown):
            others, ones = block[unknown], np.ones((len(unknown), 1), np.float32)
            popular = rank_block(popularity_index_for(state, rules), ones, request.k, rules, excluded.pairs_of(others))
            scores[unknown], rows[unknown] = popular
        yield as_table(state, scores, rows, user_id=state.users.ids(block))


class Written(NamedTuple):
    """What was written to a file of lists.

    rows: the number of rows. lists: of users with an item. empty: the ids of users without any. held_out: the number of
    lists with an item that was held out for test, which the user has already.
    """

    rows: int
    lists: int
    empty: list[Id]
    held_out: int


def write_recommendations(
    state: FittedState,
    path: Path,
    users: Rows | None,
    request: RecommendRequest,
    shape: ListShape = "long",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Write lists for users by row, None for all, to a .parquet, .csv or .jsonl file.

    shape: "long", a row for each item: user_id, item_id, title, score, rank; "wide", a row for each user: user_id,
    item_1, title_1, score_1, item_2, …; or "json", a row for each user: user_id, items, which is a JSON array of
    objects. progress: called with the number of users that are done, and of all.
    """
    rows = np.arange(len(state.users)) if users is None else users
    n_rows, n_lists, n_held_out, empty, done = 0, 0, 0, list[Id](), 0
    with table_writer(path) as append:
        for frame in iter_recommendations(state, rows, request):
            ids = state.users.ids(rows[done : done + query_batch_size(len(state.items))])
            append(SHAPES[shape](frame, ids, request.k))
            listed = frame["user_id"].unique()
            empty += ids.filter(~ids.is_in(listed.implode())).to_list()
            n_rows, n_lists, done = n_rows + frame.height, n_lists + len(listed), done + len(ids)
            n_held_out += _with_held_out(state, frame)
            progress(done, len(rows))
    return Written(n_rows, n_lists, empty, n_held_out)


def _with_held_out(state: FittedState, frame: pl.DataFrame) -> int:
    """Return how many users have an item in their list that was held out from the training."""
    if not len(state.held_out):
        return 0
    users, items = state.users.rows(frame["user_id"]), state.items.rows(frame["item_id"])
    return len(np.unique(users[state.held_out.contains(users, items)]))


def _long(frame: pl.DataFrame, users: pl.Series, k: int) -> pl.DataFrame:
    return frame.select("user_id", "item_id", "title", "score", "rank")


def _wide(frame: pl.DataFrame, users: pl.Series, k: int) -> pl.DataFrame:
    """Return a row for each user, with nulls where a list is short."""
    wide = pl.DataFrame({"user_id": users})
    for rank in range(1, k + 1):
        names = {"item_id": f"item_{rank}", "title": f"title_{rank}", "score": f"score_{rank}"}
        entries = frame.filter(pl.col("rank") == rank).select("user_id", *names).rename(names)
        wide = wide.join(entries, on="user_id", how="left", maintain_order="left")
    return wide


def _as_json(frame: pl.DataFrame, users: pl.Series, k: int) -> pl.DataFrame:
    """Return a row for each user, whose items are a JSON array."""
    entries = pl.struct(item="item_id", title="title", score="score", rank="rank").struct.json_encode()
    texts = frame.group_by("user_id", maintain_order=True).agg(entries.str.join(",").alias("items"))
    texts = texts.with_columns(pl.format("[{}]", "items").alias("items"))
    filled = pl.DataFrame({"user_id": users}).join(texts, on="user_id", how="left", maintain_order="left")
    return filled.with_columns(pl.col("items").fill_null("[]"))


SHAPES = {"long": _long, "wide": _wide, "json": _as_json}
