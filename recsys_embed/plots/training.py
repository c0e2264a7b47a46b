"""Pictures of one training: its curves, its users, and what its lists show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys_embed.data.ids import Rows
from recsys_embed.evaluation.evaluate import Report
from recsys_embed.evaluation.training_report import TrainingReport
from recsys_embed.plots.style import COLOURS, GREY, INK, label, new_figure, style, write
from recsys_embed.recommender import Recommender

# What early stopping looks at, by the name in the history.
VALIDATED = ("ndcg_at_10", "rmse")
_OURS, _POPULAR = COLOURS[:2]
_LENGTH = 10  # of the lists that are drawn; every training is measured at it


def draw_training(recommender: Recommender, measured: TrainingReport, folder: Path) -> list[Path]:
    """Draw curves.png and, where there was a test, users.png and popularity.png into a folder; return them."""
    history, epochs = recommender.metadata["history"], recommender.metadata["epochs"]
    made = [write(_curves(history, epochs), folder / "curves.png")]
    if measured.test is not None and measured.test.users:
        made.append(write(_users(measured.test, measured.popularity), folder / "users.png"))
        picture = _popularity(recommender.counts, measured.test, measured.popularity)
        made.append(write(picture, folder / "popularity.png"))
    return made


def _curves(history: Sequence[dict[str, float]], best: int) -> Any:
    """Draw the loss and, below it, the validation metric by epoch; the epoch that was kept is marked."""
    from matplotlib.ticker import MaxNLocator

    names = ["loss", *(n for n in VALIDATED if n in history[0])]
    figure = new_figure(7, 2.1 + 1.9 * len(names))
    epochs = np.arange(1, len(history) + 1)
    for axis, name in zip(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], names, strict=True):
        values = [facts[name] for facts in history]
        colour = GREY if name == "loss" else _OURS
        axis.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=4)
        title = "training loss"
        if name != "loss":
            axis.plot(best, values[best - 1], "o", color=_POPULAR, markersize=10, zorder=3)
            title = f"validation {label(name)}: {values[best - 1]:.4f} in epoch {best} of {len(history)}, the best"
        axis.axvline(best, color=_POPULAR, linewidth=1, linestyle=(0, (4, 4)))
        style(axis, title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch", color=INK)
    return figure


def _users(test: Report, popularity: Report | None, metric: str = "ndcg_at_10") -> Any:
    """Draw how a metric is spread over the users, of the model and of the popularity baseline."""
    figure = new_figure(7.5, 4.3)
    axis = figure.subplots()
    edges = np.linspace(0, 1, 21)
    sides = [("this model", test, _OURS)] + ([("popularity", popularity, _POPULAR)] if popularity else [])
    tallest = 0.0
    for name, report, colour in sides:
        values, mean = report.per_user[metric].to_numpy(), report.metrics[metric]
        share = np.full(len(values), 100 / len(values))
        filled: dict[str, Any] = {"alpha": 0.35, "histtype": "stepfilled"} if report is test else {"histtype": "step"}
        heights, _, _ = axis.hist(values, edges, weights=share, color=colour, linewidth=1.8, **filled)
        tallest = max(tallest, float(heights.max()))
        axis.axvline(mean, color=colour, linewidth=2, linestyle="-" if report is test else (0, (5, 3)),
                     label=f"{name}: mean {mean:.3f}, nothing found for {(values == 0).mean():.0%}")  # fmt: skip
    axis.set_ylim(0, 1.08 * tallest)
    axis.set_xlim(0, 1)
    style(axis, f"{label(metric)} of {test.users:,} users on held-out test ratings", label(metric), "% of the users")
    axis.legend(frameon=False, loc="upper right", labelcolor=INK)
    return figure


def _popularity(counts: Rows, test: Report, popularity: Report | None) -> Any:
    """Draw how often each item is rated against how often the lists show it: the bias towards what is popular.

    counts: training ratings of each item, int64 [items].
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(7.5, 5.2)
    axis = figure.subplots()
    rated = counts > 0
    shown = test.shown[_LENGTH]
    if popularity is not None:
        there = popularity.shown[_LENGTH] > 0
        axis.scatter(counts[there], popularity.shown[_LENGTH][there], s=22, marker="D", facecolor="none",
                     edgecolor=_POPULAR, linewidth=1.1, label=f"popularity: {there.sum():,} items ever shown",
                     zorder=3)  # fmt: skip
    ever = f"this model: {(shown > 0).sum():,} items ever shown"
    axis.scatter(counts[rated], shown[rated], s=13, color=_OURS, alpha=0.45, linewidth=0, label=ever, zorder=2)
    line = np.geomspace(counts[rated].min(), counts.max(), 50)
    axis.plot(line, line * shown.sum() / counts.sum(), color=INK, linewidth=1.2, linestyle=(0, (4, 3)),
              label="shown as often as rated", zorder=1)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=1, linscale=0.4)
    axis.set_ylim(-0.25, 1.6 * max(1, test.users))
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    top = np.argsort(-counts, kind="stable")[: max(1, round(rated.sum() / 10))]
    ratings, places = (part[top].sum() / max(1, part.sum()) for part in (counts, shown))
    title = f"The most rated tenth of the items: {ratings:.0%} of the ratings, {places:.0%} of the places in lists"
    style(axis, title, "ratings of the item in training", f"users whose {_LENGTH} best hold it")
    axis.legend(frameon=False, loc="upper left", labelcolor=INK, fontsize=9)
    return figure
