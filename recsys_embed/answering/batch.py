"""Batch recommendations: for many users, block by block, in bounded memory, to a file or a folder of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.answering.exclusions import excluded_items
from recsys_embed.answering.list_files import Progress, Written, write_lists
from recsys_embed.answering.rank import check_k, index_for, popularity_index_for, rank_block
from recsys_embed.answering.recipients import Recipients, describe_request
from recsys_embed.answering.recommend import compile_rules
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table
from recsys_embed.arrays import Floats
from recsys_embed.config.answers import ListShape, OutputConfig
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.forks import needs_threads
from recsys_embed.retrieval.exact import query_batch_size
from recsys_embed.state.digest import state_digest
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.part_folder import ALONE, Facts, Team
from recsys_embed.storage.table_files import Append


def iter_recommendations(state: FittedState, users: Rows, request: RecommendRequest) -> Iterator[pl.DataFrame]:
    """Yield recommendations for trained users, by row, block by block: user_id, item_id, title, score, rank.

    request: the length of the lists and what they may hold; the user that it names is ignored.
    """
    return (frame for _, frame in _iter_blocks(state, Recipients.alike(state, users, request)))


def _iter_blocks(state: FittedState, users: Recipients) -> Iterator[tuple[Recipients, pl.DataFrame]]:
    """Yield a block of users and their lists, which may be empty, until there are no users left."""
    for request in users.requests:
        check_k(request.k)
    excluded = excluded_items(state, users.requests[0])
    step = query_batch_size(len(state.items))
    for start in range(0, max(1, len(users)), step):
        block = users.slice(start, start + step)
        scores, rows = _rank_users(state, block, excluded)
        yield block, as_table(state, scores, rows, user_id=block.ids)


def _rank_users(state: FittedState, users: Recipients, excluded: UserItems) -> tuple[Floats, Rows]:
    """Return the lists of users: scores and item rows, both [n, k'], padded with row -1."""
    known = users.rows >= 0
    known[known] = state.is_known(users.rows[known])
    kind = 2 * users.group + known  # users of a kind are ranked together
    kinds = np.unique(kind).tolist() or [1]
    if len(kinds) == 1:
        return _rank_alike(state, users.rows, users.requests[kinds[0] // 2], excluded, kinds[0] % 2 == 1)
    shape = len(users), min(len(state.items), max(users.requests[one // 2].k for one in kinds))
    scores, rows = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    for one in kinds:
        at = np.flatnonzero(kind == one)
        found = _rank_alike(state, users.rows[at], users.requests[one // 2], excluded, one % 2 == 1)
        width = found[1].shape[1]
        scores[at, :width], rows[at, :width] = found
    return scores, rows


def _rank_alike(
    state: FittedState, users: Rows, request: RecommendRequest, excluded: UserItems, known: bool
) -> tuple[Floats, Rows]:
    """Return the lists of users, by row, that answer the same request. known: whether anything is known of them."""
    rules = compile_rules(state, request.rules, request.candidates, request.exclude)
    index = index_for(state, rules) if known else popularity_index_for(state, rules)
    queries = state.model.queries(users) if known else np.ones((len(users), 1), np.float32)
    return rank_block(index, queries, request.k, rules, excluded.pairs_of(users))


@needs_threads("lists for many users")
def write_recommendations(
    state: FittedState,
    out: str | Path,
    users: Recipients | Rows | None,
    request: RecommendRequest,
    shape: ListShape = "long",
    progress: Progress = lambda done, total: None,
    output: OutputConfig = OutputConfig(),  # noqa: B008
    team: Team = ALONE,
) -> Written:
    """Write lists for users, None for all, to a .parquet, .csv or .jsonl file, or to a folder of parts.

    out: a folder if it is one, or ends in a slash. Its parts are written one after the other, with a manifest; the same
    call continues what was interrupted, and does nothing where all is there. users: by row, with the request, or
    `Recipients` with requests and columns of their own.
    shape: "long", a row for each item: user_id, item_id, title, score, rank; "wide", a row for each user: user_id,
    item_1, title_1, score_1, item_2, …; or "json", a row for each user: user_id, items, which is a JSON array of
    objects. Columns of the recipients follow user_id. progress: called with the number of users that are done, and of
    all. team: processes that share the parts of a folder; all call this. Raises SettingError for a folder of other
    lists.
    """
    if not isinstance(users, Recipients):
        users = Recipients.alike(state, np.arange(len(state.users)) if users is None else users, request)
    check_k(request.k)

    def describe() -> dict[str, Any]:
        who = users.describe()
        return {
            **describe_request(state, request),
            "shape": shape,
            "users": who,
            "model": {"sha256": state_digest(state)},
        }

    def write(append: Append, start: int, stop: int, moment: str, tick: Callable[[int], None]) -> Facts:
        some, done = users.slice(start, stop).at(moment), 0
        facts: Facts = {"users": len(some), "rows": 0, "lists": 0, "held_out": 0, "without_list": []}
        for block, frame in _iter_blocks(state, some):
            ids = block.ids
            append(SHAPES[shape](frame, ids.rename("user_id").to_frame().hstack(block.columns), users.k))
            listed = frame["user_id"].unique()
            facts["without_list"] += ids.filter(~ids.is_in(listed.implode())).to_list()
            facts["rows"] += frame.height
            facts["lists"] += len(listed)
            facts["held_out"] += _with_held_out(state, frame)
            done += len(block)
            tick(done)
        return facts

    return write_lists(out, output, "lists", len(users), users.k, describe, write, progress, team)


def _with_held_out(state: FittedState, frame: pl.DataFrame) -> int:
    """Return how many users have an item in their list that was held out from the training."""
    if not len(state.held_out):
        return 0
    users, items = state.users.rows(frame["user_id"], missing="negative"), state.items.rows(frame["item_id"])
    return len(np.unique(users[state.held_out.contains(users, items)]))


def _long(frame: pl.DataFrame, users: pl.DataFrame, k: int) -> pl.DataFrame:
    if users.width > 1:
        frame = frame.join(users, on="user_id", how="left", maintain_order="left")
    return frame.select(*users.columns, "item_id", "title", "score", "rank")


def _wide(frame: pl.DataFrame, users: pl.DataFrame, k: int) -> pl.DataFrame:
    """Return a row for each user, with nulls where a list is short."""
    for rank in range(1, k + 1):
        names = {"item_id": f"item_{rank}", "title": f"title_{rank}", "score": f"score_{rank}"}
        entries = frame.filter(pl.col("rank") == rank).select("user_id", *names).rename(names)
        users = users.join(entries, on="user_id", how="left", maintain_order="left")
    return users


def _as_json(frame: pl.DataFrame, users: pl.DataFrame, k: int) -> pl.DataFrame:
    """Return a row for each user, whose items are a JSON array."""
    entries = pl.struct(item="item_id", title="title", score="score", rank="rank").struct.json_encode()
    texts = frame.group_by("user_id", maintain_order=True).agg(entries.str.join(",").alias("items"))
    texts = texts.with_columns(pl.format("[{}]", "items").alias("items"))
    filled = users.join(texts, on="user_id", how="left", maintain_order="left")
    return filled.with_columns(pl.col("items").fill_null("[]"))


SHAPES = {"long": _long, "wide": _wide, "json": _as_json}
