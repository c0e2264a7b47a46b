"""Recommendations for many users, a block at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.answering.rank import check_k, index_for, rank_block
from recsys_embed.answering.recommend import compile_rules
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table
from recsys_embed.data.ids import Rows
from recsys_embed.data.user_items import UserItems
from recsys_embed.retrieval.exact import query_batch_size
from recsys_embed.state.fitted import FittedState
from recsys_embed.storage.table_files import writing


def iter_recommendations(state: FittedState, users: Rows, request: RecommendRequest) -> Iterator[pl.DataFrame]:
    """Yield the lists of users of the model, by row, a block of them at a time: user_id, item_id, title, score, rank.

    request: how long the lists are and what they may hold; whom it names is not looked at.
    """
    check_k(request.k)
    rules = compile_rules(state, request.rules, request.candidates, request.exclude)
    index, hidden = index_for(state, rules), state.hidden
    if request.include_seen:
        nothing = UserItems.nothing(len(state.users))
        hidden = nothing.with_self_loops() if state.shared else nothing
    if request.hide_test:
        hidden = hidden.union(state.held_out)
    step = query_batch_size(len(state.items))
    for start in range(0, max(1, len(users)), step):
        block = users[start : start + step]
        scores, rows = rank_block(index, state.model.queries(block), request.k, rules, hidden.of_users(block))
        yield as_table(state, scores, rows, user_id=state.users.ids(block))


def write_recommendations(state: FittedState, path: Path, users: Rows | None, request: RecommendRequest) -> int:
    """Write user_id, item_id, score, rank of users by row (None: all); return the number of rows."""
    written = 0
    rows = np.arange(len(state.users)) if users is None else users
    with writing(path) as append:
        for frame in iter_recommendations(state, rows, request):
            append(frame.select("user_id", "item_id", "score", "rank"))
            written += frame.height
    return written
