"""A picture of a search for settings: what its trials came to, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from recsys_embed.plots.style import COLOURS, GREY, INK, label, new_figure, style, write


class Made(NamedTuple):
    """A trial. minutes: of the whole search when it ended. value: on validation. whole: it was not ended early."""

    minutes: float
    value: float
    whole: bool


def draw_search(trials: Sequence[Made], metric: str, sign: int, first: float | None, out: Path) -> Path:
    """Draw the trials over the time of the search, and return the file.

    sign: -1 where less is better. first: what the settings that the search began with came to, if anything.
    """
    figure = new_figure(7.5, 4.3)
    axis = figure.subplots()
    whole = [t for t in trials if t.whole]
    early = [t for t in trials if not t.whole]
    best = list(accumulate((t.value for t in whole), max if sign > 0 else min))
    axis.plot([t.minutes for t in early], [t.value for t in early], "x", color=GREY, markersize=5,
              label=f"{len(early)} ended early")  # fmt: skip
    axis.plot([t.minutes for t in whole], [t.value for t in whole], "o", color=COLOURS[0], alpha=0.5, markersize=5,
              markeredgewidth=0, label=f"{len(whole)} trials")  # fmt: skip
    # Until the last trial ended, of whatever kind.
    ends = [*(t.minutes for t in whole), trials[-1].minutes]
    axis.step(ends, [*best, best[-1]], where="post", color=COLOURS[1], linewidth=2, label="best so far")
    title = f"Validation {label(metric)}: {best[-1]:.4f} at best"
    title += "" if first is None else f", {first:.4f} where the search began"
    style(axis, title, "minutes of search", f"validation {label(metric)}")
    axis.legend(frameon=False, labelcolor=INK, loc="lower right" if sign > 0 else "upper right")
    return write(figure, out)
