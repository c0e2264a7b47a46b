"""Item tables: one row an item, in the order of a vocabulary."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import polars as pl

from recsys_embed.data.columns import as_polars
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("recsys_embed")


def aligned(items: pl.DataFrame | pd.DataFrame | None, vocab: Vocab) -> pl.DataFrame:
    """Return an item table with one row an item, in the order of the vocabulary; a missing title is the id."""
    ids = vocab.series.alias("item_id")
    table = pl.DataFrame({"item_id": ids})
    if items is not None:
        items = as_polars(items)
        if "item_id" not in items.columns:
            raise DataError(f"the item table has no column item_id; it has {', '.join(items.columns)[:200]}")
        items = items.filter(pl.col("item_id").is_not_null())
        key = vocab.like(items["item_id"])
        known = items.with_columns(item_id=key).filter(key.is_not_null()).unique("item_id", keep="first")
        found = int(ids.is_in(known["item_id"].implode()).sum())
        if found < len(vocab) / 2:
            log.warning("the item table knows %d of the %d rated items: are its ids the same?", found, len(vocab))
        table = table.join(known, on="item_id", how="left", maintain_order="left")
    name = pl.col("item_id").cast(pl.String)
    if "title" not in table.columns:
        table = table.with_columns(title=name).select("item_id", "title", pl.exclude("item_id", "title"))
    title = pl.col("title").cast(pl.String)
    blank = title.is_null() | (title.str.strip_chars() == "")
    return table.with_columns(title=pl.when(blank).then(name).otherwise(title)).drop("ratings", strict=False)


def new_rows(table: pl.DataFrame, known: Vocab, own: pl.DataFrame) -> tuple[Vocab, pl.DataFrame]:
    """Return the ids of new items and their rows, with the columns and types of the table `own` of the known ones.

    Raises DataError for ids that are known already, stand twice or are of another type, and columns that do not fit.
    """
    if "item_id" not in table.columns:
        raise DataError(f"the item table has no column item_id; it has {', '.join(table.columns)[:200]}")
    ids = known.like(table["item_id"])
    if ids.null_count():
        odd = table["item_id"].filter(ids.is_null())[0]
        raise DataError(f"item id {odd!r} is no integer, and the ids of this model are")
    both = set(ids.to_list()) & set(known.series.to_list())
    if both or ids.n_unique() < len(ids):
        same = both or set(ids.filter(ids.is_duplicated()).to_list())
        raise DataError(f"{len(same)} items are known already or stand twice, e.g. {min(same)}")
    vocab = Vocab(ids, "item")
    rows = aligned(table, vocab)
    shared = [c for c in own.columns if c in rows.columns]
    lists = [c for c in shared if own.schema[c] == pl.String and rows.schema[c] == pl.List(pl.String)]
    try:
        rows = rows.with_columns(pl.col(c).list.join("|") for c in lists)
        return vocab, rows.select(pl.col(c).cast(own.schema[c], strict=False) for c in shared)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the columns of the new items do not fit: {str(error).splitlines()[0]}") from None
