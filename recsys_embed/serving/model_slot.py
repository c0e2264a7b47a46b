"""ModelSlot: one model of a service, and how it follows its source: a folder, or an alias."""

from __future__ import annotations

import logging

from recsys_embed.config.answers import ServeConfig
from recsys_embed.config.variants import Variant
from recsys_embed.errors import BundleError, DataError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsTable
from recsys_embed.serving.model_source import FoundModel, ModelSource
from recsys_embed.serving.reload import RetryBackoff, check_quality, check_same_data
from recsys_embed.serving.served_model import ServedModel
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state

log = logging.getLogger("recsys_embed")


class ModelSlot:
    """The place of a model in a service. variant: what it answers as; None: it is the only one.

    It is empty until `start`. Raises BundleError where no model can be loaded, DataError for one that is clearly worse
    than popularity.
    """

    def __init__(self, config: ServeConfig, variant: Variant | None = None) -> None:
        self.config, self.variant = config, variant
        self.name = None if variant is None else variant.name
        self.source = ModelSource(config.model if variant is None else variant.model, config.tracking_uri)
        self.backoff = RetryBackoff()
        self.served: ServedModel
        # Until the start: nothing may keep a model alive that another one has replaced.
        self._first: tuple[FittedState, FoundModel] | None = self._load_first()
        # The column that the ids of items had in training, if it was named.
        self.item_column: str | None = self._first[0].metadata.get("settings", {}).get("item_col")

    def _load_first(self) -> tuple[FittedState, FoundModel]:
        """Load the model to start with: an older one where the newest is broken, or clearly worse than popularity."""
        found = self.source.find()
        for older in [*self.source.older(), None]:
            try:
                return self._load(found), found
            except (BundleError, DataError) as error:
                if older is None:
                    raise
                log.warning("left out: %s", error)
                found = older
        raise AssertionError

    def _load(self, found: FoundModel) -> FittedState:
        # Memory-mapped if several processes share it; writing to a mapped file would crash the process.
        state = load_state(found.folder, mmap=self.config.workers > 1).with_index(self.config.index)
        if not self.config.allow_worse:
            check_quality(state, found.name)
        return state

    def start(self, events: EventStore, items: ItemStore, table: ItemsTable | None) -> None:
        """Let the model that was found first answer. Raises DataError for a table that does not fit it."""
        self._events, self._items = events, items
        first = self._first or (self.served.fitted, self.served.found)
        self.served = ServedModel(*first, events, items, table)
        self._first = None

    @property
    def model(self) -> ServedModel:
        """The model that answers, with the values of items that any process has set."""
        self.served.follow_items()
        return self.served

    def load_current(self) -> ServedModel:
        """Load the model that the source names now.

        Raises DataError for a model of other data, unless it was named: it may lie in `models/` by chance.
        """
        found = self.source.find()
        state = self._load(found)
        if self.source.named is None:
            check_same_data(self.served.fitted, state, found.name)
        return ServedModel(state, found, self._events, self._items, self.served.table)

    def with_table(self, table: ItemsTable | None) -> ServedModel:
        """Return the same model with its items as they are now, new ones among them. Raises DataError."""
        return ServedModel(self.served.fitted, self.served.found, self._events, self._items, table)

    @property
    def table_version(self) -> str | None:
        """The version of the file of items that is in the model."""
        return None if self.served.table is None else self.served.table.version
