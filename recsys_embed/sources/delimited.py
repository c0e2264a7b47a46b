"""Read text files of ratings and items with polars: CSV in its dialects, TSV, `::`, and LightGCN's lists."""

from __future__ import annotations

import codecs
import re
from typing import Any, NamedTuple

import polars as pl

from recsys_embed.data.ids import RowLabel
from recsys_embed.errors import DataError
from recsys_embed.sources.dialect import (
    DEFAULT_COLUMNS,
    HEAD,
    Dialect,
    dialect_of,
    is_header,
    names_columns,
    strip_preamble,
)
from recsys_embed.sources.number_texts import with_plain_numbers
from recsys_embed.sources.odd_lines import OddLine, label_of, line_numbers, odd_lines, without_lines
from recsys_embed.sources.table import Table

# The unit separator: nobody types it into a text file, so it can replace a separator of two characters.
_UNIT_SEPARATOR = "\x1f"

# The suffix by which RecBole's atomic files name a column's type.
_TYPE_SUFFIX = re.compile(r":(?:token|float)(?:_seq)?$")

# Characters that may surround a field in ASCII data without belonging to it.
_PADDING = (b" ", b"\t", b"\v", b"\f", b"\r", b'"')

ONE_BYTE = "is not UTF-8; it was read as Windows-1252 (Latin-1)"


class Parsed(NamedTuple):
    """A text as a table. notes: what to say of it, after the file's name. names: its columns, header or not."""

    table: Table
    notes: list[str]
    names: list[str]


def parse_text(
    data: bytes,
    name: str,
    columns: str | None = None,
    known: tuple[str, ...] = (),
    expected: list[str] | None = None,
    only: str | None = None,
    tolerant: bool = False,
) -> Parsed:
    """Read a table that is written as text, in UTF-8 or an encoding of one byte a character.

    The first lines tell the separator: `::`, tab, comma, semicolon, `|`, or blanks. Lines of numbers separated by
    blanks, of which the first is a user and the others are items (LightGCN's form), become (user, item) rows.
    name: of the file, for messages. columns: comma-separated names for a file without a header. Without them the first
        line is the header, unless it holds values: then the columns are user, item, rating, timestamp, and a note says
        so.
    known: column names that mark a first line as a header. expected: the columns of the file that this one continues.
    only, tolerant: see `read_table`.
    Raises DataError, with the number of the line at fault where there is one.
    """
    data, notes = _head_in_utf8(data)
    data, skipped, excel = strip_preamble(data)
    names = [n.strip() for n in columns.split(",")] if columns else None
    dialect = dialect_of(data, excel)
    if dialect is None:
        raise DataError(f"{name} is empty")
    dialect = dialect._replace(fields=[_TYPE_SUFFIX.sub("", field) for field in dialect.fields])
    if only and names is None and len(dialect.fields) == 1 and not names_columns(dialect, known):
        names = [only]
    if dialect.separator == " ":
        data, text = _with_single_blanks(data, dialect), dialect.lines
        if not names and _has_item_lists(text) and not is_header(dialect, ("user", "item")):
            return Parsed(Table(_read_item_lists(data, name), True, RowLabel()), [], ["user", "item"])
    header = names is None and is_header(dialect, (*known, *(expected or ())))
    if names is None and expected and not set(dialect.fields) & set(expected):
        header, names = False, expected if len(dialect.fields) == len(expected) else None
    if not header and names is None:
        names = _default_names(dialect, name)
        listed = ", ".join(filter(None, names))
        notes.append(f"has no header: assuming the columns {listed} (--columns names others)")
    width = len(dialect.fields)
    if names and len(names) + 1 == width and not dialect.fields[-1]:
        names = [*names, ""]
    if names and len(names) != width:
        raise DataError(f"{name} has {width} columns ({dialect.lines[0][:60]}), but --columns names {len(names)}")
    frame, encoding_note, odd = _read_csv(data, dialect, header, name, skipped, tolerant)
    notes += encoding_note
    if names and len(names) != frame.width:  # an odd end of a line, which polars takes for two rows
        raise DataError(f"{name} cannot be read as a table: its lines have {frame.width} and {len(names)} fields")
    frame.columns = _unique_names(names or [_clean_name(c) for c in frame.columns], name)
    if not data.isascii() or any(c in data for c in _PADDING if c != dialect.separator.encode()):
        frame = frame.with_columns(pl.all().str.strip_chars())
    is_blank = _blank_lines(frame)
    row_label = label_of(data, dialect.quote, odd, header, skipped, is_blank)
    filled = _without_empty_columns(frame.filter(~is_blank))
    has_commas = b"," in data and (dialect.separator != "," or b'"' in data)
    filled, of_numbers = with_plain_numbers(filled, dialect.separator, has_commas)
    return Parsed(Table(filled, True, row_label, tuple(odd)), notes + of_numbers, filled.columns)


def _default_names(dialect: Dialect, name: str) -> list[str]:
    """Return the names of the columns of a file without a header. Raises DataError if it has too few or too many."""
    if dialect.default_names is None:
        usual = ",".join(DEFAULT_COLUMNS)
        raise DataError(
            f"{name} has no header and {len(dialect.fields)} columns: name them with --columns, as in --columns {usual}"
        )
    return dialect.default_names


def _with_single_blanks(data: bytes, dialect: Dialect) -> bytes:
    """Return a text whose fields are separated by blanks with exactly one between two."""
    if not any(re.search(r"[ \t]{2}|\t|^ | $", line) for line in dialect.lines):
        return data
    return re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb"[ \t]+", b" ", data))


def _blank_lines(frame: pl.DataFrame) -> pl.Series:
    """Return which rows have nothing but blanks, in the first column."""
    first, *others = frame.get_columns()
    nothing_else = pl.all_horizontal(True, *(column.is_null() for column in others))
    return pl.select((first.is_null() | (first == "")) & nothing_else).to_series()


def _clean_name(name: str) -> str:
    return _TYPE_SUFFIX.sub("", name.strip()).replace('""', '"')


def _unique_names(names: list[str], path: str) -> list[str]:
    if len(set(names)) < len(names):
        raise DataError(f"{path} has two columns of the same name: {', '.join(names)[:200]}")
    return names


def _without_empty_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame without the columns that trailing separators make: without a name and without a value."""
    blank = [c for c in frame.columns if re.fullmatch(r"(?:_duplicated_\d+)?", c)]
    return frame.drop([c for c in blank if frame[c].null_count() == frame.height])


def _has_item_lists(lines: list[str]) -> bool:
    """Return whether the lines differ in length, or are longer than a table of ratings: LightGCN's form."""
    sizes = {len(line.split()) for line in lines[:-1] or lines}
    return len(sizes) > 1 or max(sizes) > len(DEFAULT_COLUMNS)


def _read_csv(
    data: bytes, dialect: Dialect, header: bool, path: str, skipped: int, tolerant: bool
) -> tuple[pl.DataFrame, list[str], list[OddLine]]:
    """Read a table as text columns; return it, notes, and lines with another number of fields if they are asked for.

    skipped: lines cut off. tolerant: leave out lines with too many fields.
    """
    separator = dialect.separator
    if len(separator) == 2:
        data, separator = data.replace(separator.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
    if dialect.trailing and header:  # the header gets a separator more too
        end = data.index(b"\n") - data[: data.index(b"\n")].endswith(b"\r")
        data = data[:end] + separator.encode() + data[end:]
    options: dict[str, Any] = {
        "separator": separator, "has_header": header, "infer_schema": False, "quote_char": dialect.quote,
    }  # fmt: skip
    try:
        frame, notes = _decoded_csv(data, options)
    except pl.exceptions.PolarsError as error:
        odd = odd_lines(data, separator, dialect.quote, path, skipped)
        longer = [line for line in odd if line.is_longer]
        if not (longer and tolerant):
            raise _parse_error(data, longer, path, error, skipped) from None
        try:
            return *_decoded_csv(without_lines(data, longer, skipped), options), odd
        except pl.exceptions.PolarsError as other:
            raise _parse_error(data, [], path, other, skipped) from None
    if tolerant and frame.width and frame.to_series(-1).null_count():
        return frame, notes, odd_lines(data, separator, dialect.quote, path, skipped)
    return frame, notes, []


def _head_in_utf8(data: bytes) -> tuple[bytes, list[str]]:
    """Return a text as UTF-8 if its beginning, which holds the names of the columns, is not; and notes.

    What comes later is found out while it is read.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data[:HEAD], final=len(data) <= HEAD)
    except UnicodeDecodeError:
        return one_byte_text(data).encode(), [ONE_BYTE]
    return data, []


def _decoded_csv(data: bytes, options: dict[str, Any]) -> tuple[pl.DataFrame, list[str]]:
    """Read a table as UTF-8 or else as Windows-1252; return it and notes. Raises PolarsError."""
    try:
        return pl.read_csv(data, **options), []
    except pl.exceptions.PolarsError as error:
        if "utf-8" not in str(error):
            raise
    return pl.read_csv(one_byte_text(data).encode(), **options), [ONE_BYTE]


def one_byte_text(data: bytes) -> str:
    """Decode Windows-1252, which is Latin-1 with letters where that has control characters; five bytes have no meaning
    in it, and text with one of them is Latin-1."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _parse_error(data: bytes, longer: list[OddLine], path: str, error: Exception, skipped: int) -> DataError:
    """Return an error that names the first line with too many fields, if there is one."""
    if not longer:
        return DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}")
    first = longer[0]
    text = data.split(b"\n")[first.first - 1 - skipped].decode("utf-8", "replace")[:80].replace(_UNIT_SEPARATOR, "::")
    others = f" (lines {line_numbers(longer[1:])} have too many, too)" if len(longer) > 1 else ""
    return DataError(
        f"{path}: line {first.first} has {first.fields} fields, not {first.width}: {text}{others}; quote what holds a "
        "separator, or leave such lines out, as recsys data check --fix OUT does with ratings"
    )


def _read_item_lists(data: bytes, path: str) -> pl.DataFrame:
    """Read lines of a user and their items, LightGCN's form, as (user, item) rows."""
    try:
        lines = pl.Series("line", data.decode().splitlines()).str.strip_chars()
    except UnicodeDecodeError:
        raise DataError(f"{path} is neither a table nor lists of ids: it is not text") from None
    frame = (
        pl.DataFrame({"ids": lines.str.split(" ")})
        .with_columns(user=pl.col("ids").list.first(), item=pl.col("ids").list.slice(1))
        .filter(pl.col("item").list.len() > 0)
    )
    return frame.select("user", "item").explode("item").filter(pl.col("item") != "")
