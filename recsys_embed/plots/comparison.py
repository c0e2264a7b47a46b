"""Draw trainings side by side: validation curves, test metrics, and differences by user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_embed.evaluation.compare import Comparison, Run
from recsys_embed.plots.style import (
    COLOURS,
    GREY,
    INK,
    check_suffix,
    escape_math,
    metric_label,
    new_figure,
    save_figure,
    style_axes,
)
from recsys_embed.plots.training import VALIDATION_METRICS


def draw_comparison(comparison: Comparison, out: Path) -> Path:
    """Draw validation curves, the test metric with intervals, and the differences by user, to a .png, .svg or .pdf."""
    check_suffix(out)
    figure = new_figure(14, 4.4 + 0.22 * len(comparison.runs))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 0.9, 1.1))
    runs, metric = comparison.runs, comparison.metric
    colours = [COLOURS[n % len(COLOURS)] for n in range(len(runs))]
    _draw_curves(left, runs, colours)
    _draw_tests(middle, runs, metric, colours)
    _draw_differences(right, comparison, colours)
    handles = [left.plot([], [], color=colour, linewidth=5)[0] for colour in colours]
    names = [escape_math(f"{number}  {run.name}") for number, run in enumerate(runs, 1)]
    figure.legend(handles, names, loc="outside upper left", frameon=False, labelcolor=INK, fontsize=9)
    return save_figure(figure, out)


def _draw_curves(axis: Any, runs: Sequence[Run], colours: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    histories = [run.metadata.get("history") or [] for run in runs]
    measured = {name for history in histories for name in (history[0] if history else ())}
    name = next((n for n in VALIDATION_METRICS if n in measured), None)
    for history, run, colour in zip(histories, runs, colours, strict=True):
        values = [epoch[name] for epoch in history if name in epoch]
        if values:
            axis.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=2)
            best = min(run.metadata.get("epochs") or len(values), len(values))
            axis.plot(best, values[best - 1], "o", color=colour, markersize=7)
    without = [str(number) for number, history in enumerate(histories, 1) if not history or name not in history[0]]
    title = f"validation {metric_label(name)}, best epoch marked" if name else "no validation"
    style_axes(axis, title + (f" (not in {', '.join(without)})" if name and without else ""), "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_tests(axis: Any, runs: Sequence[Run], metric: str, colours: Sequence[str]) -> None:
    for y, (run, colour) in enumerate(zip(runs, colours, strict=True), 1):
        value = run.test.get(metric)
        if value is None:
            continue
        interval = run.test.get("intervals", {}).get(metric)
        if interval:
            axis.plot(interval, [y, y], color=colour, linewidth=3, solid_capstyle="round", alpha=0.6)
        axis.plot(value, y, "o", color=colour, markersize=9)
        axis.annotate(f"{value:.4f}", (value, y), (0, 9), textcoords="offset points", ha="center", color=INK)
    style_axes(axis, f"test {metric_label(metric)}, 95 % interval over users")
    axis.set_yticks(range(1, len(runs) + 1))
    axis.set_ylim(len(runs) + 0.6, 0.4)
    axis.margins(x=0.15)


def _draw_differences(axis: Any, comparison: Comparison, colours: Sequence[str]) -> None:
    """Draw histograms of the users' differences. Users without one, often many, are only in the legend."""
    pairs = [
        (number, pair.difference, pair.values)
        for number, pair in enumerate(comparison.comparisons, 2)
        if pair.difference is not None and pair.values is not None
    ]
    style_axes(axis, f"{metric_label(comparison.metric)} of each user, run minus run 1", "difference", "users")
    if not pairs:
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not comparable user by user", ha="center", color=GREY, transform=axis.transAxes)
        return
    reach = max(float(np.abs(values).max()) for _, _, values in pairs) or 1.0
    edges = np.linspace(-reach, reach, 41)
    tallest = 0.0
    for number, _, values in pairs:
        colour, nonzero = colours[number - 1], values[values != 0]
        heights, _, _ = axis.hist(nonzero, edges, histtype="stepfilled", color=colour, alpha=0.22)
        axis.hist(nonzero, edges, histtype="step", color=colour, linewidth=1.6)
        tallest = max(tallest, float(heights.max()), 1.0)
        better, worse = (values > 0).mean(), (values < 0).mean()
        text = f"{number}: better for {better:.0%}, worse for {worse:.0%}, the same for {1 - better - worse:.0%}"
        axis.plot([], [], color=colour, linewidth=2.2, label=text)
    means = [difference.mean for _, difference, _ in pairs]
    mean_colours = [colours[number - 1] for number, _, _ in pairs]
    axis.vlines(means, 0, 1.08 * tallest, color=mean_colours, linewidth=2.2)
    axis.vlines(0, 0, 1.08 * tallest, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.set_ylim(0, (1.15 + 0.08 * len(pairs)) * tallest)  # space for the legend above them
    axis.legend(frameon=False, loc="upper left", labelcolor=INK, fontsize=9)
