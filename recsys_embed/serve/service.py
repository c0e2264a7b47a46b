"""Service: the model that answers now, the events, and the looks for a newer model."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from recsys_embed.config import ServeConfig
from recsys_embed.errors import RecsysError
from recsys_embed.serve.events import EventLog
from recsys_embed.serve.live import Live
from recsys_embed.serve.metrics import Metrics
from recsys_embed.serve.source import Source

log = logging.getLogger("recsys_embed")

T = TypeVar("T")

# Numbers that a question may look at on the loop itself: handing it to a thread costs more than the 1 or 2 ms it takes.
_AT_ONCE = 4_000_000
# Seconds between two tries to read a broken model at most.
_RARELY = 60.0


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


class Service:
    """What the routes ask. Raises BundleError where there is no model to begin with, DataError for the events' file."""

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.source = Source(config.model, config.tracking_uri)
        self.events = EventLog(Path(config.events or "events.db"))
        self.live = Live(self.source.find(), self.events)
        self._broken = _Broken()
        self._maps = Path(tempfile.mkdtemp(prefix="recsys-map-"))
        self._drawing: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """Do what a question asks, where it hinders others least."""
        plain = self.live.recommender.plain
        if plain.items.size * (1 + 10 * bool(plain.layers)) <= _AT_ONCE:
            return work()
        return await asyncio.to_thread(work)

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
            live = await asyncio.to_thread(lambda: Live(self.source.find(), self.events))
        except (RecsysError, OSError) as error:
            if self._broken.again(version, self.config.watch):
                self.metrics.swapped(False)
                log.warning("the model stays %s: %s", self.live.name, error)
            return False
        self.live, self._broken = live, _Broken()
        self.metrics.swapped(True)
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
        shutil.rmtree(self._maps, ignore_errors=True)
        self.events.close()
