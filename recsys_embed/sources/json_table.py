"""Read tables from JSON: a list of objects, or one object a line."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl

from recsys_embed.data.columns import COLUMN_NAMES, usual_columns
from recsys_embed.data.ids import RowLabel
from recsys_embed.errors import DataError
from recsys_embed.sources.delimited import ONE_BYTE, one_byte_text
from recsys_embed.sources.table import Table, without_outer_blanks
from recsys_embed.storage.json import parse_json

log = logging.getLogger("recsys_embed")

_FORMS = 'one object a line, or a list of objects, such as {"user": 1, "item": 2, "rating": 5}, is needed'


def looks_like_json(data: bytes) -> bool:
    """Return whether a text begins as JSON does."""
    return data[:4096].lstrip()[:1] in (b"{", b"[")


def read_json(data: bytes, name: str, known: tuple[str, ...] = ()) -> Table:
    """Read a list of objects, or one object a line.

    Columns of nested objects are left out, with a note; those that hold the users or the items are an error. name: of
    the file, for messages. known: names of columns that are wanted. Raises DataError.
    """
    is_list = data[:4096].lstrip()[:1] == b"["
    data = _in_utf8(data, name)
    try:
        # All rows tell the types: the first ones may have no rating, or ids that look like numbers.
        frame = (pl.read_json if is_list else pl.read_ndjson)(data, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise _error(data, name, is_list, error) from None
    if frame.height == 1 and any(dtype in (pl.List, pl.Struct) for dtype in frame.dtypes) and not is_list:
        raise DataError(f"{name} holds a single JSON object with {', '.join(frame.columns)[:80]}: {_FORMS}")
    label = RowLabel() if is_list else _label_of(data, frame.height)
    return Table(without_outer_blanks(_without_objects(frame, name, known)), False, label)


def _in_utf8(data: bytes, name: str) -> bytes:
    """Return a text as UTF-8, which JSON should be in; what is not is read as other text is, which is said."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        log.info("%s %s", name, ONE_BYTE)
        return one_byte_text(data).encode()
    return data


def _label_of(data: bytes, rows: int) -> RowLabel:
    """Return how messages number the rows of a text with an object a line: as an editor does, blank lines or not."""
    if data.count(b"\n") + (not data.endswith(b"\n")) == rows:
        return RowLabel("line")
    lines = np.array([number for number, line in enumerate(data.split(b"\n"), 1) if line.strip()])
    return RowLabel("line", lines=lines) if len(lines) == rows else RowLabel()


def _without_objects(frame: pl.DataFrame, name: str, known: tuple[str, ...]) -> pl.DataFrame:
    """Return a frame without its columns of objects. Raises DataError where these are wanted."""
    nested = [column for column, dtype in frame.schema.items() if _holds_objects(dtype)]
    plain = [column for column in frame.columns if column not in nested]
    canonical = [name for names in COLUMN_NAMES.values() for name in names]
    wanted = {column for column in nested if column in known and column not in canonical}
    for role in ("user", "item"):
        if not _of_role(plain, role):
            wanted |= set(_of_role(nested, role))
    for column in nested:
        if column in wanted or not plain:
            fields = ", ".join(_fields(frame.schema[column]))[:80]
            raise DataError(
                f"{name}: {column!r} holds nested objects ({fields}): write plain values, for instance with "
                f"jq -c '. + {{{column}: .{column}.{_fields(frame.schema[column])[0]}}}' {name}"
            )
    if nested:
        log.info("%s: nested objects are left out: %s", name, ", ".join(nested)[:200])
    return frame.drop(nested)


def _of_role(columns: list[str], role: str) -> list[str]:
    return [c for c in columns if c in COLUMN_NAMES[role]] or usual_columns(columns, role)


def _holds_objects(dtype: pl.DataType) -> bool:
    return dtype == pl.Struct or (isinstance(dtype, pl.List) and _holds_objects(dtype.inner))  # type: ignore[arg-type]


def _fields(dtype: Any) -> list[str]:
    return [field.name for field in dtype.fields] or ["…"] if dtype == pl.Struct else _fields(dtype.inner)


def _error(data: bytes, name: str, is_list: bool, error: Exception) -> DataError:
    """Return an error that names the first line that is no object, if there is one."""
    if not is_list:
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                if line.strip() and not isinstance(parse_json(line), dict):
                    return DataError(f"{name}: line {number} is no JSON object: {_start(line)}")
            except ValueError:
                hint = " (JSON has double quotes)" if line.lstrip()[:2] in (b"{'", b"{u") else ""
                return DataError(f"{name}: line {number} is not JSON{hint}: {_start(line)}; {_FORMS}")
    return DataError(f"{name} is not JSON that holds a table: {_FORMS} ({str(error).splitlines()[0][:100]})")


def _start(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()[:60]
