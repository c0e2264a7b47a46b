"""Draw one training: its curves, the spread over users, and the popularity bias of its lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.evaluation.evaluate import Report
from recsys_embed.evaluation.training_report import TrainingReport
from recsys_embed.plots.style import COLOURS, GREY, INK, metric_label, new_figure, save_figure, style_axes
from recsys_embed.recommender import Recommender

# The metrics that early stopping monitors, by their names in the history.
VALIDATION_METRICS = ("ndcg_at_10", "rmse")
_MODEL_COLOUR, _POPULARITY_COLOUR = COLOURS[:2]
_K = 10  # length of the lists that are drawn; every training is measured at 10


def draw_training(recommender: Recommender, measured: TrainingReport, folder: Path) -> list[Path]:
    """Draw curves.png and, if there was a test, users.png and popularity.png into a folder; return the files."""
    history, epochs = recommender.metadata["history"], recommender.metadata["epochs"]
    files = [save_figure(_draw_curves(history, epochs), folder / "curves.png")]
    if measured.test is not None and measured.test.users:
        files.append(save_figure(_draw_users(measured.test, measured.popularity), folder / "users.png"))
        figure = _draw_popularity(recommender.item_counts, measured.test, measured.popularity)
        files.append(save_figure(figure, folder / "popularity.png"))
    return files


def _draw_curves(history: Sequence[dict[str, float]], best: int) -> Any:
    """Draw the loss and, below it, the validation metric by epoch, with the best epoch marked."""
    from matplotlib.ticker import MaxNLocator

    names = ["loss", *(n for n in VALIDATION_METRICS if n in history[0])]
    figure = new_figure(7, 2.1 + 1.9 * len(names))
    epochs = np.arange(1, len(history) + 1)
    for axis, name in zip(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], names, strict=True):
        values = [epoch[name] for epoch in history]
        colour = GREY if name == "loss" else _MODEL_COLOUR
        axis.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=4)
        title = "training loss"
        if name != "loss":
            axis.plot(best, values[best - 1], "o", color=_POPULARITY_COLOUR, markersize=10, zorder=3)
            title = (
                f"validation {metric_label(name)}: {values[best - 1]:.4f} in epoch {best} of {len(history)}, the best"
            )
        axis.axvline(best, color=_POPULARITY_COLOUR, linewidth=1, linestyle=(0, (4, 4)))
        style_axes(axis, title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch", color=INK)
    return figure


def _draw_users(test: Report, popularity: Report | None, metric: str = "ndcg_at_10") -> Any:
    """Draw the distribution of a metric over users, for the model and the popularity baseline."""
    figure = new_figure(7.5, 4.3)
    axis = figure.subplots()
    edges = np.linspace(0, 1, 21)
    reports = [("this model", test, _MODEL_COLOUR)]
    reports += [("popularity", popularity, _POPULARITY_COLOUR)] if popularity else []
    tallest = 0.0
    for name, report, colour in reports:
        values, mean = report.per_user[metric].to_numpy(), report.metrics[metric]
        share = np.full(len(values), 100 / len(values))
        filled: dict[str, Any] = {"alpha": 0.35, "histtype": "stepfilled"} if report is test else {"histtype": "step"}
        heights, _, _ = axis.hist(values, edges, weights=share, color=colour, linewidth=1.8, **filled)
        tallest = max(tallest, float(heights.max()))
        axis.axvline(mean, color=colour, linewidth=2, linestyle="-" if report is test else (0, (5, 3)),
                     label=f"{name}: mean {mean:.3f}, nothing found for {(values == 0).mean():.0%}")  # fmt: skip
    axis.set_ylim(0, 1.08 * tallest)
    axis.set_xlim(0, 1)
    style_axes(
        axis,
        f"{metric_label(metric)} of {test.users:,} users on held-out test ratings",
        metric_label(metric),
        "% of the users",
    )
    axis.legend(frameon=False, loc="upper right", labelcolor=INK)
    return figure


def _draw_popularity(counts: Rows, test: Report, popularity: Report | None) -> Any:
    """Draw how often each item is in lists against how often it is rated: the bias towards popular items.

    counts: training ratings of each item, int64 [items].
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(7.5, 5.2)
    axis = figure.subplots()
    rated = counts > 0
    exposure = test.exposure[_K]
    if popularity is not None:
        listed = popularity.exposure[_K] > 0
        label = f"popularity: {listed.sum():,} items ever shown"
        axis.scatter(counts[listed], popularity.exposure[_K][listed], s=22, marker="D", facecolor="none",
                     edgecolor=_POPULARITY_COLOUR, linewidth=1.1, label=label, zorder=3)  # fmt: skip
    label = f"this model: {(exposure > 0).sum():,} items ever shown"
    axis.scatter(counts[rated], exposure[rated], s=13, color=_MODEL_COLOUR, alpha=0.45, linewidth=0, label=label,
                 zorder=2)  # fmt: skip
    x = np.geomspace(counts[rated].min(), counts.max(), 50)
    axis.plot(x, x * exposure.sum() / counts.sum(), color=INK, linewidth=1.2, linestyle=(0, (4, 3)),
              label="shown as often as rated", zorder=1)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=1, linscale=0.4)
    axis.set_ylim(-0.25, 1.6 * max(1, test.users))
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    top = np.argsort(-counts, kind="stable")[: max(1, round(rated.sum() / 10))]
    ratings, places = (values[top].sum() / max(1, values.sum()) for values in (counts, exposure))
    title = f"The most rated tenth of the items: {ratings:.0%} of the ratings, {places:.0%} of the places in lists"
    style_axes(axis, title, "ratings of the item in training", f"users with the item in their top {_K}")
    axis.legend(frameon=False, loc="upper left", labelcolor=INK, fontsize=9)
    return figure
