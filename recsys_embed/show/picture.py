"""What all pictures share: how a file is named and written, colours, and axes without clutter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from recsys_embed.datasets.files import writing_whole
from recsys_embed.errors import SettingError

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


def write(figure: Any, out: Path) -> Path:
    """Write a figure to a .png, .svg or .pdf, whole or not at all."""
    import matplotlib

    words_stay_words = {"svg.fonttype": "none"}
    with writing_whole(out) as file, matplotlib.rc_context(words_stay_words), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a title in a script that the font lacks shows as boxes
        figure.savefig(file, dpi=150, format=out.suffix[1:])
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


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def label(metric: str) -> str:
    """Return a metric's name for people: ndcg_at_10 -> NDCG@10."""
    name, _, k = metric.partition("_at_")
    short = name.upper() if name in ("ndcg", "map", "mrr", "rmse", "mae") else name.replace("_", " ")
    return f"{short}@{k}" if k else short
