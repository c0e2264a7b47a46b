"""map.png: a map as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.maps.columns import OTHER, PALETTE, SCALE, MapColumn
from recsys_embed.plots.style import Label, escape_math, new_figure, place_labels, save_figure

_MAX_LABELS = 60
_MAX_TITLE_LENGTH = 34
_MAX_LEGEND_NAMES = 10


def draw_picture(
    out: Path,
    points: Floats,
    users: Floats,
    titles: Sequence[str],
    counts: NDArray[np.int64],
    colour: MapColumn,
    title: str,
    facts: str,
) -> None:
    """Draw items [n, 2], the most rated ones larger and with titles, and users [u, 2] as small grey marks."""
    width, height = np.ptp(points, axis=0) + 0.05
    figure = new_figure(12, 1 + float(np.clip(12 * height / width, 6, 14)))
    axis = figure.subplots()
    if len(users):
        axis.scatter(users[:, 0], users[:, 1], s=4, c="#c9ced4", marker="x", linewidths=0.6, zorder=1)
    size = np.sqrt(counts / max(1, int(counts.max(initial=1))))
    order = np.argsort(counts, kind="stable")
    min_area = 5 if len(points) <= 5_000 else 2
    colours = np.array(colour.colours())
    areas = min_area + 130 * size[order] ** 2
    axis.scatter(
        points[order, 0], points[order, 1], s=areas, c=colours[order], linewidths=0.3, edgecolors="white", zorder=2
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_axis_off()
    axis.margins(0.02)
    figure.suptitle(escape_math(one_line(title)), x=0.004, ha="left", fontsize=15, weight="bold")
    axis.set_title(facts, loc="left", fontsize=10, color="#555d66")
    _legend(axis, colour)
    best = order[::-1][: 4 * _MAX_LABELS]
    distances = np.sqrt((min_area + 130 * size[best] ** 2) / np.pi) + 2
    labels = [
        Label(one_line(titles[row], _MAX_TITLE_LENGTH), distance)
        for row, distance in zip(best, distances.tolist(), strict=True)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.canvas.draw()  # labels are placed on the final axes
        place_labels(axis, points[best], labels, _MAX_LABELS)
    save_figure(figure, out, dpi=110)


def _legend(axis: Any, colour: MapColumn) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.lines import Line2D

    if colour.kind == "tags":
        names = [*zip(colour.names, PALETTE, strict=False)][:_MAX_LEGEND_NAMES]
        if len(colour.names) > len(names):
            names.append(("other", OTHER))
        marks = [Line2D([], [], marker="o", ls="", color=c, label=escape_math(one_line(name, 24))) for name, c in names]
        axis.legend(
            handles=marks, title=escape_math(one_line(colour.name)), loc="lower left", fontsize=9, framealpha=0.85
        )
        return
    known = colour.values[np.isfinite(colour.values)]
    inner = axis.inset_axes((0.01, 0.03, 0.2, 0.018))
    inner.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=LinearSegmentedColormap.from_list("", SCALE))
    inner.set_yticks([])
    inner.set_xticks([0, 63], [f"{known.min():g}", f"{known.max():g}"], fontsize=9)
    inner.set_title(f"{escape_math(one_line(colour.name))}, by rank", fontsize=9)


def one_line(text: str, longest: int = 80) -> str:
    """Return a text as one line of at most `longest` characters, with blanks for unprintable ones."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
