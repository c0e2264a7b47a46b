"""read_table: read a table from wherever it lies, in whatever common format; read_items: one row an item."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl

from recsys_embed.config.addresses import scheme
from recsys_embed.data.column_guess import normalized
from recsys_embed.data.columns import COLUMN_NAMES, usual_columns
from recsys_embed.data.ids import RowLabel
from recsys_embed.errors import DataError, SettingError
from recsys_embed.forks import needs_threads
from recsys_embed.sources.compressed import unpack
from recsys_embed.sources.delimited import parse_text
from recsys_embed.sources.dialect import to_utf8
from recsys_embed.sources.json_table import looks_like_json, read_json
from recsys_embed.sources.locations import archive_of, find_files, partition_columns
from recsys_embed.sources.remote import is_remote, read_remote
from recsys_embed.sources.serving_events import is_event_store, read_events
from recsys_embed.sources.sql import SQLITE_MAGIC, is_database, read_database, read_sqlite, sqlite_path
from recsys_embed.sources.table import Table, join_tables, without_outer_blanks
from recsys_embed.storage.atomic import wrap_read_errors
from recsys_embed.storage.parquet_reader import read_parquet

log = logging.getLogger("recsys_embed")

_PARQUET_MAGIC = b"PAR1"
# What people pass by mistake, by its first bytes.
_OTHER_FORMATS = (
    (b"%PDF", "a PDF: copy its table into a CSV file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as CSV"),
    (b"\x89HDF", "HDF5: write it as Parquet, pandas.read_hdf(…).to_parquet(…)"),
    (b"ARROW1", "Arrow IPC: write it as Parquet"),
    (b"\x93NUMPY", "a NumPy array: Ratings.from_matrix takes a scipy.sparse.csr_matrix of it"),
    (b"\x80\x04", "a Python pickle: write its table as Parquet (a pickle can run any code)"),
    (b"<", "HTML or XML, not a table: save its table as CSV"),
)


class _Reading(NamedTuple):
    """What is known before a file is read; see `read_table`. expected: the columns of the file that it continues."""

    columns: str | None
    known: tuple[str, ...]
    query: str | None = None
    only: str | None = None
    tolerant: bool = False
    expected: list[str] | None = None


@needs_threads("reading a table")
def read_table(
    location: str | Path,
    columns: str | None = None,
    known: tuple[str, ...] = (),
    query: str | None = None,
    only: str | None = None,
    tolerant: bool = False,
) -> Table:
    """Read a table: a file, a folder or pattern of files with the same columns, "-" (standard input), or an address.

    Formats, told by the content: CSV in its dialects, TSV, `::`, LightGCN's lists, JSON, Parquet, SQLite; packed by
    gzip, bzip2, xz or Zstandard, or in a zip archive. See docs/data.md.
    columns: comma-separated names for a file without a header. known: column names that mark a first line as a header.
    query: of a database. only: what a single column is called whose first line is none of the known names, and so no
        header. tolerant: leave out lines of a text with too many fields, and say so in `Table.odd_lines`.
    Raises DataError, with the number of the line at fault where there is one.
    """
    location, reading = str(location), _Reading(columns, known, query, only, tolerant)
    if is_database(location):
        return read_database(location, query)
    if location == "-":
        return _parse(_standard_input(), "standard input", reading)[0]
    if is_remote(location):
        found = read_remote(location)
        name = location.partition("#")[0]
        return _parse(unpack(found, name), name, reading)[0] if isinstance(found, bytes) else _plain(found)
    return _read_files(location, reading)


def files_of(location: str) -> list[Path]:
    """Return the files of this machine that a location is read from; none for standard input and what lies elsewhere.

    Raises DataError where a folder or a pattern has none.
    """
    kind = scheme(location)
    if kind.partition("+")[0] == "sqlite":
        return [sqlite_path(location)]
    if kind == "file":
        return [Path(unquote(re.sub(r"^file://(?:localhost(?=/))?", "", location, flags=re.IGNORECASE)))]
    if kind or location == "-":
        return []
    return [(archive_of(file) or (file,))[0] for file in find_files(location)]


def _read_files(location: str, reading: _Reading) -> Table:
    """Read the files of a path, a folder or a pattern as one table."""
    files, folder = find_files(location), Path(location)
    tables: list[Table] = []
    names: list[str] = []
    notes: set[str] = set()
    for file in files:
        table, found = _read_file(file, reading)
        for note in found:
            if note not in notes:  # once for all files
                log.info("%s %s", file, note)
        notes |= set(found)
        if folder.is_dir() and (values := partition_columns(file, folder)):
            new = {name: value for name, value in values.items() if name not in table.frame.columns}
            table = table._replace(frame=table.frame.with_columns(pl.lit(v).alias(n) for n, v in new.items()))
        if table.is_text and reading.columns is None and not tables:
            reading = reading._replace(expected=table.frame.columns)
        if table.frame.width:
            tables.append(table)
            names.append(str(file))
    if len(files) > 1:
        log.info("%s: %s files", location, f"{len(files):,}")
    if not tables:
        raise DataError(f"{location} holds no value")
    return join_tables(tables, names)


def _read_file(path: Path, reading: _Reading) -> tuple[Table, list[str]]:
    """Read one file; return its table and what to say of it, after its name."""
    archive = archive_of(path)
    source, member = archive or (path, None)
    with wrap_read_errors(source):
        data = source.read_bytes() if not _is_sqlite(source) else SQLITE_MAGIC
    if data == SQLITE_MAGIC:
        if is_event_store(path) and not reading.query:
            return Table(without_outer_blanks(read_events(path)), is_text=True, row_label=RowLabel()), []
        return read_sqlite(path, reading.query or ""), []
    if reading.query:
        raise SettingError(f"--query goes with a database, and {path} is none")
    return _parse(unpack(data, str(source), member), str(path), reading)


def _is_sqlite(path: Path) -> bool:
    """Return whether a file is a SQLite database, which is not read as a whole."""
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def _parse(data: bytes, name: str, reading: _Reading) -> tuple[Table, list[str]]:
    """Read the bytes of a file that is not packed any more."""
    if data.startswith(_PARQUET_MAGIC):
        return _plain(read_parquet(data, name)), []
    problem = next((text for magic, text in _OTHER_FORMATS if data.startswith(magic)), None)
    if problem or data[257:262] == b"ustar":
        raise DataError(f"{name} is {problem or 'a tar archive: unpack it first'}")
    data, note = to_utf8(data, name)
    if looks_like_json(data):
        return read_json(data, name, reading.known), []
    parsed = parse_text(data, name, reading.columns, reading.known, reading.expected, reading.only, reading.tolerant)
    return parsed.table, ([] if note is None else [note]) + parsed.notes


def _plain(frame: pl.DataFrame) -> Table:
    return Table(without_outer_blanks(frame), is_text=False, row_label=RowLabel())


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("- is standard input, and nothing is piped into it: cat FILE | recsys train -")
    data = sys.stdin.buffer.read()
    if not data:
        raise DataError("standard input is empty; it can be read once only")
    return unpack(data, "standard input")


# Columns of an item table that are recognised under other names too.
ITEM_NAMES = {
    "title": (
        "title", "movie_title", "name", "product_title", "product_name", "item_name", "titel", "bezeichnung",
        "artikelbezeichnung", "produktname", "artikelname", "titre", "nom", "titulo", "título", "nombre",
    ),
    "year": ("year", "release_year"),
    "genres": ("genres", "genre", "class", "categories"),
}  # fmt: skip


def _named(columns: list[str], known: tuple[str, ...]) -> str | None:
    """Return the column with one of the known names as it is, or else in other letters and with other separators."""
    written = {normalized(column): column for column in reversed(columns)}
    found = [name for name in known if name in columns] + [
        written[normalized(name)] for name in known if normalized(name) in written
    ]
    return found[0] if found else None


def read_items(
    location: str | Path, columns: str | None = None, id_column: str | None = None, likely: str | None = None
) -> pl.DataFrame:
    """Return the frame of `read_item_table`."""
    return read_item_table(location, columns, id_column, likely).frame


def read_item_table(
    location: str | Path,
    columns: str | None = None,
    id_column: str | None = None,
    likely: str | None = None,
    tolerant: bool = False,
) -> Table:
    """Read an item table: `item_id` as in the file (text, or a Parquet integer), then its other columns.

    columns: comma-separated names for a file without a header. id_column: the name of the id column, if unusual.
    likely: the name of the ratings' column of items, which is the id column if it is there.
    tolerant: see `read_table`.
    The columns title, year and genres are recognised under their usual names (`ITEM_NAMES`) and renamed to these.
    Raises DataError.
    """
    names = (*COLUMN_NAMES["item"], "id", "asin")
    table = read_table(location, columns, names, tolerant=tolerant)
    key = id_column or next((n for n in (likely, *names) if n is not None and n in table.frame.columns), None)
    if key is None and len(usual := usual_columns(table.frame.columns, "item")) == 1:
        key = usual[0]
    if key is None or key not in table.frame.columns:
        raise DataError(
            f"{location} has no column for the item id ({', '.join(table.frame.columns)}): name it with --item-col or, "
            "without a header, name all columns with --item-columns id,title,genres"
        )
    frame = table.frame.drop("item_id", strict=False) if key != "item_id" else table.frame
    renames = {key: "item_id"}
    for role, known in ITEM_NAMES.items():
        name = _named([column for column in frame.columns if column != key], known)
        if name is not None:
            renames[name] = role
    frame = frame.rename(renames)
    return table._replace(frame=frame.select("item_id", pl.exclude("item_id")))
