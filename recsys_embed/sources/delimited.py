"""Read files of ratings and items: CSV, TSV, `::`, LightGCN's lists and Parquet, plain or gzipped, with polars."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_embed.data.columns import COLUMN_NAMES
from recsys_embed.data.ids import RowLabel
from recsys_embed.errors import DataError
from recsys_embed.sources.serving_events import SQLITE_MAGIC, read_events
from recsys_embed.storage.atomic import wrap_read_errors

log = logging.getLogger("recsys_embed")

# The unit separator: nobody types it into a text file, so it can replace a separator of two characters.
_UNIT_SEPARATOR = "\x1f"

_PARQUET_MAGIC = b"PAR1"

# The suffix by which RecBole's atomic files name a column's type.
_TYPE_SUFFIX = re.compile(r":(?:token|float)(?:_seq)?$")

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

# Comment lines before a table: SNAP's and KONECT's edge lists begin with some.
_COMMENTS = re.compile(rb"(?:[#%](?:[ \t].*)?\r?\n)+")

# Characters that may surround a field in ASCII data without belonging to it.
_PADDING = (b" ", b"\t", b"\v", b"\f", b"\r", b'"')

# The columns that a table of numbers without a header is assumed to have.
_DEFAULT_COLUMNS = ("user", "item", "rating", "timestamp")


class Table(NamedTuple):
    """A file as a frame.

    is_text: all its columns are text. row_label: how messages number its rows.
    """

    frame: pl.DataFrame
    is_text: bool
    row_label: RowLabel


def read_table(path: Path, columns: str | None = None, known: tuple[str, ...] = ()) -> Table:
    """Read a file of ratings or items.

    The first line tells the separator: `::`, tab, comma, semicolon, `|`, or spaces. Lines of numbers separated by
    spaces, of which the first is a user and the others are items (LightGCN's form), become (user, item) rows.
    columns: comma-separated names for a file without a header. Without them the first line is the header, unless it
        is all numbers: then the columns are user, item, rating, timestamp, and the log says so.
    known: column names that mark a first line as a header.
    Raises DataError, with the number of the line at fault where there is one.
    """
    data = _read_bytes(path)
    if data[:4] == _PARQUET_MAGIC:
        return Table(_read_parquet(path, data), is_text=False, row_label=RowLabel())
    if data.startswith(SQLITE_MAGIC):
        return Table(read_events(path), is_text=True, row_label=RowLabel())
    _refuse_other_formats(data, path)
    data, skipped = _strip_comments(data)
    names = [n.strip() for n in columns.split(",")] if columns else None
    head = data[:65_536].decode("latin-1").removeprefix("ï»¿").replace("\r", "").split("\n")
    first = next((line for line in head if line.strip()), "")
    if not first:
        raise DataError(f"{path} is empty")
    separator = _separator(first)
    if separator == " " and not names and _has_item_lists(head):
        return Table(_read_item_lists(data, path), is_text=True, row_label=RowLabel())
    fields = [_TYPE_SUFFIX.sub("", f.strip().strip('"')) for f in first.split(separator)]
    header = names is None and not (all(map(_NUMBER.fullmatch, fields)) and not set(fields) & set(known))
    if not header and names is None:
        if not 2 <= len(fields) <= len(_DEFAULT_COLUMNS):
            raise DataError(f"{path} has no header and {len(fields)} columns: name them with --columns")
        names = list(_DEFAULT_COLUMNS[: len(fields)])
        log.info("%s has no header: assuming the columns %s (--columns names others)", path, ", ".join(names))
    if names and len(names) != len(fields):
        raise DataError(f"{path} has {len(fields)} columns ({first[:60]}), but --columns names {len(names)}")
    frame = _read_csv(data, separator, header, path, skipped)
    frame.columns = _unique_names(names or [_clean_name(c) for c in frame.columns], path)
    if not data.isascii() or any(character in data for character in _PADDING if character != separator.encode()):
        frame = frame.with_columns(pl.all().str.strip_chars())
    filled = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    # Line numbers are right only if all blank lines are at the end; otherwise messages count rows.
    lines_match = filled.height == frame.height or filled.equals(frame.head(filled.height))
    row_label = RowLabel("line", 1 + header + skipped) if lines_match else RowLabel()
    return Table(filled, is_text=True, row_label=row_label)


def _read_bytes(path: Path) -> bytes:
    with wrap_read_errors(path):
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _strip_comments(data: bytes) -> tuple[bytes, int]:
    """Cut off the leading lines that start with # or % and a space; return the rest and the number of lines cut."""
    comments = _COMMENTS.match(data)
    if comments is None:
        return data, 0
    return data[comments.end() :], comments[0].count(b"\n")


def _refuse_other_formats(data: bytes, path: Path) -> None:
    """Raise DataError for formats that people pass by mistake, and name them."""
    problem = None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problem = "UTF-16 text: save it as UTF-8"
    elif data.lstrip()[:1] in (b"{", b"["):
        problem = "JSON: turn it into CSV or Parquet first"
    elif data[:2] == b"PK":
        problem = "a zip archive: unpack it first"
    elif b"\x00" in data[:4096]:
        problem = "not text: CSV, TSV, `::`, Parquet, or one of them gzipped is needed"
    if problem:
        raise DataError(f"{path} is {problem}")


def _read_parquet(path: Path, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(data)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _clean_name(name: str) -> str:
    return _TYPE_SUFFIX.sub("", name.strip()).replace('""', '"')


def _unique_names(names: list[str], path: Path) -> list[str]:
    if len(set(names)) < len(names):
        raise DataError(f"{path} has two columns of the same name: {', '.join(names)[:200]}")
    return names


def _separator(line: str) -> str:
    return next((s for s in ("::", "\t", ",", ";", "|") if s in line), " ")


def _has_item_lists(lines: list[str]) -> bool:
    """Return whether the lines differ in length, or are longer than a table of ratings: LightGCN's form."""
    sizes = {len(line.split()) for line in lines[:-1] or lines}
    return len(sizes) > 1 or max(sizes) > len(_DEFAULT_COLUMNS)


def _read_csv(data: bytes, separator: str, header: bool, path: Path, skipped: int) -> pl.DataFrame:
    """Read a table as text columns, as UTF-8 or else as Latin-1. skipped: lines cut off before it."""
    if len(separator) == 2:
        data = data.replace(separator.encode(), _UNIT_SEPARATOR.encode())
    character = _UNIT_SEPARATOR if len(separator) == 2 else separator
    options = {
        "separator": character,
        "has_header": header,
        "infer_schema": False,
        # Files with `::`, tab or `|` do not quote, and a title may begin with a quotation mark.
        "quote_char": '"' if separator in ",;" else None,
    }
    try:
        return pl.read_csv(data, **options)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        if "utf-8" not in str(error):
            raise _parse_error(data, character, path, error, skipped) from None
    log.info("%s is not UTF-8; it was read as Latin-1", path)
    try:
        return pl.read_csv(data.decode("latin-1").encode(), **options)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise _parse_error(data, character, path, error, skipped) from None


def _parse_error(data: bytes, separator: str, path: Path, error: Exception, skipped: int) -> DataError:
    """Return an error that names the first line with too many fields, if there is one."""
    lines = data.decode("latin-1").split("\n")
    width = lines[0].count(separator)
    for number, line in enumerate(lines, 1 + skipped):
        if line.count(separator) > width and '"' not in line:
            return DataError(
                f"{path}: line {number} has {line.count(separator) + 1} fields, not {width + 1}: {line[:80]}"
            )
    return DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}")


def _read_item_lists(data: bytes, path: Path) -> pl.DataFrame:
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


# Columns of an item table that are recognised under other names too.
ITEM_NAMES = {
    "title": ("title", "movie_title", "name"),
    "year": ("year", "release_year"),
    "genres": ("genres", "genre", "class", "categories"),
}


def read_items(path: Path, columns: str | None = None, id_column: str | None = None) -> pl.DataFrame:
    """Read an item table: `item_id` as in the file (text, or a Parquet integer), then its other columns.

    columns: comma-separated names for a file without a header. id_column: the name of the id column, if unusual.
    The columns title, year and genres are recognised under their usual names (`ITEM_NAMES`) and renamed to these.
    Raises DataError.
    """
    names = (*COLUMN_NAMES["item"], "id", "asin")
    table = read_table(path, columns, names)
    key = id_column or next((n for n in names if n in table.frame.columns), None)
    if key is None or key not in table.frame.columns:
        raise DataError(
            f"{path} has no column for the item id ({', '.join(table.frame.columns)}): name it with --item-col or, "
            "without a header, name all columns with --item-columns id,title,genres"
        )
    frame = table.frame.drop("item_id", strict=False) if key != "item_id" else table.frame
    renames = {key: "item_id"}
    for role, usual in ITEM_NAMES.items():
        name = next((n for n in usual if n in frame.columns and n != key), None)
        if name:
            renames[name] = role
    frame = frame.rename(renames)
    return frame.select("item_id", pl.exclude("item_id"))
