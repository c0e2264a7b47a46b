"""Draw a search for settings: the values of its trials, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from recsys_embed.plots.style import COLOURS, GREY, INK, metric_label, new_figure, save_figure, style_axes


class TrialPoint(NamedTuple):
    """A trial. minutes: of the search until it ended. value: the validation metric. complete: not stopped early."""

    minutes: float
    value: float
    complete: bool


def draw_search(trials: Sequence[TrialPoint], metric: str, sign: int, baseline: float | None, out: Path) -> Path:
    """Draw the trials over the time of the search, and return the file.

    sign: +1 if higher is better, -1 if lower is. baseline: the value of the settings that the search started from.
    """
    figure = new_figure(7.5, 4.3)
    axis = figure.subplots()
    complete = [t for t in trials if t.complete]
    early = [t for t in trials if not t.complete]
    best = list(accumulate((t.value for t in complete), max if sign > 0 else min))
    axis.plot([t.minutes for t in early], [t.value for t in early], "x", color=GREY, markersize=5,
              label=f"{len(early)} ended early")  # fmt: skip
    axis.plot([t.minutes for t in complete], [t.value for t in complete], "o", color=COLOURS[0], alpha=0.5,
              markersize=5, markeredgewidth=0, label=f"{len(complete)} trials")  # fmt: skip
    # The line reaches to the end of the last trial, complete or not.
    ends = [*(t.minutes for t in complete), trials[-1].minutes]
    axis.step(ends, [*best, best[-1]], where="post", color=COLOURS[1], linewidth=2, label="best so far")
    title = f"Validation {metric_label(metric)}: {best[-1]:.4f} at best"
    title += "" if baseline is None else f", {baseline:.4f} at the start"
    style_axes(axis, title, "minutes of search", f"validation {metric_label(metric)}")
    axis.legend(frameon=False, labelcolor=INK, loc="lower right" if sign > 0 else "upper right")
    return save_figure(figure, out)
