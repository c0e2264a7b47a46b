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

    def bury(self, run_id: str) -> None:
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


class Trackers(Tracker):
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


class BarTracker(Tracker):
    """A progress bar on stderr with loss, rate, metric and time left; plain lines where no terminal is."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("epoch", total=1, note="")
        self.said = 0.0

    def __enter__(self) -> BarTracker:
        self.bar.start()
        return self

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Move the bar, or say a line after every fifth of the way."""
        self.bar.update(self.task, completed=done, total=total, note=note)
        if not self.console.is_terminal:
            self.said = 0.0 if done < self.said * total else self.said
            if done >= (self.said + 0.2) * total:
                self.said = done / total
                self.console.print(f"epoch {done:.0f} of {total:.0f}  {note}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
