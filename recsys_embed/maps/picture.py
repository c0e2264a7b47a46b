"""map.png: the same map on paper."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.maps.columns import OTHER, PALETTE, SCALE, Column
from recsys_embed.plots.style import Label, new_figure, plain, write, write_labels

_LABELS = 60
_LONGEST = 34
_NAMES = 10


def draw_picture(
    out: Path,
    points: Floats,
    users: Floats,
    titles: Sequence[str],
    counts: NDArray[np.int64],
    colour: Column,
    title: str,
    facts: str,
) -> None:
    """Draw items [n, 2], the most rated ones large and with their titles, and users [u, 2] as small grey marks."""
    wide, high = np.ptp(points, axis=0) + 0.05
    figure = new_figure(12, 1 + float(np.clip(12 * high / wide, 6, 14)))
    axis = figure.subplots()
    if len(users):
        axis.scatter(users[:, 0], users[:, 1], s=4, c="#c9ced4", marker="x", linewidths=0.6, zorder=1)
    share = np.sqrt(counts / max(1, int(counts.max(initial=1))))
    order = np.argsort(counts, kind="stable")
    dot = 5 if len(points) <= 5_000 else 2
    colours = np.array(colour.colours())
    sizes = dot + 130 * share[order] ** 2
    axis.scatter(
        points[order, 0], points[order, 1], s=sizes, c=colours[order], linewidths=0.3, edgecolors="white", zorder=2
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_axis_off()
    axis.margins(0.02)
    figure.suptitle(plain(shown(title)), x=0.004, ha="left", fontsize=15, weight="bold")
    axis.set_title(facts, loc="left", fontsize=10, color="#555d66")
    _legend(axis, colour)
    best = order[::-1][: 4 * _LABELS]
    sides = np.sqrt((dot + 130 * share[best] ** 2) / np.pi) + 2
    labels = [Label(shown(titles[row], _LONGEST), away) for row, away in zip(best, sides.tolist(), strict=True)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.canvas.draw()  # the places of labels depend on the final axes
        write_labels(axis, points[best], labels, _LABELS)
    write(figure, out, dpi=110)


def _legend(axis: Any, colour: Column) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.lines import Line2D

    if colour.kind == "tags":
        names = [*zip(colour.names, PALETTE, strict=False)][:_NAMES]
        if len(colour.names) > len(names):
            names.append(("other", OTHER))
        marks = [Line2D([], [], marker="o", ls="", color=c, label=plain(shown(name, 24))) for name, c in names]
        axis.legend(handles=marks, title=plain(shown(colour.name)), loc="lower left", fontsize=9, framealpha=0.85)
        return
    known = colour.values[np.isfinite(colour.values)]
    inner = axis.inset_axes((0.01, 0.03, 0.2, 0.018))
    inner.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=LinearSegmentedColormap.from_list("", SCALE))
    inner.set_yticks([])
    inner.set_xticks([0, 63], [f"{known.min():g}", f"{known.max():g}"], fontsize=9)
    inner.set_title(f"{plain(shown(colour.name))}, by rank", fontsize=9)


def shown(text: str, longest: int = 80) -> str:
    """Return a text that fits on a line, without what no font draws."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
