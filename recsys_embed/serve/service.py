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
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from recsys_embed.config import ServeConfig
from recsys_embed.errors import BundleError, DataError, RecsysError
from recsys_embed.recommend.recommender import Recommender
from recsys_embed.serve.events import EventLog
from recsys_embed.serve.live import Live
from recsys_embed.serve.metrics import Metrics
from recsys_embed.serve.source import Found, Source

log = logging.getLogger("recsys_embed")

T = TypeVar("T")

# Numbers that a question may look at on the loop itself: handing it to a thread costs more than the 1 or 2 ms it takes.
_AT_ONCE = 4_000_000
# Seconds between two tries to read a broken model at most.
_RARELY = 60.0
# Questions that take long are answered by so many threads.
_THREADS = 4


class _Broken:
    """A model that could not be read: it may be half copied, so it is tried again, ever more rarely."""

    def __init__(self) -> None:
        self._version, self._pause, self._next = "none", 0.0, 0.0

    def waits(self, version: str) -> bool:
        """Return whether this version failed, and is not to be tried yet."""
        return version == self._version and time.monotonic() < self._next

    def again(self, version: str, watch: float) -> bool:
        """Take down that a version failed; return whether it is the first time."""
        first = version != self._version
        self._pause = watch if first else min(2 * self._pause, _RARELY)
        self._version, self._next = version, time.monotonic() + self._pause
        return first


def _check_alike(old: Recommender, new: Recommender, name: str) -> None:
    """Refuse a model that knows less than half of what the one before it does: it is of other data."""
    for ours, theirs in ((old.users, new.users), (old.items, new.items)):
        there = int((theirs.rows(ours.series, missing="negative") >= 0).sum())
        if 2 * there < len(ours):
            raise DataError(
                f"{name} knows {there:,} of the {len(ours):,} {ours.name}s that are served: it does not come by itself "
                "(recsys serve --model takes it)"
            )


class Service:
    """What the routes ask. Raises BundleError where there is no model to begin with, DataError for the events' file."""

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.source = Source(config.model, config.tracking_uri)
        recommender, found = self._first()
        self.events = EventLog(Path(config.events or "events.db"))
        self.live = Live(recommender, found, self.events)
        self._broken = _Broken()
        # Of their own, so that the look for a newer model never waits behind them.
        self._threads = ThreadPoolExecutor(_THREADS, "answers")
        self._maps = Path(tempfile.mkdtemp(prefix="recsys-map-"))
        self._drawing: dict[str, subprocess.Popen[bytes]] = {}

    def _first(self) -> tuple[Recommender, Found]:
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

    def _read(self, found: Found) -> Recommender:
        # Mapped where several share it; a file that is written to while it is mapped would end the process.
        return Recommender.load(found.folder, mmap=self.config.workers > 1).use_index(self.config.index)

    def _next(self) -> Live:
        """Read the model that is meant now. Raises DataError for one of other data that only lies in `models/`."""
        found = self.source.find()
        recommender = self._read(found)
        if self.source.named is None:
            _check_alike(self.live.recommender, recommender, found.name)
        return Live(recommender, found, self.events)

    async def run(self, work: Callable[[], T], dear: bool = False) -> T:
        """Do what a question asks, where it hinders others least. dear: what takes long whatever the model's size."""
        plain = self.live.recommender.plain
        if not dear and plain.items.size * (1 + 10 * bool(plain.layers)) <= _AT_ONCE:
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
            if version == self.live.version or self._broken.waits(version):
                return False
            live = await asyncio.to_thread(self._next)
        except Exception as error:  # whatever is wrong with a model, the one before goes on, and so does the watch
            if self._broken.again(version, self.config.watch):
                self.metrics.swapped(False)
                log.warning("the model stays %s: %s", self.live.name, error)
            return False
        self.live, self._broken = live, _Broken()
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
