"""Trackers: where a training reports to. The plain one does nothing, so that nobody has to ask whether there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


class Stop(Exception):
    """Raised by a tracker to end a training from outside: for a clock, or because it is not worth its time."""


class Tracker(AbstractContextManager["Tracker"]):
    """Does nothing. A subclass overrides what it cares for."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Take the settings, once."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Take numbers; `step` counts epochs from 1, None marks final numbers."""

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Take how far the training is, in epochs."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Take a file, to be kept in a folder of that name or beside all."""

    def describe(self, text: str) -> None:
        """Take a description, in Markdown."""

    def inputs(self, frames: Mapping[str, pl.DataFrame], name: str, source: str) -> None:
        """Take the data, by what it is used for."""

    def model(
        self, bundle: Path, code: Path, example: pl.DataFrame, signature: Callable[[], Any], requirements: list[str]
    ) -> None:
        """Take the model's folder, the code that answers with it, an example and the form of a question, its needs."""

    def register(self, wanted: str) -> None:
        """Register the model that was taken under a name, NAME or NAME@ALIAS."""

    def child(self, name: str, tags: Mapping[str, str]) -> Tracker:
        """Return a tracker of a part of this run, not begun."""
        return Tracker()

    def mark_killed(self, run_id: str) -> None:
        """Mark a run as killed that was left open by a program that is no more."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None


class MemoryTracker(Tracker):
    """Keeps everything in lists and dicts; for tests and notebooks."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.steps: list[tuple[int | None, dict[str, float]]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        """Keep the settings."""
        self.settings.update(values)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Keep the numbers with their step."""
        self.steps.append((step, dict(values)))


class MultiTracker(Tracker):
    """Hands settings, numbers and progress on to several trackers: what a training loop reports."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def params(self, values: Mapping[str, Any]) -> None:
        """Hand on the settings."""
        for tracker in self.trackers:
            tracker.params(values)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Hand on the numbers."""
        for tracker in self.trackers:
            tracker.metrics(values, step)

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Hand on the progress."""
        for tracker in self.trackers:
            tracker.progress(done, total, note)
