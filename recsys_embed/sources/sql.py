"""Read tables from databases: the rows of a query, or a whole table, of SQLite and PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import polars as pl

from recsys_embed.config.addresses import scheme, with_password, without_secrets
from recsys_embed.data.columns import from_arrow
from recsys_embed.data.ids import RowLabel
from recsys_embed.errors import DataError
from recsys_embed.sources.table import Table, without_outer_blanks

# The first bytes of a SQLite file.
SQLITE_MAGIC = b"SQLite format 3\x00"

_SQLITE = re.compile(r"^sqlite(?:\+\w+)?:///?", re.IGNORECASE)
_POSTGRES = ("postgresql", "postgres")
# Databases that are not read from here, and a command whose output is.
_PIPES = {
    "mysql": 'mysql --batch -e "SELECT …" DATABASE | recsys train -',
    "mariadb": 'mariadb --batch -e "SELECT …" DATABASE | recsys train -',
    "duckdb": 'duckdb -csv FILE "SELECT …" | recsys train -',
    "clickhouse": 'clickhouse-client -q "SELECT … FORMAT CSVWithNames" | recsys train -',
    "mssql": "its own program for CSV | recsys train -",
    "oracle": "its own program for CSV | recsys train -",
    "bigquery": 'bq query --format=csv "SELECT …" | recsys train -',
    "snowflake": "its own program for CSV | recsys train -",
}
_BYTES = "a column of the database holds bytes and other values: turn it into text, CAST(… AS TEXT)"
_ROWS = 1_000  # that are turned into columns at a time: of more, the collector of garbage looks at each again and again
_TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"


class Database(NamedTuple):
    """An address without what follows its #, and the query or the name of the table that does, or ""."""

    address: str
    query: str


def is_database(location: str) -> bool:
    """Return whether a location is the address of a database, be it one that is read or not."""
    return scheme(location).partition("+")[0] in ("sqlite", *_POSTGRES, *_PIPES)


def read_database(location: str, query: str | None = None) -> Table:
    """Return the rows of a query.

    location: sqlite:///PATH or postgresql://USER@HOST/DATABASE, with #TABLE or #SELECT … after it where there is no
        query. The connection only reads.
    Raises DataError; its message holds no password.
    """
    database = Database(*location.partition("#")[::2])
    if query and database.query:
        raise DataError(f"--query and #{database.query[:60]} both say what to read: give one of them")
    database = database._replace(query=query or unquote(database.query))
    kind = scheme(location).partition("+")[0]
    if kind == "sqlite":
        return read_sqlite(sqlite_path(database.address), database.query)
    if kind in _POSTGRES:
        return Table(without_outer_blanks(_read_postgres(database)), False, RowLabel())
    raise DataError(f"{kind} databases are not read directly: pipe a table, {_PIPES[kind]}")


def sqlite_path(address: str) -> Path:
    """Return the file of the address of an SQLite database."""
    path = Path(unquote(_SQLITE.sub("", address.partition("#")[0]).partition("?")[0]))
    if not path.exists() and Path("/", path).is_file():  # the address of an absolute path has four slashes
        return Path("/", path)
    return path


def read_sqlite(path: Path, query: str) -> Table:
    """Return the rows of a query, or of the table of that name, in a SQLite file. Raises DataError."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    connection = None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        tables = [row[0] for row in connection.execute(_TABLES)]
        query = query or (tables[0] if len(tables) == 1 else "")
        if not query:
            names = ", ".join(tables)[:200] or "none"
            table = tables[0] if tables else "TABLE"
            raise DataError(
                f"{path} is a database of the tables {names}: name one, sqlite:///{path}#{table}, or give --query "
                '"SELECT …"'
            )
        cursor = connection.execute(_select(query))
        if cursor.description is None:
            raise DataError(f"--query must be a SELECT, got {query[:60]}")
        return Table(without_outer_blanks(_columns(cursor)), False, RowLabel())
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the query fails: {error}") from None
    finally:
        if connection is not None:
            connection.close()


def _select(query: str) -> str:
    """Return a query as it is, and one for all rows where it is the name of a table."""
    if re.match(r"\s*[\w.$]+\s*$", query):
        return "SELECT * FROM " + ".".join(f'"{part}"' for part in query.strip().split("."))
    return query


def _columns(cursor: sqlite3.Cursor) -> pl.DataFrame:
    """Return the rows of a cursor as a frame; values of SQLite have types of their own, whatever the column's is."""
    names = [column[0] for column in cursor.description]
    if len(set(names)) < len(names):
        raise DataError(f"the query has two columns of the same name: {', '.join(names)[:200]}")
    chunks: list[list[pl.Series]] = [[] for _ in names]
    for rows in _batches(cursor):
        for pieces, values in zip(chunks, zip(*rows, strict=True), strict=True):
            pieces.append(_series(values))
    return pl.DataFrame({name: _joined(pieces) for name, pieces in zip(names, chunks, strict=True)})


def _batches(cursor: sqlite3.Cursor) -> Iterator[list[Any]]:
    while rows := cursor.fetchmany(_ROWS):
        yield rows


def _series(values: tuple[Any, ...]) -> pl.Series:
    """Return values as a column of integers, floats, text or bytes; of several kinds, as numbers or else as text."""
    try:
        return pl.Series(values, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    if bytes in kinds:
        raise DataError(_BYTES)
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _joined(pieces: list[pl.Series]) -> pl.Series:
    """Return pieces of one column, one after the other, as numbers or else as text."""
    if not pieces:
        return pl.Series([], dtype=pl.String)
    if len({piece.dtype == pl.Binary for piece in pieces if piece.dtype != pl.Null}) > 1:
        raise DataError(_BYTES)
    return pl.concat([piece.alias("").to_frame() for piece in pieces], how="vertical_relaxed").to_series()


def _read_postgres(database: Database) -> pl.DataFrame:
    """Return the rows of a query of PostgreSQL. The environment has what the address lacks: PGPASSWORD, ~/.pgpass."""
    if not database.query:
        raise DataError('a database needs a query: --query "SELECT user_id, item_id FROM …", or …/DATABASE#TABLE')
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise DataError(
            "PostgreSQL needs a driver: pip install 'recsys-embed[sql]', or pipe a table, "
            'psql --csv -c "SELECT …" DATABASE | recsys train -'
        ) from None
    address = re.sub(r"^\w+(\+\w+)?:", "postgresql:", with_password(database.address))
    read_only = ("&" if "?" in address else "?") + "options=-c%20default_transaction_read_only%3Don"
    try:
        with (
            dbapi.connect(address + read_only * ("options=" not in address)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(_select(database.query))
            return from_arrow(cursor.fetch_arrow_table())
    except dbapi.Error as error:
        text = without_secrets(re.sub(r"\s+", " ", str(error)), database.address)
        text = re.sub(r"^[A-Z_]+: |\[libpq\] | ?Query was: .*$", "", text).strip()
        raise DataError(f"{database.address}: {text[:300]}") from None
