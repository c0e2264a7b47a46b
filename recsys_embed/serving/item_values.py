"""ItemValues: the item table of a served model, kept current as values are set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsTable
from recsys_embed.state.change_items import (
    ItemValue,
    add_described,
    add_described_values,
    as_item_table,
    describable,
    of_unknown_items,
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
        if self.table is not None:
            state = add_described(state, self.table.table)
        return add_described_values(state, values)

    def are_new(self) -> bool:
        """Return whether any process has set values that are not in the state yet."""
        return self.store.last_seq() > self.seq

    def follow(self, state: FittedState) -> FittedState:
        """Return the state with the values that were set since."""
        values, seqs = self.store.since(self.seq)
        if not values:
            return state
        self.seq = seqs[-1]
        unknown = of_unknown_items(state, values)
        if unknown and not state.is_graph and state.content_model is not None:
            ids = list(dict.fromkeys(str(value.item) for value in unknown))
            described = describable(state, as_item_table(state, self.store.of_items(ids)))
            self.has_new |= described is not None and described.height > 0
        return _with_values(state, values)


def _with_values(state: FittedState, values: Sequence[ItemValue]) -> FittedState:
    changed = set_item_values(state, values)
    if changed.errors:  # set for a model whose columns hold something else
        log.warning("%d values of items were left out: %s", len(changed.errors), changed.errors[0])
    return changed.state
