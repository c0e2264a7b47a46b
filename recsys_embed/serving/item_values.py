"""ItemValues: the item table of a served model, kept current as values are set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import polars as pl

from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsTable
from recsys_embed.state.change_items import (
    ItemValue,
    add_described,
    as_item_table,
    describable,
    set_item_table,
    set_item_values,
)
from recsys_embed.state.fitted import FittedState

log = logging.getLogger("recsys_embed")


class ItemValues:
    """Brings the values of a store, and a table of items, into a state.

    has_new: items that the state lacks have been described since `start`, so that it should be started again.
    """

    def __init__(self, store: ItemStore, table: ItemsTable | None) -> None:
        self.store, self.table = store, table
        self.seq, self.has_new = 0, False

    def start(self, state: FittedState) -> FittedState:
        """Return a fitted state with all that is set: new items that are described, the table, later values.

        Raises DataError for a table that does not fit.
        """
        values, seqs = self.store.since(0)
        self.seq = seqs[-1] if seqs else 0
        if self.table is not None:
            values = self.table.newer(values, seqs)
        state = self._with_new_items(state, values)
        if self.table is not None:
            state = set_item_table(state, self.table.table)
        return _with_values(state, values)

    def _with_new_items(self, state: FittedState, values: Sequence[ItemValue]) -> FittedState:
        if state.is_graph or state.content_model is None:
            return state
        tables = [] if self.table is None else [self.table.table]
        tables.append(as_item_table(state, _of_unknown(state, values)))
        for table in tables:
            state = add_described(state, table)
        return state

    def are_new(self) -> bool:
        """Return whether any process has set values that are not in the state yet."""
        return self.store.last_seq() > self.seq

    def follow(self, state: FittedState) -> FittedState:
        """Return the state with the values that were set since."""
        values, seqs = self.store.since(self.seq)
        if not values:
            return state
        self.seq = seqs[-1]
        unknown = _of_unknown(state, values)
        if unknown and not state.is_graph and state.content_model is not None:
            ids = list(dict.fromkeys(str(value.item) for value in unknown))
            described = describable(state, as_item_table(state, self.store.of_items(ids)))
            self.has_new |= described is not None and described.height > 0
        return _with_values(state, values)


def _of_unknown(state: FittedState, values: Sequence[ItemValue]) -> list[ItemValue]:
    rows = state.items.rows(pl.Series([str(value.item) for value in values], dtype=pl.String), missing="negative")
    return [value for value, row in zip(values, rows.tolist(), strict=True) if row < 0]


def _with_values(state: FittedState, values: Sequence[ItemValue]) -> FittedState:
    changed = set_item_values(state, values)
    if changed.errors:  # set for a model whose columns hold something else
        log.warning("%d values of items were left out: %s", len(changed.errors), changed.errors[0])
    return changed.state
