"""Tokens: what counts as a word, as an entry of a list, and as a number. The one place that says so."""

from __future__ import annotations

from typing import Literal

import polars as pl

from recsys_embed.errors import DataError

Kind = Literal["words", "tags", "number"]

# What stands in a table where nothing is known.
_MISSING = ("", "n/a", "na", "none", "null", "nan", "-")


def words(column: pl.Series) -> pl.Series:
    """Return the words of every text, a list of strings each; of a missing one, an empty list.

    Text is normalised (Unicode NFKC) and set in lower case. A word is a run of letters, the marks on them, and
    digits of any script; everything else parts words. "Schindler's" is "schindler": what a short form leaves
    behind an apostrophe is dropped. Scripts that write without blanks (Chinese, Japanese, Thai) are not cut
    into words: a run of them is one.
    """
    column = _plain(column)
    if column.dtype == pl.List:
        column = column.cast(pl.List(pl.String)).list.join(" ")
    text = pl.col(column.name).cast(pl.String).fill_null("").str.normalize("NFKC").str.to_lowercase()
    text = text.str.replace_all(r"(\p{L})['’](?:s|t|d|m|re|ve|ll|em)\b", "${1}")
    return column.to_frame().select(text.str.extract_all(r"[\p{L}\p{M}\p{N}]+")).to_series()


def tags(column: pl.Series) -> pl.Series:
    """Return the entries of every list, in lower case: "Animation|Children's" has two, "Tom Hanks, Tim Allen" too.

    Entries are parted by `|`, `;` or `,`; those of a column of lists are taken as they are. What stands in parentheses
    is left out ("Joel Cohen (screenplay by)").
    """
    column = _plain(column)
    name = column.name
    if column.dtype == pl.List:
        entries = pl.col(name).cast(pl.List(pl.String)).fill_null([])
    else:
        entries = pl.col(name).cast(pl.String).fill_null("").str.replace_all(r"\([^)]*\)", "")
        entries = entries.str.replace_all(r"[,;]", "|").str.split("|")
    one = pl.element().str.to_lowercase().str.replace_all(r"\([^)]*\)", "").str.strip_chars()
    entries = entries.list.eval(one).list.drop_nulls()
    kept = entries.list.eval(pl.element().filter(~pl.element().is_in(_MISSING))).list.unique(maintain_order=True)
    return column.alias(name).to_frame().select(kept).to_series()


def numbers(column: pl.Series) -> pl.Series:
    """Return the values as floats, null where there is none."""
    column = _plain(column)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    values = column.cast(pl.Float64, strict=False)
    return values.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


def readable(column: pl.Series) -> pl.Series:
    """Return a column with dates as years, lists as lists of names, and what is not a number as nothing."""
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


def _plain(column: pl.Series) -> pl.Series:
    """Return a column as text, numbers or lists of them. Raises DataError for what cannot be read as such."""
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


def kind_of(column: pl.Series) -> Kind:
    """Say what a column holds: a number, tags, or words.

    A title is words. Numbers are what nearly every value (19 of 20) reads as. Tags are short and come again: half of
    the entries have three words at most, and an entry stands in 1.5 items or more on average. All else is words.
    """
    known = _plain(column).drop_nulls()
    if known.dtype == pl.String:
        known = known.filter(~known.str.strip_chars().str.to_lowercase().is_in(_MISSING))
    if not len(known) or column.name == "title":
        return "words"
    if known.dtype != pl.List and numbers(known).is_not_null().sum() >= 0.95 * len(known):
        return "number"
    entries = tags(known).explode().drop_nulls()
    if not len(entries):
        return "words"
    short = float(entries.str.split(" ").list.len().median() or 0) <= 3  # type: ignore[arg-type]
    return "tags" if short and len(entries) >= 1.5 * entries.n_unique() else "words"
