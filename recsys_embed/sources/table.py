"""Table: what is read from a file, a folder or a database, as a frame; and how several become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from recsys_embed.data.ids import FileRows, RowLabel
from recsys_embed.errors import DataError
from recsys_embed.sources.odd_lines import OddLine


class Table(NamedTuple):
    """A file as a frame.

    is_text: all its columns are text. row_label: how messages number its rows. odd_lines: those with another number of
    fields, where they were asked for; rows of those with too many are not in the frame.
    """

    frame: pl.DataFrame
    is_text: bool
    row_label: RowLabel
    odd_lines: tuple[OddLine, ...] = ()


def without_outer_blanks(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose texts have no blanks around them, so that an id is the same whatever it is read from."""
    return frame.with_columns(pl.selectors.string().str.strip_chars())


def join_tables(tables: Sequence[Table], names: Sequence[str]) -> Table:
    """Return the rows of several tables, one after the other. names: those of their files, for messages.

    Columns may stand in another order. Raises DataError where columns are missing or have types that do not go
    together.
    """
    if len(tables) == 1:
        return tables[0]
    columns = tables[0].frame.columns
    for table, name in zip(tables, names, strict=True):
        if set(table.frame.columns) != set(columns):
            raise DataError(
                f"{name} has the columns {', '.join(table.frame.columns)[:120]}, but {names[0]} has "
                f"{', '.join(columns)[:120]}: choose files that belong together by a pattern, such as 'ratings*.csv'"
            )
    frames, is_text = [table.frame.select(columns) for table in tables], all(table.is_text for table in tables)
    if not is_text and any(table.is_text for table in tables):
        frames, is_text = [frame.with_columns(pl.all().cast(pl.String)) for frame in frames], True
    for column in columns:
        kinds = {_kind(frame.schema[column]): name for frame, name in zip(frames, names, strict=True)}
        kinds.pop("nothing", None)
        if len(kinds) > 1:
            (one, first), (two, second), *_ = kinds.items()
            raise DataError(f"column {column!r} holds {one} in {first}, but {two} in {second}")
    files: list[FileRows] = []
    for name, frame, table in zip(names, frames, tables, strict=True):
        files += table.row_label.named(name, frame.height)
    odd = tuple(line for table in tables for line in table.odd_lines)
    return Table(pl.concat(frames, how="vertical_relaxed"), is_text, RowLabel(files=tuple(files)), odd)


def _kind(dtype: pl.DataType) -> str:
    """Return a word for the types that go together in one column."""
    if dtype == pl.Null:
        return "nothing"
    if dtype.is_numeric():
        return "numbers"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else str(dtype)
