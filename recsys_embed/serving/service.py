"""The service behind the routes: the current model, the event store, and reloading."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from recsys_embed.config.answers import ServeConfig
from recsys_embed.errors import BundleError, DataError, RecsysError, SettingError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsFile, ItemsTable
from recsys_embed.serving.metrics import Metrics
from recsys_embed.serving.model_source import FoundModel, ModelSource
from recsys_embed.serving.reload import RetryBackoff, check_quality, check_same_data
from recsys_embed.serving.served_model import ServedModel
from recsys_embed.state.change_items import ItemValue, check_item_values
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state

log = logging.getLogger("recsys_embed")

T = TypeVar("T")

# Most numbers a request may process on the event loop itself: a thread would cost more than the 1 or 2 ms that takes.
_INLINE_COST = 4_000_000
# Threads for slower requests.
_THREADS = 4


class Service:
    """The current model, the event store, and the loop that reloads the model.

    Raises BundleError where no model can be loaded at the start, DataError for an unusable events file, and for a model
    that is clearly worse than popularity.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.source = ModelSource(config.model, config.tracking_uri)
        state, found = self._load_first()
        self.events = EventStore(Path(config.events or "events.db"))
        self.items = ItemStore(self.events)
        self.items_file = None if config.items is None else ItemsFile(Path(config.items), self.items)
        # What is wrong with the file of items, or None.
        self.items_error: str | None = None
        self._model = self._served_first(state, found)
        self._backoff, self._items_backoff = RetryBackoff(), RetryBackoff()
        self._swapping = asyncio.Lock()
        # A pool for requests only, so that reloading never waits behind them.
        self._threads = ThreadPoolExecutor(_THREADS, "answers")
        self._maps = Path(tempfile.mkdtemp(prefix="recsys-map-"))
        self._drawing: dict[str, subprocess.Popen[bytes]] = {}

    def _load_first(self) -> tuple[FittedState, FoundModel]:
        """Load the model to start with: an older one where the newest is broken, or clearly worse than popularity."""
        found = self.source.find()
        for older in [*self.source.older(), None]:
            try:
                state = self._load(found)
                self._check_quality(state, found.name)
                return state, found
            except (BundleError, DataError) as error:
                if older is None:
                    raise
                log.warning("left out: %s", error)
                found = older
        raise AssertionError

    def _load(self, found: FoundModel) -> FittedState:
        # Memory-mapped if several processes share it; writing to a mapped file would crash the process.
        return load_state(found.folder, mmap=self.config.workers > 1).with_index(self.config.index)

    def _check_quality(self, state: FittedState, name: str) -> None:
        if not self.config.allow_worse:
            check_quality(state, name)

    def _served_first(self, state: FittedState, found: FoundModel) -> ServedModel:
        try:
            table = None if self.items_file is None else self.items_file.read()
            return ServedModel(state, found, self.events, self.items, table)
        except DataError as error:
            if self.items_file is None:
                raise
            self.items_error = str(error)
            log.warning("the items stay those of the model: %s", error)
            return ServedModel(state, found, self.events, self.items)

    @property
    def model(self) -> ServedModel:
        """The model that answers, with the values of items that any process has set."""
        self._model.follow_items()
        return self._model

    def _load_current(self) -> ServedModel:
        """Load the model that the source names now.

        Raises DataError for a model of other data, unless it was named: it may lie in `models/` by chance.
        """
        found = self.source.find()
        state = self._load(found)
        self._check_quality(state, found.name)
        if self.source.named is None:
            check_same_data(self._model.fitted, state, found.name)
        return ServedModel(state, found, self.events, self.items, self._model.table)

    async def run(self, work: Callable[[], T], expensive: bool = False) -> T:
        """Run work where it delays others least: here, or in a thread. expensive: slow whatever the model's size."""
        if not expensive and self.model.state.model.scoring_cost <= _INLINE_COST:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def reload_loop(self) -> None:
        """Check for another model every `reload_interval` seconds."""
        while self.config.reload_interval:
            await asyncio.sleep(self.config.reload_interval)
            await self.reload_if_changed()
            await self.follow_items()

    async def reload_if_changed(self) -> bool:
        """Load the model that the source names now if it is another one; return whether it was replaced."""
        version = ""
        try:
            version = await asyncio.to_thread(self.source.version)
            if version == self._model.version or self._backoff.blocks(version):
                return False
            async with self._swapping:
                model = await asyncio.to_thread(self._load_current)
                self._model, self._backoff = model, RetryBackoff()
        except Exception as error:  # whatever is wrong with the new model, the current one stays, and so does the loop
            if self._backoff.record_failure(version, self.config.reload_interval):
                self.metrics.count_swap(False)
                log.warning("the model stays %s: %s", self._model.name, error)
            return False
        self.metrics.count_swap(True)
        await asyncio.to_thread(gc.collect)  # reference cycles keep the old model alive
        log.info("model %s (%s) answers from now on", model.name, model.version)
        return True

    async def set_items(self, values: Sequence[ItemValue]) -> dict[str, int]:
        """Store values of items, which count from the next answer on, and return how many items they change and add,
        and how many they cannot.

        Raises SettingError for a value that does not fit its column, DataError if they could not be stored; then
        nothing is.
        """
        known = self.model.state.items
        ids = {str(value.item) for value in values}
        changed = sum(item in known for item in ids)
        try:
            await asyncio.to_thread(check_item_values, self._model.state, values)
        except DataError as error:
            raise SettingError(str(error)) from None
        await asyncio.to_thread(self.items.set, values)
        self.metrics.count_item_values(len(values))
        if self.model.values.has_new:
            await self._rebuild(self._model.table)
        unknown = sum(item not in self._model.state.items for item in ids)
        return {"changed": changed, "added": len(ids) - changed - unknown, "unknown_items": unknown}

    async def follow_items(self) -> None:
        """Take in the file of items if it changed, and items that other processes added."""
        taken = None if self._model.table is None else self._model.table.version
        version = taken if self.items_file is None else self.items_file.version()
        try:
            if version == taken:
                self.items_error = None
                if self.model.values.has_new:
                    await self._rebuild(self._model.table)
            elif self.items_file is not None and not self._items_backoff.blocks(str(version)):
                table = await asyncio.to_thread(self.items_file.read)
                await self._rebuild(table)
                self.items_error = None
                log.info("%s: values of %s items", self.items_file.path, f"{table.table.height:,}")
        except Exception as error:  # the items stay what they are, and so does the loop
            self.items_error = str(error)
            if self._items_backoff.record_failure(str(version), self.config.reload_interval):
                self.metrics.count_items_failure()
                log.warning("the items stay as they are: %s", error)

    async def _rebuild(self, table: ItemsTable | None) -> None:
        """Let a model take over that is the same but for its items."""
        async with self._swapping:
            old = self._model

            def build() -> ServedModel:
                return ServedModel(old.fitted, old.found, self.events, self.items, table)

            self._model = await asyncio.to_thread(build)
            self._items_backoff = RetryBackoff()

    def map(self) -> Path | None:
        """Return the page with the model's map, or None while another process draws it, which takes seconds."""
        model = self.model
        folder = self._maps / model.version
        if (folder / "map.html").exists():
            return folder / "map.html"
        if model.version not in self._drawing:
            command = [sys.executable, "-m", "recsys_embed", "--quiet", "map", "--model", str(model.folder)]
            command += ["--out", str(folder)]
            self._drawing[model.version] = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ})
        elif self._drawing[model.version].poll() not in (None, 0):
            raise RecsysError("the map could not be drawn; the log says why")
        return None

    def close(self) -> None:
        """Store the events that still wait, and delete the maps."""
        for process in self._drawing.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._maps, ignore_errors=True)
        self.events.close()
