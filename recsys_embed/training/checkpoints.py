"""Checkpoints: with them, a training that was killed is gone on with, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from recsys_embed.errors import BundleError, DataError
from recsys_embed.storage.bundle import Bundle, files_of
from recsys_embed.storage.json import parse_json

log = logging.getLogger("recsys_embed")

Arrays = dict[str, NDArray[Any]]

_ARRAYS, _FACTS = "arrays.safetensors", "facts.txt"  # JSON with NaN
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Saved:
    """The state of a stage. done: whether the stage had ended; it is its result then. folder: of its shards, if any."""

    arrays: Arrays
    facts: dict[str, Any]
    done: bool
    folder: Path


class Checkpoints:
    """The state of a training, stage by stage, in a folder.

    A training is a sequence of stages (fits of embeddings, regressions of item neighbours), and each depends on the
    data, the settings and the results of those before it. So the same command that takes the results of the stages that
    had ended from here, and goes on within the one that had not, ends as it would have without the interruption: on
    CPU bit for bit.

    Each state is a folder NUMBER-VERSION, or NUMBER-done, that is complete or absent; of the present stage the last two
    are kept. Shards, which ranks have written, are in NUMBER-VERSION.shards, and the state, which is written after
    them, has their digests.
    """

    _KEPT = 2

    def __init__(self, folder: Path, seconds: float, resume: bool = False) -> None:
        """seconds: between two states of a stage. resume: go on from what is in the folder, rather than remove it.

        Raises BundleError if nothing can be written there.
        """
        self.folder, self.seconds, self.stages = Path(folder), seconds, 0
        if not resume:
            self.remove()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"no checkpoints can be written to {self.folder}: {error.strerror}") from None

    def stage(self, what: str, *inputs: str) -> Stage:
        """Return the next stage. inputs: digests and settings that its result depends on.

        Raises DataError if the folder has a state of that stage with other inputs.
        """
        self.stages += 1
        return Stage(self, f"{self.stages:03}", what, hashlib.sha256("\n".join((what, *inputs)).encode()).hexdigest())

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Stage:
    """One stage of a training: its states on disk, and when the next one is due."""

    def __init__(self, checkpoints: Checkpoints, name: str, what: str, key: str) -> None:
        self._checkpoints, self._name, self._key = checkpoints, name, key
        self._written, self._came, self._before = time.monotonic(), 0, dict[int, Any]()
        self.saved = self._read()
        if self.saved is not None and not self.saved.done:
            log.info("going on with %s, as of the last checkpoint", what)

    @property
    def due(self) -> bool:
        """Whether a state is to be saved now: some time has passed, or the program was told to end."""
        return bool(self._came) or time.monotonic() - self._written >= self._checkpoints.seconds

    @property
    def shards(self) -> Path:
        """The folder of the shards of the next state."""
        return self._checkpoints.folder / f"{self._name}-{self._next()}.shards"

    def _next(self) -> str:
        return f"{1 + max((n for n, _ in self._states()), default=0):06}"

    def skip(self, reason: str) -> None:
        """Warn that a state cannot be written, and wait for the next."""
        log.warning("no checkpoint was written, and the training goes on: %s", reason)
        self._written = time.monotonic()
        self._raise_if_signalled()

    def save(self, arrays: Arrays, facts: Mapping[str, Any], done: bool = False) -> None:
        """Save a state, or warn where none can be written.

        Raises KeyboardInterrupt afterwards if the program was told to end, see `deferred`.
        """
        states = self._states()
        version = "done" if done else self._next()
        text = json.dumps({"key": self._key, "done": done, "facts": facts})
        bundle = Bundle(arrays={_ARRAYS: arrays}, texts={_FACTS: text})
        try:
            bundle.write(self._checkpoints.folder / f"{self._name}-{version}")
        except BundleError as error:  # a full disk, say: hours of training are worth more
            log.warning("no checkpoint was written, and the training goes on: %s", error)
        else:
            for _, old in sorted(states)[: None if done else -self._checkpoints._KEPT + 1 or None]:
                for folder in (old, _shards_of(old)):
                    shutil.rmtree(folder, ignore_errors=True)
        self._written = time.monotonic()
        self._raise_if_signalled()

    def _raise_if_signalled(self) -> None:
        if self._came:
            handler = self._before[self._came]  # which may have more to do than to raise
            if callable(handler):
                handler(self._came, None)
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer Ctrl-C and SIGTERM until `save`: within a step, tables are neither as before it nor as after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: Any) -> None:
            if self._came:  # whoever asks twice does not wait
                raise KeyboardInterrupt
            self._came = number

        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _states(self) -> list[tuple[int, Path]]:
        folders = self._checkpoints.folder.glob(f"{self._name}-*")
        return [(int(number), f) for f in folders if (number := f.name.partition("-")[2]).isdecimal()]

    def _read(self) -> Saved | None:
        """Return the newest state that is whole, or None."""
        done = self._checkpoints.folder / f"{self._name}-done"
        for folder in ([done] if done.is_dir() else []) + [f for _, f in sorted(self._states(), reverse=True)]:
            try:
                bundle = Bundle.read(folder)
                found, arrays = parse_json(bundle.texts[_FACTS]), bundle.arrays[_ARRAYS]
                _check_shards(_shards_of(folder), found["facts"].get("shards"))
            except (BundleError, KeyError, ValueError) as error:
                log.warning("a checkpoint cannot be read (%s): the one before it is taken", error)
                continue
            if found["key"] != self._key:
                raise DataError(
                    f"the checkpoints in {self._checkpoints.folder} are of other data or settings: "
                    "train without --resume"
                )
            return Saved(arrays, found["facts"], found["done"], _shards_of(folder))
        return None


def _shards_of(state: Path) -> Path:
    return state.with_name(f"{state.name}.shards")


def _check_shards(folder: Path, files: dict[str, Any] | None) -> None:
    """Raise BundleError unless a folder has these files, with these digests."""
    try:
        if files is not None and files_of(folder) != files:
            raise BundleError(f"{folder} was changed after it was written")
    except OSError as error:
        raise BundleError(f"{folder} cannot be read ({error.strerror})") from None


def below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Return the arrays whose name begins with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
