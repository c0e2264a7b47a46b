"""Rating and item files: CSV, TSV, `::`, LightGCN's lists and Parquet, plain or gzipped, read with polars."""

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
from recsys_embed.sources.event_log import SQLITE, read_events
from recsys_embed.storage.atomic import reading

log = logging.getLogger("recsys_embed")


# Not in any text file that people write, so it can stand for a separator of two characters.
_UNIT = "\x1f"


_PARQUET = b"PAR1"


# RecBole's atomic files say a column's type behind its name.
_TYPED_NAME = re.compile(r":(?:token|float)(?:_seq)?$")


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


# Lines at the head of a table that are none of it: SNAP's and KONECT's edge lists begin with some.
_COMMENTS = re.compile(rb"(?:[#%](?:[ \t].*)?\r?\n)+")


# What a field of ASCII may have at its ends and is no part of it.
_BLANKS = (b" ", b"\t", b"\v", b"\f", b"\r", b'"')


# The columns that a table of numbers without a header is taken to have.
_USUAL = ("user", "item", "rating", "timestamp")


class Table(NamedTuple):
    """A file as a frame. `text`: all its columns are text. `place`: how its rows are named in messages."""

    frame: pl.DataFrame
    text: bool
    place: RowLabel


def read_table(path: Path, columns: str | None = None, known: tuple[str, ...] = ()) -> Table:
    """Read a file of ratings or items.

    The separator is found in the first line: `::`, tab, comma, semicolon, `|`, or blanks; lines of blanks whose
    first number is a user and whose other numbers are items (LightGCN's form) become (user, item) rows.
    columns: comma-separated names for a file without a header. Without it the first line is the header,
        unless it is all numbers: then the columns are user, item, rating, timestamp, and the log says so.
    known: column names that mark a first line as a header.
    Raises DataError, with the line where one is to blame.
    """
    data = _read_bytes(path)
    if data[:4] == _PARQUET:
        return Table(_read_parquet(path, data), text=False, place=RowLabel())
    if data.startswith(SQLITE):
        return Table(read_events(path), text=True, place=RowLabel())
    _refuse_other_kinds(data, path)
    data, skipped = _without_comments(data)
    names = [n.strip() for n in columns.split(",")] if columns else None
    head = data[:65_536].decode("latin-1").removeprefix("ï»¿").replace("\r", "").split("\n")
    first = next((line for line in head if line.strip()), "")
    if not first:
        raise DataError(f"{path} is empty")
    separator = _separator(first)
    if separator == " " and not names and _is_lists(head):
        return Table(_read_lists(data, path), text=True, place=RowLabel())
    fields = [_TYPED_NAME.sub("", f.strip().strip('"')) for f in first.split(separator)]
    header = names is None and not (all(map(_NUMBER.fullmatch, fields)) and not set(fields) & set(known))
    if not header and names is None:
        if not 2 <= len(fields) <= len(_USUAL):
            raise DataError(f"{path} has no header and {len(fields)} columns: name them with --columns")
        names = list(_USUAL[: len(fields)])
        log.info("%s has no header: its columns are taken to be %s (--columns says otherwise)", path, ", ".join(names))
    if names and len(names) != len(fields):
        raise DataError(f"{path} has {len(fields)} columns ({first[:60]}), but --columns names {len(names)}")
    frame = _read_csv(data, separator, header, path, skipped)
    renamed = names or [_TYPED_NAME.sub("", c.strip()).replace('""', '"') for c in frame.columns]
    if len(set(renamed)) < len(renamed):
        raise DataError(f"{path} has two columns of one name: {', '.join(renamed)[:200]}")
    frame.columns = renamed
    if not data.isascii() or any(blank in data for blank in _BLANKS if blank != separator.encode()):
        frame = frame.with_columns(pl.all().str.strip_chars())
    filled = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    # Lines can be counted where the blank ones, if any, stand at the end; otherwise rows are.
    counted = filled.height == frame.height or filled.equals(frame.head(filled.height))
    return Table(filled, text=True, place=RowLabel("line", 1 + header + skipped) if counted else RowLabel())


def _read_bytes(path: Path) -> bytes:
    with reading(path):
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _without_comments(data: bytes) -> tuple[bytes, int]:
    """Cut off the lines at the head that begin with #, or %, and a blank, and return the rest with their number."""
    found = _COMMENTS.match(data)
    if found is None:
        return data, 0
    return data[found.end() :], found[0].count(b"\n")


def _refuse_other_kinds(data: bytes, path: Path) -> None:
    """Name what people hand in by mistake."""
    kind = None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        kind = "UTF-16 text: save it as UTF-8"
    elif data.lstrip()[:1] in (b"{", b"["):
        kind = "JSON: turn it into CSV or Parquet first"
    elif data[:2] == b"PK":
        kind = "a zip archive: unpack it first"
    elif b"\x00" in data[:4096]:
        kind = "no text: CSV, TSV, `::`, Parquet, or one of them gzipped is needed"
    if kind:
        raise DataError(f"{path} is {kind}")


def _read_parquet(path: Path, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(data)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from None


def _separator(line: str) -> str:
    return next((s for s in ("::", "\t", ",", ";", "|") if s in line), " ")


def _is_lists(lines: list[str]) -> bool:
    sizes = {len(line.split()) for line in lines[:-1] or lines}
    return len(sizes) > 1 or max(sizes) > len(_USUAL)


def _read_csv(data: bytes, separator: str, header: bool, path: Path, skipped: int) -> pl.DataFrame:
    if len(separator) == 2:
        data = data.replace(separator.encode(), _UNIT.encode())
    byte = _UNIT if len(separator) == 2 else separator
    options = {
        "separator": byte,
        "has_header": header,
        "infer_schema": False,
        # `::`, tab and `|` files do not quote: a title may begin with a quotation mark.
        "quote_char": '"' if separator in ",;" else None,
    }
    try:
        return pl.read_csv(data, **options)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        if "utf-8" not in str(error):
            raise _ragged(data, byte, path, error, skipped) from None
    log.info("%s is not UTF-8; it was read as Latin-1", path)
    try:
        return pl.read_csv(data.decode("latin-1").encode(), **options)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise _ragged(data, byte, path, error, skipped) from None


def _ragged(data: bytes, separator: str, path: Path, error: Exception, skipped: int) -> DataError:
    lines = data.decode("latin-1").split("\n")
    width = lines[0].count(separator)
    for number, line in enumerate(lines, 1 + skipped):
        if line.count(separator) > width and '"' not in line:
            return DataError(
                f"{path}: line {number} has {line.count(separator) + 1} fields, not {width + 1}: {line[:80]}"
            )
    return DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}")


def _read_lists(data: bytes, path: Path) -> pl.DataFrame:
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


ITEM_NAMES = {
    "title": ("title", "movie_title", "name"),
    "year": ("year", "release_year"),
    "genres": ("genres", "genre", "class", "categories"),
}


def read_items(path: Path, columns: str | None = None, id_column: str | None = None) -> pl.DataFrame:
    """Read an item table: `item_id` as in the file (text, or a Parquet integer), then its other columns.

    The columns title, year and genres are known by their usual names too (`ITEM_NAMES`).
    """
    names = (*COLUMN_NAMES["item"], "id", "asin")
    table = read_table(path, columns, names)
    key = id_column or next((n for n in names if n in table.frame.columns), None)
    if key is None or key not in table.frame.columns:
        raise DataError(
            f"{path} has no column for the item id ({', '.join(table.frame.columns)}): name it with --item-col, "
            "or, without a header, all of them with --item-columns id,title,genres"
        )
    frame = table.frame.drop("item_id", strict=False) if key != "item_id" else table.frame
    renamed = {key: "item_id"}
    for role, usual in ITEM_NAMES.items():
        found = next((n for n in usual if n in frame.columns and n != key), None)
        if found:
            renamed[found] = role
    frame = frame.rename(renamed)
    return frame.select("item_id", pl.exclude("item_id"))
