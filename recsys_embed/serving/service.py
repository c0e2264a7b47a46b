"""The service behind the routes: the current models, the event store, and reloading."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from recsys_embed.config.answers import ServeConfig
from recsys_embed.config.variants import Variant
from recsys_embed.data.ids import Id
from recsys_embed.errors import DataError, RecsysError, SettingError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.item_store import ItemStore
from recsys_embed.serving.items_file import ItemsFile, ItemsTable
from recsys_embed.serving.metrics import Metrics
from recsys_embed.serving.model_slot import ModelSlot
from recsys_embed.serving.outcome_store import GivenList, delete_outcomes
from recsys_embed.serving.reload import RetryBackoff
from recsys_embed.serving.served_model import ServedModel
from recsys_embed.serving.turns import Turns
from recsys_embed.serving.variants import Chosen, Variants
from recsys_embed.state.change_items import ItemValue, check_item_values
from recsys_embed.state.digest import state_digest

log = logging.getLogger("recsys_embed")

T = TypeVar("T")

# Most numbers a request may process on the event loop itself: a thread would cost more than the 1 or 2 ms that takes.
_INLINE_COST = 4_000_000
# Threads for slower requests.
_THREADS = 4


class Service:
    """The current model, or one for each variant, the event store, and the loop that reloads the models.

    Raises BundleError where no model can be loaded at the start, DataError for an unusable events file, and for a model
    that is clearly worse than popularity.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.slots = [_slot(config, variant) for variant in config.variants or (None,)]
        self.events = EventStore(Path(config.events or "events.db"))
        self.items = ItemStore(self.events)
        self.items_file = None
        if config.items is not None:
            self.items_file = ItemsFile(Path(config.items), self.items, self.slots[0].item_column)
        # What is wrong with the file of items, or None.
        self.items_error: str | None = None
        self._start()
        # Which slot answers whom, and what came of it; None: there are no variants.
        self.variants = None if not config.variants else Variants(config, self.slots, self.events)
        self._warn_of_same_models()
        self._items_backoff = RetryBackoff()
        self._swapping = asyncio.Lock()
        # A pool for requests only, so that reloading never waits behind them.
        self._threads = ThreadPoolExecutor(_THREADS, "answers")
        self.turns = Turns(self._threads)
        self._maps = Path(tempfile.mkdtemp(prefix="recsys-map-"))
        self._drawing: dict[str, subprocess.Popen[bytes]] = {}

    def _start(self) -> None:
        try:
            table = None if self.items_file is None else self.items_file.read()
            for slot in self.slots:
                slot.start(self.events, self.items, table)
        except DataError as error:
            if self.items_file is None:
                raise
            self.items_error = str(error)
            log.warning("the items stay those of the model: %s", error)
            for slot in self.slots:
                slot.start(self.events, self.items, None)

    def _warn_of_same_models(self) -> None:
        """Warn where variants have one model: their test cannot tell them apart."""
        found: dict[str, str] = {}
        for variant, slot in zip(self.config.variants, self.slots, strict=False):  # without variants there is one slot
            first = found.setdefault(state_digest(slot.served.fitted), variant.name)
            if first != variant.name:
                names = first, variant.name
                log.warning("variants %s and %s are the same model: no test can show a difference", *names)

    def follow_values(self) -> None:
        """Take in the values of items that any process has set, in all models."""
        for slot in self.slots:
            slot.served.follow_items()

    @property
    def model(self) -> ServedModel:
        """The model that answers, of several the first, with the values of items that any process has set."""
        return self.slots[0].model

    def choose(
        self, user: Id | None = None, session: Id | None = None, variant: str | None = None, follow: bool = True
    ) -> Chosen:
        """Return the model that answers a request. variant: the one that it names. follow: see `ModelSlot.model`.

        Raises UnknownId for a variant that the service does not have, SettingError if it has none.
        """
        if self.variants is not None:
            return self.variants.choose(user, session, variant, follow)
        if variant is not None:
            raise SettingError("this service has no variants: recsys serve --variant a=MODEL --variant b=MODEL")
        return Chosen(self.slots[0].model if follow else self.slots[0].served)

    async def run(self, work: Callable[[], T], expensive: bool = False, user: Id | None = None) -> T:
        """Run work where it delays others least: here, or in a thread. expensive: slow whatever the model's size.

        user: whose events it may read.
        """
        expensive = expensive or (user is not None and self.events.has_many(str(user)))
        if not expensive and all(slot.served.fitted.model.scoring_cost <= _INLINE_COST for slot in self.slots):
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def reload_loop(self) -> None:
        """Check for another model every `reload_interval` seconds."""
        while self.config.reload_interval:
            await asyncio.sleep(self.config.reload_interval)
            await self.reload_if_changed()
            await self.follow_items()

    async def reload_if_changed(self) -> bool:
        """Load the models that their sources name now if they are others; return whether one was replaced."""
        return any([await self._reload(slot) for slot in self.slots])

    async def _reload(self, slot: ModelSlot) -> bool:
        version = ""
        try:
            version = await asyncio.to_thread(slot.source.version)
            if version == slot.served.version or slot.backoff.blocks(version):
                return False
            async with self._swapping:
                model = await asyncio.to_thread(slot.load_current)
                slot.served, slot.backoff = model, RetryBackoff()
        except Exception as error:  # whatever is wrong with the new model, the current one stays, and so does the loop
            if slot.backoff.record_failure(version, self.config.reload_interval):
                self.metrics.count_swap(False)
                log.warning("the model stays %s: %s", slot.served.name, error)
            return False
        self.metrics.count_swap(True)
        await asyncio.to_thread(gc.collect)  # reference cycles keep the old model alive
        log.info("model %s (%s) answers from now on", model.name, model.version)
        return True

    async def set_items(self, values: Sequence[ItemValue]) -> dict[str, int]:
        """Store values of items, which count from the next answer on, and return how many items they change and add,
        and how many they cannot, in the first model.

        Raises SettingError for a value that does not fit its column, DataError if they could not be stored; then
        nothing is.
        """
        known = self.model.state.items
        ids = {str(value.item) for value in values}
        changed = sum(item in known for item in ids)
        try:
            for slot in self.slots:
                await asyncio.to_thread(check_item_values, slot.model.state, values)
        except DataError as error:
            raise SettingError(str(error)) from None
        await asyncio.to_thread(self.items.set, values)
        self.metrics.count_item_values(len(values))
        await self._add_new_items()
        unknown = sum(item not in self.slots[0].served.state.items for item in ids)
        return {"changed": changed, "added": len(ids) - changed - unknown, "unknown_items": unknown}

    async def follow_items(self) -> None:
        """Take in the file of items if it changed, and items that other processes added."""
        version = None if self.items_file is None else self.items_file.version()
        try:
            behind = [slot for slot in self.slots if slot.table_version != version]
            if not behind:
                self.items_error = None
                await self._add_new_items()
            elif self.items_file is not None and not self._items_backoff.blocks(str(version)):
                table = await asyncio.to_thread(self.items_file.read)
                await self._rebuild(behind, table)
                self.items_error = None
                log.info("%s: values of %s items", self.items_file.path, f"{table.table.height:,}")
        except Exception as error:  # the items stay what they are, and so does the loop
            self.items_error = str(error)
            if self._items_backoff.record_failure(str(version), self.config.reload_interval):
                self.metrics.count_items_failure()
                log.warning("the items stay as they are: %s", error)

    async def _add_new_items(self) -> None:
        for slot in self.slots:
            if slot.model.values.has_new:
                await self._rebuild([slot], slot.served.table)

    async def _rebuild(self, slots: Sequence[ModelSlot], table: ItemsTable | None) -> None:
        """Let models take over that are the same but for their items: all of them or none."""
        async with self._swapping:
            models = [await asyncio.to_thread(slot.with_table, table) for slot in slots]
            for slot, model in zip(slots, models, strict=True):
                slot.served = model
            self._items_backoff = RetryBackoff()

    def count(self, lists: Iterable[GivenList | None]) -> None:
        """Count lists that are about to be sent, but those that do not count."""
        if self.variants is not None:
            self.variants.outcomes.count_all(given for given in lists if given is not None)

    async def delete_user(self, user: Id) -> int:
        """Delete the events of a user for good, and what they were given; return how many events there were.

        What came of their lists until now stays in the sums of the variants.
        """
        if self.variants is not None:
            await asyncio.wrap_future(self.variants.outcomes.flush_soon())
        return await asyncio.to_thread(self.events.delete_of, str(user), delete_outcomes)

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
        if self.variants is not None:
            self.variants.outcomes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._maps, ignore_errors=True)
        self.events.close()


def _slot(config: ServeConfig, variant: Variant | None) -> ModelSlot:
    try:
        return ModelSlot(config, variant)
    except RecsysError as error:
        if variant is None:
            raise
        raise type(error)(f"variant {variant.name}: {error}") from None
