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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from recsys_embed.config.answers import ServeConfig
from recsys_embed.errors import BundleError, DataError, RecsysError
from recsys_embed.serving.event_store import EventStore
from recsys_embed.serving.metrics import Metrics
from recsys_embed.serving.model_source import FoundModel, ModelSource
from recsys_embed.serving.reload import RetryBackoff, check_quality, check_same_data
from recsys_embed.serving.served_model import ServedModel
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
        self.model = ServedModel(state, found, self.events)
        self._backoff = RetryBackoff()
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

    def _load_current(self) -> ServedModel:
        """Load the model that the source names now.

        Raises DataError for a model of other data, unless it was named: it may lie in `models/` by chance.
        """
        found = self.source.find()
        state = self._load(found)
        self._check_quality(state, found.name)
        if self.source.named is None:
            check_same_data(self.model.state, state, found.name)
        return ServedModel(state, found, self.events)

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

    async def reload_if_changed(self) -> bool:
        """Load the model that the source names now if it is another one; return whether it was replaced."""
        version = ""
        try:
            version = await asyncio.to_thread(self.source.version)
            if version == self.model.version or self._backoff.blocks(version):
                return False
            model = await asyncio.to_thread(self._load_current)
        except Exception as error:  # whatever is wrong with the new model, the current one stays, and so does the loop
            if self._backoff.record_failure(version, self.config.reload_interval):
                self.metrics.count_swap(False)
                log.warning("the model stays %s: %s", self.model.name, error)
            return False
        self.model, self._backoff = model, RetryBackoff()
        self.metrics.count_swap(True)
        await asyncio.to_thread(gc.collect)  # reference cycles keep the old model alive
        log.info("model %s (%s) answers from now on", model.name, model.version)
        return True

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
