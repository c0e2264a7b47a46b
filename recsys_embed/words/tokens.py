"""Tokens: the only place that defines what a word, a tag and a number in an item column are."""

from __future__ import annotations

from typing import Literal

import polars as pl

from recsys_embed.data.item_table import MISSING_MARKS
from recsys_embed.errors import DataError

Kind = Literal["words", "tags", "number"]


def split_words(column: pl.Series) -> pl.Series:
    """Return the words of each text as a list of strings; an empty list if it is missing.

    Text is normalised (Unicode NFKC) and lower-cased. A word is a run of letters, their combining marks, and digits of
    any script; everything else separates words. "Schindler's" is "schindler": what a contraction leaves after the
    apostrophe is dropped. Scripts that are written without spaces (Chinese, Japanese, Thai) are not segmented: a run
    of them is one word.
    """
    column = _plain_column(column)
    if column.dtype == pl.List:
        column = column.cast(pl.List(pl.String)).list.join(" ")
    text = pl.col(column.name).cast(pl.String).fill_null("").str.normalize("NFKC").str.to_lowercase()
    text = text.str.replace_all(r"(\p{L})['’](?:s|t|d|m|re|ve|ll|em)\b", "${1}")
    return column.to_frame().select(text.str.extract_all(r"[\p{L}\p{M}\p{N}]+")).to_series()


def split_tags(column: pl.Series) -> pl.Series:
    """Return the tags of each text or list, lower-cased: "Animation|Children's" and "Tom Hanks, Tim Allen" have two.

    Tags in a text are separated by `|`, `;` or `,`; a list has one tag per entry. Text in parentheses is dropped
    ("Joel Cohen (screenplay by)"), and so are duplicates and marks of missing values.
    """
    column = _plain_column(column)
    name = column.name
    if column.dtype == pl.List:
        entries = pl.col(name).cast(pl.List(pl.String)).fill_null([])
    else:
        entries = pl.col(name).cast(pl.String).fill_null("").str.replace_all(r"\([^)]*\)", "")
        entries = entries.str.replace_all(r"[,;]", "|").str.split("|")
    clean = pl.element().str.to_lowercase().str.replace_all(r"\([^)]*\)", "").str.strip_chars()
    entries = entries.list.eval(clean).list.drop_nulls()
    tags = entries.list.eval(pl.element().filter(~pl.element().is_in(MISSING_MARKS))).list.unique(maintain_order=True)
    return column.alias(name).to_frame().select(tags).to_series()


def split_labels(lines: pl.Series, name: str) -> tuple[pl.Series, list[list[str]]]:
    """Return texts without the labels among them, and the labels of each, lower-cased: fastText's form,
    "__label__drama __label__war two brothers …". As fastText does, every word of this form is taken for a label.

    name: of the file, for the message. Raises DataError if no line has a label.
    """
    words = (
        lines.str.to_lowercase()
        .str.extract_all(r"\S+")
        .list.eval(pl.element().filter(pl.element().str.contains(r"^__label__.")))
    )
    labels = words.list.eval(pl.element().str.strip_prefix("__label__")).list.unique(maintain_order=True)
    if not labels.list.len().sum():
        raise DataError(f"no line of {name} has a __label__NAME: label the lines, or name --column of a table")
    rest = lines.str.replace_all(r"(?:^|\s)__label__\S+", " ").str.strip_chars()
    return rest.alias("text"), labels.to_list()


def parse_numbers(column: pl.Series) -> pl.Series:
    """Return the values as floats; null if missing, not a number or not finite."""
    column = _plain_column(column)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    values = column.cast(pl.Float64, strict=False)
    return values.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


def normalize_column(column: pl.Series) -> pl.Series:
    """Return a column with dates as years, other times as text, lists as lists of strings, and NaN as null."""
    kind = column.dtype
    if kind in (pl.Date, pl.Datetime):
        return column.dt.year()
    if kind.is_temporal():
        return column.cast(pl.String)
    if kind.is_float():
        return column.fill_nan(None)
    if isinstance(kind, pl.List | pl.Array) and not kind.inner.is_nested() and kind.inner not in (pl.Binary, pl.Object):
        return column.cast(pl.List(pl.String))
    return column


def _plain_column(column: pl.Series) -> pl.Series:
    """Return a column of text, numbers or lists of these. Raises DataError for other types."""
    kind = column.dtype
    if isinstance(kind, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if isinstance(kind, pl.Array):
        column = column.arr.to_list()
        kind = column.dtype
    inner = kind.inner if isinstance(kind, pl.List) else kind
    if inner.is_nested() or inner in (pl.Binary, pl.Object):
        raise DataError(
            f"the item column {column.name!r} holds {column.dtype}; text, numbers or lists of them are needed"
        )
    return column


def infer_kind(column: pl.Series) -> Kind:
    """Return what a column holds: "number", "tags" or "words".

    A column `title` holds words. A column holds numbers if at least 95% of its values parse as numbers. It holds tags
    if they are short and repeat: the median tag has at most three words, and a tag is on at least 1.5 items on
    average. Otherwise it holds words.
    """
    present = _plain_column(column).drop_nulls()
    if present.dtype == pl.String:
        present = present.filter(~present.str.strip_chars().str.to_lowercase().is_in(MISSING_MARKS))
    if not len(present) or column.name == "title":
        return "words"
    if present.dtype != pl.List and parse_numbers(present).is_not_null().sum() >= 0.95 * len(present):
        return "number"
    tags = split_tags(present).explode().drop_nulls()
    if not len(tags):
        return "words"
    short = float(tags.str.split(" ").list.len().median() or 0) <= 3  # type: ignore[arg-type]
    return "tags" if short and len(tags) >= 1.5 * tags.n_unique() else "words"
