"""Answers about items: similar items, search by text or image, and the words nearest to an item."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from recsys_embed.answering.rank import check_k
from recsys_embed.answering.tables import as_table, rows_of
from recsys_embed.answering.titles import find_item as find_row
from recsys_embed.data.ids import Id
from recsys_embed.errors import SettingError, UnknownId
from recsys_embed.retrieval.topk import topk
from recsys_embed.state.fitted import FittedState


def similar(state: FittedState, items: Id | Iterable[Id], k: int = 10) -> pl.DataFrame:
    """Return the k items most similar to each item by cosine; see `Recommender.similar`."""
    check_k(k)
    rows = rows_of(state.items, items)
    scores, neighbours = state.cosine_index.neighbours(rows, k)
    return as_table(state, scores, neighbours, of=state.items.ids(rows))


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
