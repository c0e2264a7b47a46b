"""Trackers: what a training reports to. The base class does nothing, so that callers need no check for None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


class Stop(Exception):
    """Raised by a tracker to stop a training: on a time limit, or to prune a trial."""


class Tracker(AbstractContextManager["Tracker"]):
    """A tracker that does nothing; subclasses override what they record."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Record the settings, once."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics. step: the epoch, from 1; None for final metrics."""

    def progress(self, done: float, total: float, note: str = "", unit: str = "epoch") -> None:
        """Report progress, in epochs or another unit."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file, in a folder of that name or at the top level."""

    def table(self, frame: pl.DataFrame, name: str) -> None:
        """Record a table as a file NAME.json."""

    def tag(self, name: str, value: str) -> None:
        """Record a text by which runs can be found."""

    def describe(self, text: str) -> None:
        """Record a description, in Markdown."""

    def inputs(self, frames: Mapping[str, pl.DataFrame], name: str, source: str) -> None:
        """Record the data sets by their use: "training", "validation", "test"."""

    def model(
        self, bundle: Path, code: Path, example: pl.DataFrame, signature: Callable[[], Any], requirements: list[str]
    ) -> None:
        """Record the model: its folder, code that wraps it, an input example, the signature and requirements."""

    def check_register(self) -> None:
        """Raise DataError where no model can be registered, before the training rather than after it."""

    def register(self, target: str) -> str | None:
        """Register the recorded model as NAME or NAME@ALIAS; return why it was not, or None."""
        return "nothing is recorded in MLflow"

    def child(self, name: str, tags: Mapping[str, str]) -> Tracker:
        """Return a tracker for a nested run, not started yet."""
        return Tracker()

    def mark_killed(self, run_id: str) -> None:
        """Mark a run that a dead process left open as killed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None


class MemoryTracker(Tracker):
    """Keeps everything in memory, for tests and notebooks."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.steps: list[tuple[int | None, dict[str, float]]] = []

    def params(self, values: Mapping[str, Any]) -> None:
        """Keep the settings."""
        self.settings.update(values)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Keep the metrics with their step."""
        self.steps.append((step, dict(values)))


class MultiTracker(Tracker):
    """Forwards what a training loop reports (settings, metrics, progress) to several trackers."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def params(self, values: Mapping[str, Any]) -> None:
        """Forward the settings."""
        for tracker in self.trackers:
            tracker.params(values)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Forward the metrics."""
        for tracker in self.trackers:
            tracker.metrics(values, step)

    def progress(self, done: float, total: float, note: str = "", unit: str = "epoch") -> None:
        """Forward the progress."""
        for tracker in self.trackers:
            tracker.progress(done, total, note, unit)


class ProgressOnly(Tracker):
    """Passes on progress only: the losses of a second fit must not mix with those of the first."""

    def __init__(self, tracker: Tracker) -> None:
        self.progress = tracker.progress  # type: ignore[method-assign]
