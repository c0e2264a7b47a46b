"""Batch recommendations: for many users, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.answering.exclusions import excluded_items
from recsys_embed.answering.rank import check_k, index_for, popularity_index_for, rank_block
from recsys_embed.answering.recommend import compile_rules
from recsys_embed.answering.request import RecommendRequest
from recsys_embed.answering.tables import as_table
from recsys_embed.data.ids import Rows
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


def write_recommendations(state: FittedState, path: Path, users: Rows | None, request: RecommendRequest) -> int:
    """Write user_id, item_id, score, rank for users by row, None for all; return the number of rows written."""
    written = 0
    rows = np.arange(len(state.users)) if users is None else users
    with table_writer(path) as append:
        for frame in iter_recommendations(state, rows, request):
            append(frame.select("user_id", "item_id", "score", "rank"))
            written += frame.height
    return written
