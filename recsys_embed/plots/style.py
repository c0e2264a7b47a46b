"""The common style of all pictures: file types, colours, axes without clutter, and labels that do not overlap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from recsys_embed.errors import SettingError
from recsys_embed.storage.atomic import atomic_write

# Colours that colour-blind people can distinguish (Okabe and Ito, Color Universal Design, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREY, INK = "#8a8f98", "#22262b"


def check_suffix(out: Path) -> None:
    """Raise SettingError unless a file's suffix is that of a supported picture format."""
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise SettingError(f"{out} must end in .png, .svg or .pdf")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, sizes in inches. It opens no window and leaves matplotlib's global settings alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, out: Path, dpi: int = 150) -> Path:
    """Write a figure to a .png, .svg or .pdf file atomically, and return the file."""
    import matplotlib

    text_as_text = {"svg.fonttype": "none"}
    with atomic_write(out) as file, matplotlib.rc_context(text_as_text), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # titles in a script that the font lacks are drawn as boxes
        figure.savefig(file, dpi=dpi, format=out.suffix[1:])
    return out


def style_axes(axis: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Set the titles of axes, draw a faint grid, and remove the frame at the top and on the right."""
    axis.set_title(escape_math(title), fontsize=11, loc="left", color=INK)
    axis.set_xlabel(escape_math(x), color=INK)
    axis.set_ylabel(escape_math(y), color=INK)
    axis.grid(True, color="#e6e8eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors="#555b63", labelsize=9, length=3)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b8bcc4")


class Label(NamedTuple):
    """A text beside a point. distance: from it, in typographic points. required: drawn even if it covers something."""

    text: str
    distance: float = 7
    size: float = 8.5
    colour: str = INK
    weight: str = "normal"
    required: bool = False


# Where a label may be placed around its point, the most readable side first.
_SIDES = (
    (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"),
    (1, 1, "left", "bottom"), (1, -1, "left", "top"), (-1, 1, "right", "bottom"), (-1, -1, "right", "top"),
)  # fmt: skip


def place_labels(axis: Any, points: NDArray[Any], labels: Sequence[Label], max_labels: int, clear: bool = False) -> int:
    """Place up to `max_labels` labels beside their points [n, 2], the first ones first; return how many were placed.

    A label covers no other and, with `clear`, no point; one that finds no such place is left out or, if it is required,
    placed where it covers the fewest. Call this when the axes have their final size.
    """
    renderer = axis.figure.canvas.get_renderer()
    pixels = axis.transData.transform(points) if clear else ()
    placed: list[Any] = []
    for row, label in enumerate(labels):
        if len(placed) >= max_labels:
            break
        best, fewest = None, math.inf if label.required else 1
        for x, y, horizontal, vertical in _SIDES:
            note = axis.annotate(
                escape_math(label.text), points[row], (x * label.distance, y * label.distance),
                textcoords="offset points", ha=horizontal, va=vertical, fontsize=label.size, color=label.colour,
                weight=label.weight, zorder=4,
            )  # fmt: skip
            box = note.get_window_extent(renderer).padded(1.5)
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
            overlaps = 3 * (not inside) + sum(box.overlaps(other) for other in placed)
            overlaps += sum(box.contains(*pixel) for n, pixel in enumerate(pixels) if n != row)
            if overlaps < fewest:
                if best is not None:
                    best[0].remove()
                best, fewest = (note, box), overlaps
            else:
                note.remove()
            if not overlaps:
                break
        if best is not None:
            if not clear:  # there may be points under it
                best[0].set_path_effects([_halo()])
            placed.append(best[1])
    return len(placed)


def _halo() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2.2, foreground="white")


def escape_math(text: str) -> str:
    """Return text that matplotlib draws as it is: an unescaped dollar sign would start a formula."""
    return text.replace("$", r"\$")


def metric_label(metric: str) -> str:
    """Return a metric's name for display: ndcg_at_10 -> NDCG@10."""
    name, _, k = metric.partition("_at_")
    short = name.upper() if name in ("ndcg", "map", "mrr", "rmse", "mae") else name.replace("_", " ")
    return f"{short}@{k}" if k else short
