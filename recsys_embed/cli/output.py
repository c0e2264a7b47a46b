"""What people and machines see: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

# Titles are data: escape sequences in them must not reach a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def start_logging(quiet: bool) -> None:
    """Send the package's notes to stderr, one plain line each; with `quiet` only warnings."""
    logger = logging.getLogger("recsys_embed")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = clean(record.getMessage())
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


def clean(text: object) -> str:
    """Return text that a terminal shows and does not obey."""
    return _CONTROL.sub(" ", str(text))


def say_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return a value with null for what JSON cannot say: NaN and infinity."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str = "") -> None:
    """Print a line."""
    print(clean(text))


def say_table(names: Sequence[str], rows: Sequence[Sequence[object]], right: str = "") -> None:
    """Print rows as aligned columns that fit the width; names in `right` are set to the right.

    The widest text column gives way where the line would be too long.
    """
    cells = [[clean("" if c is None else c) for c in row] for row in (names, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(names))]
    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200
    excess = sum(widths) + 2 * len(widths) - room
    if excess > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(12, widths[widest] - excess)
    for row in cells:
        parts = [_fit(c, w, names[at] in right.split()) for at, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(parts).rstrip())


def _fit(text: str, width: int, right: bool) -> str:
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)
