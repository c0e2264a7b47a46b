"""What is likely meant where a condition cannot be read."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORDS = ("and", "or", "not", "in", "is", "True", "False", "None", "today", "now")


def hint(around: Sequence[tuple[str, str]]) -> str:
    """Return in brackets what is likely meant, or nothing. around: kind and text of the token before, of the one that
    cannot follow it, and of the next."""
    if len(around) < 3:
        return ""
    (before, left), (kind, text), (after, right) = around
    if before == kind == "column":
        return f" (a name that is not one word stands in backticks: `{left[:40]} {text[:40]}`)"
    if before == after == "number" and text == ",":
        return f" (a number has a point: {left[:20]}.{right[:20]})"
    if before == after == "number" and text == "-":
        return " (a date stands in quotes: '2026-12-24')"
    return ""


def as_written(name: str) -> str:
    """Return the name of a column as it stands in a condition: in backticks if it is not one word."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) and name not in _WORDS else f"`{name}`"
