"""Service: the model that answers now, the events, and the looks for a newer model."""

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

from recsys_embed.config.settings import ServeConfig
from recsys_embed.errors import BundleError, RecsysError
from recsys_embed.serving.event_store import EventLog
from recsys_embed.serving.live_model import LiveModel
from recsys_embed.serving.metrics import Metrics
from recsys_embed.serving.model_source import FoundModel, ModelSource
from recsys_embed.serving.reload import RetryBackoff, check_same_data
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.folder import load_state

log = logging.getLogger("recsys_embed")

T = TypeVar("T")


# Numbers that a question may look at on the loop itself: handing it to a thread costs more than the 1 or 2 ms it takes.
_INLINE_COST = 4_000_000


# Questions that take long are answered by so many threads.
_THREADS = 4


class Service:
    """What the routes ask. Raises BundleError where there is no model to begin with, DataError for the events' file."""

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.source = ModelSource(config.model, config.tracking_uri)
        state, found = self._first()
        self.events = EventLog(Path(config.events or "events.db"))
        self.live = LiveModel(state, found, self.events)
        self._broken = RetryBackoff()
        # Of their own, so that the look for a newer model never waits behind them.
        self._threads = ThreadPoolExecutor(_THREADS, "answers")
        self._maps = Path(tempfile.mkdtemp(prefix="recsys-map-"))
        self._drawing: dict[str, subprocess.Popen[bytes]] = {}

    def _first(self) -> tuple[FittedState, FoundModel]:
        """Return the model to begin with: an older one where the newest is broken."""
        found = self.source.find()
        for other in [*self.source.others(), None]:
            try:
                return self._read(found), found
            except BundleError as error:
                if other is None:
                    raise
                log.warning("left out: %s", error)
                found = other
        raise AssertionError

    def _read(self, found: FoundModel) -> FittedState:
        # Mapped where several share it; a file that is written to while it is mapped would end the process.
        return load_state(found.folder, mmap=self.config.workers > 1).with_index(self.config.index)

    def _next(self) -> LiveModel:
        """Read the model that is meant now. Raises DataError for one of other data that only lies in `models/`."""
        found = self.source.find()
        state = self._read(found)
        if self.source.named is None:
            check_same_data(self.live.state, state, found.name)
        return LiveModel(state, found, self.events)

    async def run(self, work: Callable[[], T], expensive: bool = False) -> T:
        """Answer where it delays others least: here, or in a thread. expensive: slow whatever the model's size."""
        if not expensive and self.live.state.model.cost <= _INLINE_COST:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def watch(self) -> None:
        """Look for another model again and again, and let it answer once it is read."""
        while self.config.watch:
            await asyncio.sleep(self.config.watch)
            await self.look()

    async def look(self) -> bool:
        """Take in the model that is meant now if it is another one; return whether it was."""
        version = ""
        try:
            version = await asyncio.to_thread(self.source.version)
            if version == self.live.version or self._broken.blocks(version):
                return False
            live = await asyncio.to_thread(self._next)
        except Exception as error:  # whatever is wrong with a model, the one before goes on, and so does the watch
            if self._broken.record_failure(version, self.config.watch):
                self.metrics.swapped(False)
                log.warning("the model stays %s: %s", self.live.name, error)
            return False
        self.live, self._broken = live, RetryBackoff()
        self.metrics.swapped(True)
        await asyncio.to_thread(gc.collect)  # what was made of the old model holds on to it in circles
        log.info("model %s (%s) answers from now on", live.name, live.version)
        return True

    def map(self) -> Path | None:
        """Return the page of the model's map; None while it is drawn, by another process, since it takes seconds."""
        live = self.live
        folder = self._maps / live.version
        if (folder / "map.html").exists():
            return folder / "map.html"
        if live.version not in self._drawing:
            command = [sys.executable, "-m", "recsys_embed", "--quiet", "map", "--model", str(live.folder)]
            command += ["--out", str(folder)]
            self._drawing[live.version] = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ})
        elif self._drawing[live.version].poll() not in (None, 0):
            raise RecsysError("the map could not be drawn; the log says why")
        return None

    def close(self) -> None:
        """Keep what still waits, and remove what was drawn."""
        for process in self._drawing.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._maps, ignore_errors=True)
        self.events.close()
