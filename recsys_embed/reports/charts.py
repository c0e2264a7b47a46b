"""Plots of the report as inline SVG, whose sizes are percentages: text stays text, at any width."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_embed.reports.markup import Markup, element

_THICK = 12  # pixels of a bar


def bars(*shares: tuple[float | None, str]) -> Markup:
    """Return horizontal bars, one below the other. shares: (length from 0 to 1, the class that gives its colour)."""
    drawn = [(share, kind) for share, kind in shares if share is not None]
    rects = (
        element("rect", x="0", y=n * _THICK + 1, width=_percent(share), height=_THICK - 3, class_=kind)
        for n, (share, kind) in enumerate(drawn)
    )
    return element("svg", rects, class_="bars", width="100%", height=_THICK * max(1, len(drawn)), aria_hidden="true")


def interval(low: float, mean: float, high: float, ends: tuple[float, float]) -> Markup:
    """Return an interval with its middle on an axis from one end to another, and a line where the axis is at zero."""

    def at(value: float) -> str:
        return _percent((value - ends[0]) / (ends[1] - ends[0]))

    return element(
        "svg",
        element("line", x1=at(0), x2=at(0), y1="0", y2="20", class_="zero"),
        element("line", x1=at(low), x2=at(high), y1="10", y2="10", class_="whisker"),
        element("circle", cx=at(mean), cy="10", r="4.5", class_="model"),
        class_="bars", width="100%", height="20", aria_hidden="true",
    )  # fmt: skip


def columns(counts: Sequence[int], label: str) -> Markup:
    """Return upright bars, one for each count, for instance of equal times. label: what the picture says."""
    tallest = max(1, *counts)
    rects = (
        element("rect", x=n + 0.08, y=100 - 100 * count / tallest, width="0.84", height=100 * count / tallest,
                class_="model")
        for n, count in enumerate(counts)
    )  # fmt: skip
    box = {"viewBox": f"0 0 {len(counts)} 100", "preserveAspectRatio": "none"}
    return element("svg", rects, class_="columns", width="100%", height="120", role="img", aria_label=label, **box)


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
