"""Item tables: one row per item, in the order of a vocabulary."""

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

# Texts that mark a missing value.
MISSING_MARKS = ("", "n/a", "na", "none", "null", "nan", "-")
# A code such as a postcode or an article's number, whose zeros count.
_CODE = r"^[+-]?0\d"


def align_items(items: pl.DataFrame | pd.DataFrame | None, vocab: Vocab) -> pl.DataFrame:
    """Return an item table with one row per item, in the order of the vocabulary.

    items: a table with a column `item_id`; items that it lacks get nulls, items that are not in the vocabulary are
        dropped, and of several rows of one item the first is used. None: a table of ids and titles alone.
    The result has `item_id` and `title` among its columns; a missing title is the id. A column `ratings` is dropped.
    """
    ids = vocab.series.alias("item_id")
    table = pl.DataFrame({"item_id": ids})
    if items is not None:
        items = as_polars(items)
        _check_has_ids(items)
        items = items.filter(pl.col("item_id").is_not_null())
        key = vocab.cast_column(items["item_id"])
        rows = items.with_columns(item_id=key).filter(key.is_not_null()).unique("item_id", keep="first")
        n_covered = int(ids.is_in(rows["item_id"].implode()).sum())
        if n_covered < len(vocab) / 2:
            log.warning("the item table has %d of the %d rated items: does it use the same ids?", n_covered, len(vocab))
        table = table.join(rows, on="item_id", how="left", maintain_order="left")
    id_text = pl.col("item_id").cast(pl.String)
    if "title" not in table.columns:
        table = table.with_columns(title=id_text).select("item_id", "title", pl.exclude("item_id", "title"))
    title = pl.col("title").cast(pl.String)
    blank = title.is_null() | (title.str.strip_chars() == "")
    return table.with_columns(title=pl.when(blank).then(id_text).otherwise(title)).drop("ratings", strict=False)


def with_numbers(items: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose columns of text that hold nothing but numbers are numbers, all whole or all floats.

    Ids and titles stay text, and so do columns in which a value begins with zeros: 007 is a code.
    """
    return items.with_columns(
        _as_numbers(items[name])
        for name, dtype in items.schema.items()
        if dtype == pl.String and name not in ("item_id", "title")
    )


def _as_numbers(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars()
    missing = text.is_null() | text.str.to_lowercase().is_in(MISSING_MARKS)
    if missing.all() or text.str.contains(_CODE).any():
        return column
    for dtype in (pl.Int64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if ((numbers.is_not_null() & numbers.is_finite()) | missing).all():
            return numbers.set(missing, None)
    return column


def new_item_rows(table: pl.DataFrame, known: Vocab, known_table: pl.DataFrame) -> tuple[Vocab, pl.DataFrame]:
    """Return the vocabulary of new items and their rows, with the columns and types of `known_table`.

    table: the new items. known, known_table: the items of the model and their table.
    Raises DataError for ids that are in the model already, occur twice or have another type, and for columns that
    cannot be converted.
    """
    _check_has_ids(table)
    ids = known.cast_column(table["item_id"])
    if ids.null_count():
        bad_id = table["item_id"].filter(ids.is_null())[0]
        raise DataError(f"item id {bad_id!r} is not an integer, but the ids of this model are")
    in_model = set(ids.to_list()) & set(known.series.to_list())
    if in_model or ids.n_unique() < len(ids):
        repeated = in_model or set(ids.filter(ids.is_duplicated()).to_list())
        raise DataError(
            f"new items need ids of their own: {len(repeated)} are in the model already or given twice, "
            f"e.g. {min(repeated)}"
        )
    vocab = Vocab(ids, "item")
    rows = align_items(table, vocab)
    columns = [c for c in known_table.columns if c in rows.columns]
    lists = [c for c in columns if known_table.schema[c] == pl.String and rows.schema[c] == pl.List(pl.String)]
    try:
        rows = rows.with_columns(pl.col(c).list.join("|") for c in lists)
        return vocab, rows.select(pl.col(c).cast(known_table.schema[c], strict=False) for c in columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the columns of the new items do not fit: {str(error).splitlines()[0]}") from None


def _check_has_ids(table: pl.DataFrame) -> None:
    if "item_id" not in table.columns:
        raise DataError(f"the item table has no column item_id; it has {', '.join(table.columns)[:200]}")
