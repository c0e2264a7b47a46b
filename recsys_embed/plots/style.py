"""What all pictures share: how a file is named and written, colours, and axes without clutter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from recsys_embed.errors import SettingError
from recsys_embed.storage.atomic import writing_whole

# Told apart by colour-blind people too (Okabe and Ito, Color Universal Design, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
GREY, INK = "#8a8f98", "#22262b"


def check_ending(out: Path) -> None:
    """Raise SettingError where a file's ending is no picture's."""
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise SettingError(f"{out} must end in .png, .svg or .pdf")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches. It belongs to no window and changes nobody's settings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write(figure: Any, out: Path, dpi: int = 150) -> Path:
    """Write a figure to a .png, .svg or .pdf, whole or not at all."""
    import matplotlib

    words_stay_words = {"svg.fonttype": "none"}
    with writing_whole(out) as file, matplotlib.rc_context(words_stay_words), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a title in a script that the font lacks shows as boxes
        figure.savefig(file, dpi=dpi, format=out.suffix[1:])
    return out


def style(axis: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes their titles, a faint grid, and no frame above and to the right."""
    axis.set_title(plain(title), fontsize=11, loc="left", color=INK)
    axis.set_xlabel(plain(x), color=INK)
    axis.set_ylabel(plain(y), color=INK)
    axis.grid(True, color="#e6e8eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors="#555b63", labelsize=9, length=3)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b8bcc4")


class Label(NamedTuple):
    """A text beside a point. away: from it, in typographic points. must: written even where it covers something."""

    text: str
    away: float = 7
    size: float = 8.5
    colour: str = INK
    weight: str = "normal"
    must: bool = False


# The sides that a label may stand on, by which of them reads best.
_SIDES = (
    (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"),
    (1, 1, "left", "bottom"), (1, -1, "left", "top"), (-1, 1, "right", "bottom"), (-1, -1, "right", "top"),
)  # fmt: skip


def write_labels(axis: Any, points: NDArray[Any], labels: Sequence[Label], most: int, clear: bool = False) -> int:
    """Write `most` labels at most beside their points [n, 2], the first first; return how many were written.

    Each stands where it covers no other and, with `clear`, none of the points; one that finds no such place is left
    out, or stands where it covers least where it must be written. Call it when the axes have their final size.
    """
    renderer = axis.figure.canvas.get_renderer()
    pixels = axis.transData.transform(points) if clear else ()
    taken: list[Any] = []
    for at, label in enumerate(labels):
        if len(taken) >= most:
            break
        best, least = None, math.inf if label.must else 1
        for x, y, side, base in _SIDES:
            note = axis.annotate(
                plain(label.text), points[at], (x * label.away, y * label.away), textcoords="offset points", ha=side,
                va=base, fontsize=label.size, color=label.colour, weight=label.weight, zorder=4,
            )  # fmt: skip
            box = note.get_window_extent(renderer).padded(1.5)
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
            clash = 3 * (not inside) + sum(box.overlaps(other) for other in taken)
            clash += sum(box.contains(*pixel) for n, pixel in enumerate(pixels) if n != at)
            if clash < least:
                if best is not None:
                    best[0].remove()
                best, least = (note, box), clash
            else:
                note.remove()
            if not clash:
                break
        if best is not None:
            if not clear:  # points may lie under it
                best[0].set_path_effects([_halo()])
            taken.append(best[1])
    return len(taken)


def _halo() -> Any:
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=2.2, foreground="white")


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def label(metric: str) -> str:
    """Return a metric's name for people: ndcg_at_10 -> NDCG@10."""
    name, _, k = metric.partition("_at_")
    short = name.upper() if name in ("ndcg", "map", "mrr", "rmse", "mae") else name.replace("_", " ")
    return f"{short}@{k}" if k else short
