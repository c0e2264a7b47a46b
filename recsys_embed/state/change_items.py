"""Change the item table of a fitted state: values of items, a whole table, items that are new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys_embed.data.cells import with_cells
from recsys_embed.data.ids import Id
from recsys_embed.errors import DataError
from recsys_embed.rules.columns import ColumnKind, kind_of
from recsys_embed.state.add_items import add_items
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.item_values import as_set, check_name, fit_column, set_values
from recsys_embed.words.tokens import parse_numbers


class ItemValue(NamedTuple):
    """A value of an item: its id, a column, and what that is, as JSON has it. A later one of a cell counts."""

    item: Id
    column: str
    value: Any


class ChangedItems(NamedTuple):
    """A state with other values of its items. unknown: ids of items that it does not know, each once. errors: of values
    that do not fit, which were left out."""

    state: FittedState
    unknown: list[Id]
    errors: list[DataError]


def set_item_values(state: FittedState, values: Iterable[ItemValue]) -> ChangedItems:
    """Return a state with other values in its item table; see `ChangedItems`.

    Vectors stay as they are. Takes some milliseconds for a million items, whatever was computed from the table.
    """
    values = list(values)
    ids = pl.Series([str(value.item) for value in values], dtype=pl.String)
    rows = state.items.rows(ids, missing="negative").tolist()
    unknown = dict.fromkeys(value.item for value, row in zip(values, rows, strict=True) if row < 0)
    columns: dict[str, dict[int, Any]] = {}
    for value, row in zip(values, rows, strict=True):
        if row >= 0:
            cells = columns.setdefault(value.column, {})
            cells.pop(row, None)  # the later value comes later, too
            cells[row] = value.value
    state, errors = _with_columns(state, columns)
    return ChangedItems(state, list(unknown), errors)


def _with_columns(state: FittedState, columns: Mapping[str, Mapping[int, Any]]) -> tuple[FittedState, list[DataError]]:
    changed, errors, touched = [], [], set()
    for name, cells in columns.items():
        try:
            check_name(name)
        except DataError as error:
            errors.append(error)
            continue
        known = name in state.table.columns
        column = state.table[name] if known else None
        kind = state.rules.columns.kind(name) if known else "nothing"
        column, wrong = set_values(column, name, state.table.height, kind, cells)
        changed.append(column)
        errors += wrong.values()
        touched |= set(cells) - set(wrong)
    if not touched:
        return state, errors
    rows = np.fromiter(sorted(touched), np.int64, len(touched))
    table = state.table.with_columns(changed)
    return state.with_table(table, rows, {column.name for column in changed}), errors


def check_item_values(state: FittedState, values: Sequence[ItemValue]) -> None:
    """Raise DataError, with the item, unless all values fit the columns, those of unknown items too."""
    columns: dict[str, dict[int, Any]] = {}
    for n, value in enumerate(values):
        check_name(value.column)
        columns.setdefault(value.column, {})[n] = value.value
    for name, cells in columns.items():
        column, kind = _empty_column(state, name, len(values))
        for n, error in set_values(column, name, len(values), kind, cells)[1].items():
            raise DataError(f"item {str(values[n].item)[:100]}: {error}")


def _empty_column(state: FittedState, name: str, height: int) -> tuple[pl.Series | None, ColumnKind | None]:
    """Return a column of nulls of the same type as the state's, and its kind; None for a new one."""
    if name not in state.table.columns:
        return None, "nothing"
    return as_set(None, name, height, state.table.schema[name]), state.rules.columns.kind(name)


def set_item_table(state: FittedState, table: pl.DataFrame) -> FittedState:
    """Return a state with the columns of a table, for the items that are in both; its new columns are added.

    table: `item_id` and any columns; of several rows of an item the first is used. Kinds of columns are told anew.
    Raises DataError for a column that does not fit the state's.
    """
    ids, table = _known_ids(state, table)
    rows = state.items.rows(ids, missing="negative")
    known, rows = table.filter(rows >= 0).drop("item_id"), rows[rows >= 0]
    changed = []
    for values in known.iter_columns():
        name = values.name
        if name in ("item", "ratings"):
            continue
        check_name(name)
        old = state.table[name] if name in state.table.columns else None
        fitted = fit_column(values, None if old is None else old.dtype)
        if name == "title":
            fitted = fitted.zip_with(
                fitted.is_not_null() & (fitted.cast(pl.String) != ""), state.table[name].gather(rows)
            )
        column = with_cells(as_set(old, name, state.table.height, fitted.dtype), rows, fitted)
        if old is not None and (before := state.rules.columns.kind(name)) in ("number", "date"):
            if (after := kind_of(column)) not in (before, "nothing"):
                raise DataError(f"column {name!r} holds {after}, and the model's {before}s")
        changed.append(column)
    names = {column.name for column in changed}
    return state.with_table(state.table.with_columns(changed), rows, names, new_kinds=True)


def _known_ids(state: FittedState, table: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """Return the ids of a table as the state has them, and the table without rows that have none, or a second one."""
    if "item_id" not in table.columns:
        raise DataError(f"the item table has no column item_id; it has {', '.join(table.columns)[:200]}")
    ids = state.items.cast_column(table["item_id"].drop_nulls() if table["item_id"].null_count() else table["item_id"])
    table = table.filter(pl.col("item_id").is_not_null()).with_columns(item_id=ids)
    table = table.filter(pl.col("item_id").is_not_null()).unique("item_id", keep="first", maintain_order=True)
    return table["item_id"], table


def add_described(state: FittedState, table: pl.DataFrame) -> FittedState:
    """Return a state with those items of a table that are new and that its content model finds described.

    table: as for `set_item_table`. Without a content model, and for a graph, none are.
    """
    rows = describable(state, table)
    return state if rows is None or not rows.height else add_items(state, rows, None, None)


def describable(state: FittedState, table: pl.DataFrame) -> pl.DataFrame | None:
    """Return the rows of new items with a usable description; None for a state that takes none."""
    content = None if state.is_graph else state.content_model
    if content is None or not table.height:
        return None
    ids, table = _known_ids(state, table)
    new = table.filter(state.items.rows(ids, missing="negative") < 0)
    if not new.height:
        return new
    return new.filter(pl.Series(content.has_features(content.encode_items(new))))


def as_item_table(state: FittedState, values: Iterable[ItemValue]) -> pl.DataFrame:
    """Return values as an item table, in which what was not set is null; values that do not fit are left out."""
    row_of: dict[Id, int] = {}
    columns: dict[str, dict[int, Any]] = {}
    for value in values:
        row = row_of.setdefault(value.item, len(row_of))
        columns.setdefault(value.column, {})[row] = value.value
    table = pl.DataFrame({"item_id": pl.Series([str(item) for item in row_of], dtype=pl.String)})
    for name, cells in columns.items():
        empty, kind = _empty_column(state, name, len(row_of))
        column, _ = set_values(empty, name, len(row_of), kind, cells)
        table = table.with_columns(column)
    return table


def add_described_values(state: FittedState, values: Sequence[ItemValue]) -> FittedState:
    """Return a state with those items that values describe and that are new; see `add_described`."""
    if state.is_graph or state.content_model is None:
        return state
    return add_described(state, as_item_table(state, of_unknown_items(state, values)))


def of_unknown_items(state: FittedState, values: Sequence[ItemValue]) -> list[ItemValue]:
    """Return the values of items that a state does not know."""
    ids = pl.Series([str(value.item) for value in values], dtype=pl.String)
    rows = state.items.rows(ids, missing="negative")
    return [value for value, row in zip(values, rows.tolist(), strict=True) if row < 0]


def values_of_table(table: pl.DataFrame) -> list[ItemValue]:
    """Return the values in an item table, as JSON has them: numbers in text as numbers, dates as ISO text.

    An empty cell is a value too: None. An empty title is none.
    """
    values: list[ItemValue] = []
    ids = table["item_id"].to_list()
    for column in table.drop("item_id").iter_columns():
        cells: list[Any] = column.to_list()
        if column.dtype == pl.String and kind_of(column) == "number":
            cells = [None if number is None else int(number) if number == int(number) else number
                     for number in parse_numbers(column).to_list()]  # fmt: skip
        elif column.dtype.is_temporal():
            cells = [None if cell is None else cell.isoformat() for cell in cells]
        values += [
            ItemValue(item, column.name, cell)
            for item, cell in zip(ids, cells, strict=True)
            if item is not None and (cell is not None or column.name != "title")
        ]
    return values
