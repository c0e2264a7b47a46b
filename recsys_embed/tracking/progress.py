"""A progress bar for a training."""

from __future__ import annotations

import logging
from types import TracebackType

from recsys_embed.tracking.tracker import Tracker

log = logging.getLogger("recsys_embed")


def progress_bar() -> BarTracker:
    """Return a progress bar, which shows nothing where only warnings are wanted."""
    return BarTracker(quiet=log.level > logging.INFO)


class BarTracker(Tracker):
    """A progress bar on stderr with loss, rate, metric and time left; plain lines if stderr is not a terminal."""

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
        self.reported = 0.0  # share of the training at the last printed line

    def __enter__(self) -> BarTracker:
        self.bar.start()
        return self

    def progress(self, done: float, total: float, note: str = "", unit: str = "epoch") -> None:
        """Advance the bar, or print a line after each fifth of the training."""
        self.bar.update(self.task, description=unit, completed=done, total=total, note=note)
        if not self.console.is_terminal:
            self.reported = 0.0 if done < self.reported * total else self.reported  # a second training has started
            if done >= (self.reported + 0.2) * total:
                self.reported = done / total
                self.console.print(f"{unit} {done:,.0f} of {total:,.0f}  {note}".rstrip())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
