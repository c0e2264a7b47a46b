"""Answers about items: similar items, search by text or image, and the words nearest to an item."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from recsys_embed.answering.rank import check_k
from recsys_embed.answering.tables import as_table, rows_of
from recsys_embed.answering.titles import find_item as find_row
from recsys_embed.answering.together import similar_by_users
from recsys_embed.data.ids import Id
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.forks import needs_threads
from recsys_embed.retrieval.topk import topk
from recsys_embed.state.fitted import FittedState

SimilarBy = Literal["embeddings", "neighbours", "together"]


def similar(
    state: FittedState, items: Id | Iterable[Id], k: int = 10, by: str | None = None, min_support: int = 0
) -> pl.DataFrame:
    """Return the k items most similar to each item; see `Recommender.similar`."""
    check_k(k)
    by, rows = by or default_similarity(state), rows_of(state.items, items)
    if by not in get_args(SimilarBy):
        raise SettingError(f"by must be one of {', '.join(get_args(SimilarBy))}, got {by!r}")
    allowed = state.item_counts >= min_support if min_support > 0 else None
    if by == "embeddings":
        if not state.model.item_vectors.shape[1]:
            raise SettingError("this model has no embeddings: similar by neighbours needs none")
        scores, neighbours = state.cosine_index.neighbours(rows, k, allowed)
        return as_table(state, scores, neighbours, of=state.items.ids(rows))
    return similar_by_users(state, rows, k, by, allowed)


def similar_entries(
    state: FittedState, item: Id, k: int = 10, by: str | None = None, min_support: int = 0
) -> dict[str, Any]:
    """Return what is similar to an item as `recsys similar --json` and the service do: by, items."""
    by = by or default_similarity(state)
    table = similar(state, item, k, by, min_support).drop("of").rename({"item_id": "item"})
    return {"by": by, "items": table.to_dicts()}


def default_similarity(state: FittedState) -> SimilarBy:
    """Return what `similar` goes by: embeddings, or the neighbours of a model that has no embeddings."""
    return "embeddings" if state.model.item_vectors.shape[1] else "neighbours"


@needs_threads("a search")
def search(state: FittedState, query: str | None, k: int = 10, image: str | Path | None = None) -> pl.DataFrame:
    """Return the k items most similar to a text, an image, or both; see `Recommender.search`."""
    check_k(k)
    content = state.require_content_model()
    if not query and image is None:
        raise SettingError("search needs a text or a picture")
    similarity = content.similarity(query, None if image is None else Path(image), state.model.item_vectors)
    return as_table(state, *topk(similarity[None], min(k, len(similarity))))


def nearest_tokens(state: FittedState, item: Id, k: int = 10) -> pl.DataFrame:
    """Return the k words and tags nearest to an item; see `Recommender.nearest_tokens`."""
    check_k(k)
    row = int(rows_of(state.items, item)[0])
    return state.require_content_model().nearest_tokens(state.model.item_vectors[row], k)


def find_item(state: FittedState, text: Id) -> Id:
    """Return the id of the item with this id or title; see `titles.find_item`."""
    if not isinstance(text, int | str | np.integer):
        raise UnknownId(f"{text!r} names no item: an id or a title is needed")
    item: Id = state.items.ids([find_row(str(text), state.items, state.table["title"])])[0]
    return item
