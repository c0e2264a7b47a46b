"""map.png: the same map on paper."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_embed.arrays import Floats
from recsys_embed.datasets.files import writing_whole
from recsys_embed.show.columns import OTHER, PALETTE, SCALE, Column

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide, high = np.ptp(points, axis=0) + 0.05
    figure = Figure(figsize=(12, 1 + float(np.clip(12 * high / wide, 6, 14))), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.suptitle(_shown(title), x=0.004, ha="left", fontsize=15, weight="bold")
    axis.set_title(facts, loc="left", fontsize=10, color="#555d66")
    _legend(axis, colour)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # what the font lacks is a box in the picture, and all right on the page
        figure.canvas.draw()  # the places of labels depend on the final axes
        best = order[::-1][: 4 * _LABELS]
        radii = np.sqrt((dot + 130 * share[best] ** 2) / np.pi)
        write_labels(axis, points[best], [_shown(titles[row], _LONGEST) for row in best], radii, _LABELS)
        with writing_whole(out) as file:
            figure.savefig(file, dpi=110, format="png")


def _legend(axis: Any, colour: Column) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.lines import Line2D

    if colour.kind == "tags":
        names = [*zip(colour.names, PALETTE, strict=False)][:_NAMES]
        if len(colour.names) > len(names):
            names.append(("other", OTHER))
        marks = [Line2D([], [], marker="o", ls="", color=c, label=_shown(name, 24)) for name, c in names]
        axis.legend(handles=marks, title=_shown(colour.name), loc="lower left", fontsize=9, framealpha=0.85)
        return
    known = colour.values[np.isfinite(colour.values)]
    inner = axis.inset_axes((0.01, 0.03, 0.2, 0.018))
    inner.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=LinearSegmentedColormap.from_list("", SCALE))
    inner.set_yticks([])
    inner.set_xticks([0, 63], [f"{known.min():g}", f"{known.max():g}"], fontsize=9)
    inner.set_title(f"{_shown(colour.name)}, by rank", fontsize=9)


def write_labels(axis: Any, points: Floats, texts: Sequence[str], radii: NDArray[Any], most: int) -> int:
    """Write texts beside their points, the first first, each where it covers no other; return how many found room.

    radii: of the points' marks, in typographic points.
    """
    renderer = axis.figure.canvas.get_renderer()
    taken: list[Any] = []
    for at, text in enumerate(texts):
        if len(taken) >= most:
            break
        away = float(radii[at]) + 2
        for dx, dy, side, base in ((away, 0, "left", "center"), (-away, 0, "right", "center"),
                                   (0, away, "center", "bottom"), (0, -away, "center", "top")):  # fmt: skip
            note = axis.annotate(
                text, points[at], (dx, dy), textcoords="offset points", ha=side, va=base, fontsize=8.5, zorder=3,
                color="#16191d", parse_math=False,
            )  # fmt: skip
            box = note.get_window_extent(renderer).padded(1.5)
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                _halo(note)
                taken.append(box)
                break
            note.remove()
    return len(taken)


def _halo(note: Any) -> None:
    from matplotlib.patheffects import withStroke

    note.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def _shown(text: str, longest: int = 80) -> str:
    """Return a text that fits, without what a font cannot draw."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
